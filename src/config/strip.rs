//! Names of query parameters that look like credentials, and their removal from the URLs in an event.

use std::borrow::Cow;

use memchr::{memchr2, memchr3_iter};
use serde::{Deserialize, Deserializer, de};

/// The default of `strip_query_params`. `utm_…` and click ids are not among them, because they tell where a visit came from.
const STRIPPED: [&str; 32] = [
    // Whatever ends so: `access_token`, `reset_token`, `client_secret`, `X-Amz-Signature`.
    "*token",
    "*password",
    "*passwd",
    "*secret",
    "*signature",
    "*credential",
    "*api_key",
    "*apikey",
    "*api-key",
    "*access_key",
    "*session_id",
    "*sessionid",
    "*passcode",
    // OAuth's code, SAML's messages, one-time codes of mails.
    "code",
    "assertion",
    "samlresponse",
    "samlrequest",
    "oobcode",
    "otp",
    "reset",
    "confirmation",
    // Short names for the same.
    "pass",
    "pwd",
    "auth",
    "authorization",
    "jwt",
    "sig",
    "key",
    "session",
    "sid",
    "phpsessid",
    "hmac",
];
/// The longest name of a parameter, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The parameters that are removed from URLs: names, or ends of names that begin with `*`. Case does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrippedParams(Vec<Cow<'static, str>>);

impl Default for StrippedParams {
    fn default() -> Self {
        // None is copied: every start of a function makes this list.
        Self(STRIPPED.map(Cow::Borrowed).into())
    }
}

impl<'de> Deserialize<'de> for StrippedParams {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let names = Vec::<Cow<'static, str>>::deserialize(value)?;
        let is_name = |name: &str| !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_name_byte);
        match names.iter().find(|name| !is_name(name.strip_prefix('*').unwrap_or(name))) {
            Some(name) => Err(de::Error::custom(format_args!(
                "has `{name}`; write the name of a parameter such as `token`, or the end of one such as `*token`"
            ))),
            None => Ok(Self(names)),
        }
    }
}

/// How a separator of a URL is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// As it is, or as an escape of JSON (`\u0026`).
    Plain,
    /// Percent-encoded: the URL is a parameter of another one.
    Encoded,
}

/// A parameter that is removed.
struct Param {
    /// Where the separator before the name begins, and where it ends.
    separator: (usize, usize),
    /// Whether the separator is `?` or `#`, which begins the parameters, and not one between two of them.
    is_first: bool,
    /// Where the value ends.
    end: usize,
    /// The bytes of the separator behind the value, if another parameter follows.
    next: usize,
}

impl StrippedParams {
    /// Removes the parameters from all URLs in JSON. Returns `None` if there is none to remove.
    pub(crate) fn strip(&self, json: &str) -> Option<String> {
        let bytes = json.as_bytes();
        if self.0.is_empty() {
            return None;
        }
        // A parameter has an equals sign, which JSON can also hold as an escape. Many events have neither.
        let first = memchr2(b'=', b'\\', bytes)?;
        let (mut out, mut from) = (String::new(), 0);
        // The bytes of a `?` or `#` at the end of `out` whose first parameters are removed.
        let mut open = 0;
        for at in memchr3_iter(b'=', b'%', b'\\', &bytes[first..]).map(|at| first + at) {
            let Some(param) = self.param(bytes, at, from) else { continue };
            let (start, name) = param.separator;
            let continues = from == name && open > 0;
            if !continues {
                open = if param.is_first { name - start } else { 0 };
                out.push_str(&json[from..if param.is_first { name } else { start }]);
            }
            from = param.end;
            if open > 0 && param.next > 0 {
                from += param.next;
            } else {
                out.truncate(out.len() - open);
                open = 0;
            }
        }
        (from > 0).then(|| out + &json[from..])
    }

