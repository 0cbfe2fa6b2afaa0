//! Lists of hosts, as people enter them: names, URLs, wildcards, in any alphabet.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use url::{Host, Url};

use super::{ConfigError, bare_host};

/// A host, or a domain with all hosts below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    /// As hosts are compared: lower case, punycode, without `www.`, port and dot at the end.
    host: String,
    /// `.` and the domain, where all hosts below it are meant, too.
    below: Option<String>,
}

impl HostRule {
    /// Whether it covers a host in the form in which hosts are compared.
    pub(crate) fn covers(&self, host: &str) -> bool {
        host == self.host || self.below.as_deref().is_some_and(|below| host.ends_with(below))
    }
}

impl FromStr for HostRule {
    type Err = ConfigError;

    /// Reads `shop.test`, `*.shop.test` (the domain and all below it), or a URL, which is taken for its host.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let rest = text.trim();
        let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (name, is_wildcard) = match rest.strip_prefix("*.").or_else(|| rest.strip_prefix('.')) {
            Some(domain) => (domain, true),
            None => (rest, false),
        };
        let host = written_host(name).ok_or_else(|| ConfigError(advice(text)))?;
        Ok(Self { below: is_wildcard.then(|| format!(".{host}")), host: bare_host(&host) })
    }
}

impl<'de> Deserialize<'de> for HostRule {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        String::deserialize(value)?.parse().map_err(de::Error::custom)
    }
}

/// The form in which it can be read again.
impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.below {
            Some(below) => write!(f, "*{below}"),
            None => f.write_str(&self.host),
        }
    }
}

/// The host that begins a text, as URLs have it; none where no URL can have it.
fn written_host(text: &str) -> Option<String> {
    // A path alone is none; a backslash would be taken for the slash before one.
    if text.starts_with('/') || text.contains(['*', '\\']) || text.contains(char::is_whitespace) {
        return None;
    }
    let url = Url::parse(&format!("http://{text}")).ok()?;
    let host = match url.host()? {
        Host::Domain(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
        address => return Some(address.to_string()),
    };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.split('.').all(is_label).then_some(host)
}

fn advice(text: &str) -> String {
    let domain = text.trim().trim_matches(['*', '.']);
    let is_host = written_host(domain).is_some_and(|host| host == domain);
    let example = if is_host { domain } else { "shop.test" };
    format!(
        "has `{text}`, which no host can match; write a host such as `{example}`, or `*.{example}` for it and all below it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> HostRule {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_taken_as_people_enter_them() {
        for text in [
            "checkout.stripe.com",
            " Checkout.Stripe.COM. ",
            "www.checkout.stripe.com",
            "https://checkout.stripe.com/",
            "https://checkout.stripe.com/pay/x?y#z",
            "//checkout.stripe.com",
            "checkout.stripe.com/pay",
            "checkout.stripe.com:8080",
            "http://user:secret@checkout.stripe.com:80/",
        ] {
            let rule = rule(text);
            assert!(rule.covers("checkout.stripe.com"), "{text}");
            assert!(!rule.covers("a.checkout.stripe.com") && !rule.covers("stripe.com"), "{text}");
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        }
        assert!(rule("müller.example").covers("xn--mller-kva.example"));
        assert!(rule("XN--MLLER-KVA.example").covers("xn--mller-kva.example"));
        assert!(rule("localhost:3000").covers("localhost"));
        assert!(rule("[::1]:80").covers("[::1]") && rule("127.0.0.1").covers("127.0.0.1"));
        assert!(rule("android-app://com.shop.app/").covers("com.shop.app"));
        assert!(rule("a_b.shop.test").covers("a_b.shop.test"));
    }

    #[test]
    fn a_wildcard_covers_the_domain_and_all_below_it() {
        for text in ["*.shop.test", ".shop.test", "https://*.Shop.test:443/x", "*.shop.test."] {
            let rule = rule(text);
            for host in ["shop.test", "blog.shop.test", "a.b.shop.test"] {
                assert!(rule.covers(host), "{text} {host}");
            }
            for host in ["myshop.test", "shop.test.example", "test", "shop.tes"] {
                assert!(!rule.covers(host), "{text} {host}");
            }
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        }
        assert!(rule("*.bücher.example").covers("a.xn--bcher-kva.example"));
    }

    #[test]
    fn what_no_host_can_match_is_an_error_that_says_what_to_write() {
        for (text, fix) in [
            ("", "shop.test"),
            ("  ", "shop.test"),
            ("*", "shop.test"),
            ("https://", "shop.test"),
            ("/pay", "shop.test"),
            ("shop.*", "`shop`"),
            ("*shop.test", "`*.shop.test`"),
            ("*.*.shop.test", "`*.shop.test`"),
            ("shop test", "shop.test"),
            ("shop.test, pay.test", "shop.test"),
            ("shop.test,pay.test", "shop.test"),
            ("shop..test", "shop.test"),
            ("shop.test:http", "shop.test"),
            ("//", "shop.test"),
            ("[::1", "shop.test"),
        ] {
            let error = text.parse::<HostRule>().unwrap_err().to_string();
            assert!(error.contains(fix) && error.contains(&format!("`{text}`")), "{text}: {error}");
        }
    }
}