    /// Returns the parameter whose equals sign is at `at`, if it is one to remove. What is before `from` is already removed.
    fn param(&self, bytes: &[u8], at: usize, from: usize) -> Option<Param> {
        let (spelling, sign) = match &bytes[at..] {
            [b'=', ..] => (Spelling::Plain, 1),
            rest if is_escape(rest, b"3d") => (Spelling::Encoded, 3),
            rest if is_escape(rest, b"003d") => (Spelling::Plain, 6),
            _ => return None,
        };
        if at < from {
            return None;
        }
        let run = bytes[..at].iter().rev().take(MAX_NAME_BYTES).take_while(|&&byte| is_name_byte(byte)).count();
        let start = at - run;
        let (separator, is_first) = separator_before(bytes, start, spelling)?;
        if !self.has(bytes.get(separator.1..at)?) {
            return None;
        }
        let is_path = bytes[separator.0] == b';';
        let end = at + sign + value_len(&bytes[at + sign..], spelling, is_path);
        Some(Param { separator, is_first, end, next: separator_len(&bytes[end..], spelling) })
    }

    fn has(&self, name: &[u8]) -> bool {
        let name = last_name(name);
        self.0.iter().any(|own| match own.strip_prefix('*') {
            Some(end) => name.len() >= end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes()),
            None => name.eq_ignore_ascii_case(own.as_bytes()),
        })
    }
}

/// Returns the last name in brackets, such as `token` of `user[token]`, or the name before empty ones.
fn last_name(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| !matches!(byte, b'[' | b']')).map_or(0, |last| last + 1);
    let start = name[..end].iter().rposition(|&byte| byte == b'[').map_or(0, |bracket| bracket + 1);
    &name[start..end]
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']')
}

/// Returns whether an escape with these digits begins here: `%3d`, `\u003d`.
fn is_escape(bytes: &[u8], digits: &[u8]) -> bool {
    let digits_at = match bytes {
        [b'%', ..] if digits.len() == 2 => 1,
        [b'\\', b'u', ..] if digits.len() == 4 => 2,
        _ => return false,
    };
    bytes.get(digits_at..digits_at + digits.len()).is_some_and(|found| found.eq_ignore_ascii_case(digits))
}

/// Returns where the separator before a name begins and ends, and whether it is the one before the first parameter. The digits of
/// an escape look like the beginning of the name that starts at `start`.
fn separator_before(bytes: &[u8], start: usize, spelling: Spelling) -> Option<((usize, usize), bool)> {
    let before = start.checked_sub(1)?;
    let rest = &bytes[before..];
    let found = |length, is_first| Some(((before, before + length), is_first));
    match (spelling, bytes[before]) {
        (Spelling::Plain, b'?' | b'#') => found(1, true),
        (Spelling::Plain, b'&' | b';') => found(1, false),
        (Spelling::Plain, b'\\') if is_escape(rest, b"003f") || is_escape(rest, b"0023") => found(6, true),
        (Spelling::Plain, b'\\') if is_escape(rest, b"0026") => found(6, false),
        (Spelling::Encoded, b'%') if is_escape(rest, b"3f") || is_escape(rest, b"23") => found(3, true),
        (Spelling::Encoded, b'%') if is_escape(rest, b"26") => found(3, false),
        _ => None,
    }
}

/// Returns the length of the separator between two parameters that begins here, or 0.
fn separator_len(bytes: &[u8], spelling: Spelling) -> usize {
    match bytes {
        [b'&', ..] if spelling == Spelling::Plain => 1,
        rest if spelling == Spelling::Plain && is_escape(rest, b"0026") => 6,
        rest if spelling == Spelling::Encoded && is_escape(rest, b"26") => 3,
        _ => 0,
    }
}

/// Returns the length of a value: up to the next separator, or the end of the URL. `is_path`: the parameter is one of the path.
fn value_len(bytes: &[u8], spelling: Spelling, is_path: bool) -> usize {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        at += match byte {
            b'&' | b'#' | b'"' | b'<' | b'>' | 0..=b' ' => break,
            b'?' | b'/' | b';' if is_path => break,
            b'%' if spelling == Spelling::Encoded && (is_escape(rest, b"26") || is_escape(rest, b"23")) => break,
            b'\\' => match rest.get(1) {
                Some(b'/') if !is_path => 2,
                Some(b'u') if !["0026", "0023", "0022", "0020"].iter().any(|end| is_escape(rest, end.as_bytes())) => 2,
                _ => break,
            },
            _ => 1,
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_removed() {
        let params = StrippedParams::default();
        for (url, wanted) in [
            ("https://a.test/?token=CANARY", "https://a.test/"),
            ("https://a.test/?token=CANARY&x=1", "https://a.test/?x=1"),
            ("https://a.test/?x=1&Token=CANARY", "https://a.test/?x=1"),
            ("https://a.test/?x=1&token=CANARY&y=2#top", "https://a.test/?x=1&y=2#top"),
            ("https://a.test/?token=CANARY&code=CANARY&y=2", "https://a.test/?y=2"),
            ("https://a.test/?token=CANARY&code=CANARY#top", "https://a.test/#top"),
            ("https://a.test/?token=CANARY&x=1&code=CANARY&y=2", "https://a.test/?x=1&y=2"),
            ("https://a.test/?token=CANARY#access_token=CANARY&id_token=CANARY", "https://a.test/"),
            ("https://a.test/#/reset?reset_password_token=CANARY", "https://a.test/#/reset"),
            ("https://a.test/?token=", "https://a.test/"),
            ("/relative?user[password]=CANARY&user%5B=1", "/relative?user%5B=1"),
            ("https://a.test/x;jsessionid=CANARY?y=1", "https://a.test/x?y=1"),
            ("https://a.test/?X-Amz-Signature=CANARY&X-Amz-Security-Token=CANARY", "https://a.test/"),
            // As encoders of JSON write it.
            (r"https:\/\/a.test\/?token=CANARY\/CANARY&x=1", r"https:\/\/a.test\/?x=1"),
            (r"https://a.test/?x=1\u0026token=CANARY\u0026y=2", r"https://a.test/?x=1\u0026y=2"),
            (r"https://a.test/?token\u003dCANARY\u0026y\u003d2", r"https://a.test/?y\u003d2"),
            (r#"{\"u\":\"https://a.test/?token=CANARY\"}"#, r#"{\"u\":\"https://a.test/\"}"#),
            // A URL in a parameter.
            (
                "/login?next=https%3A%2F%2Fa.test%2F%3Ftoken%3DCANARY%26x%3D1&y=2",
                "/login?next=https%3A%2F%2Fa.test%2F%3Fx%3D1&y=2",
            ),
            ("/login?next=%2F%3fx%3d1%26code%3dCANARY", "/login?next=%2F%3fx%3d1"),
        ] {
            let json = |url: &str| format!(r#"{{"$current_url":"{url}","b":"ü"}}"#);
            assert_eq!(params.strip(&json(url)).as_deref(), Some(&*json(wanted)), "{url}");
            assert_eq!(params.strip(&json(wanted)), None, "{wanted}");
        }
    }

    #[test]
    fn everything_else_stays() {
        let params = StrippedParams::default();
        for text in [
            "https://a.test/?utm_source=news&utm_campaign=token&gclid=x&fbclid=y&q=code%3D1&page=2",
            "https://a.test/token=1/code",
            "token=1",
            "a token=1",
            "https://a.test/?tokens=1&encode=2&monkey=3&sidebar=4&keyword=5&state=CA",
            "1+1=2 \\\\ \\n ?",
            "",
        ] {
            assert_eq!(params.strip(text), None, "{text}");
        }
        assert_eq!(StrippedParams(Vec::new()).strip("?token=x"), None);
        assert_eq!(StrippedParams(vec!["q".into()]).strip("/?token=x&Q=y").as_deref(), Some("/?token=x"));
    }

    proptest::proptest! {
        /// Any text is read to its end, and what is removed stays removed.
        #[test]
        fn stripping_twice_is_stripping_once(text in r"([?&#;=%\\]|token|code|x|u0026|u003d|3D|3F|26|ü|/){0,24}") {
            let params = StrippedParams::default();
            if let Some(once) = params.strip(&text) {
                proptest::prop_assert!(once.len() < text.len());
            }
        }
    }
}
