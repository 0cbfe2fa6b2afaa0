//! The hosts of `internal_hosts` and `ignored_referrers`, as people write them: names, URLs and wildcards, in any alphabet.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use url::{Host, Url};

use super::{ConfigError, bare_host};

/// A host, or a domain with all hosts below it (a wildcard).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    /// The host in the form in which hosts are compared: lower case, punycode, without `www.`, port and dot at the end.
    host: String,
    /// For a wildcard: `.` and the domain, with which all hosts below it end.
    subdomain_suffix: Option<String>,
}

impl HostRule {
    /// Returns whether the rule covers a host. The host must be in the form that [`bare_host`] returns.
    pub(crate) fn covers(&self, host: &str) -> bool {
        host == self.host || self.subdomain_suffix.as_deref().is_some_and(|suffix| host.ends_with(suffix))
    }
}

impl FromStr for HostRule {
    type Err = ConfigError;

    /// Reads `shop.test`, `*.shop.test` (the domain and all hosts below it), or a URL, of which only the host counts.
    fn from_str(input: &str) -> Result<Self, ConfigError> {
        let rest = input.trim();
        let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (name, is_wildcard) = match rest.strip_prefix("*.").or_else(|| rest.strip_prefix('.')) {
            Some(domain) => (domain, true),
            None => (rest, false),
        };
        let host = parse_host(name).ok_or_else(|| ConfigError(advice(input)))?;
        Ok(Self { subdomain_suffix: is_wildcard.then(|| format!(".{host}")), host: bare_host(&host) })
    }
}

impl<'de> Deserialize<'de> for HostRule {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        String::deserialize(value)?.parse().map_err(de::Error::custom)
    }
}

/// Formats the rule so that it can be parsed again.
impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subdomain_suffix {
            Some(suffix) => write!(f, "*{suffix}"),
            None => f.write_str(&self.host),
        }
    }
}

/// Returns the host that the input begins with, in the form that URLs have. Returns `None` if no URL can have this host.
fn parse_host(input: &str) -> Option<String> {
    // The URL parser skips slashes before a host, so a path would be read as one. It takes a backslash for a slash.
    if input.starts_with('/') || input.contains(['*', '\\']) || input.contains(char::is_whitespace) {
        return None;
    }
    let url = Url::parse(&format!("http://{input}")).ok()?;
    let host = match url.host()? {
        Host::Domain(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
        ip => return Some(ip.to_string()),
    };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.split('.').all(is_label).then_some(host)
}

/// Returns the rest of an error sentence, which begins with the rule's name. It suggests the host that was probably meant.
fn advice(input: &str) -> String {
    let domain = input.trim().trim_matches(['*', '.']);
    let is_host = parse_host(domain).is_some_and(|host| host == domain);
    let example = if is_host { domain } else { "shop.test" };
    format!(
        "has `{input}`, which no host can match; write a host such as `{example}`, or `*.{example}` for it and all below it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(input: &str) -> HostRule {
        input.parse().unwrap()
    }

    #[test]
    fn hosts_are_read_as_people_write_them() {
        for input in [
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
            let rule = rule(input);
            assert!(rule.covers("checkout.stripe.com"), "{input}");
            assert!(!rule.covers("a.checkout.stripe.com") && !rule.covers("stripe.com"), "{input}");
            assert_eq!(rule.to_string().parse(), Ok(rule), "{input}");
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
        for input in ["*.shop.test", ".shop.test", "https://*.Shop.test:443/x", "*.shop.test."] {
            let rule = rule(input);
            for host in ["shop.test", "blog.shop.test", "a.b.shop.test"] {
                assert!(rule.covers(host), "{input} {host}");
            }
            for host in ["myshop.test", "shop.test.example", "test", "shop.tes"] {
                assert!(!rule.covers(host), "{input} {host}");
            }
            assert_eq!(rule.to_string().parse(), Ok(rule), "{input}");
        }
        assert!(rule("*.bücher.example").covers("a.xn--bcher-kva.example"));
    }

    #[test]
    fn a_rule_that_no_host_can_match_is_an_error_with_advice() {
        for (input, fix) in [
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
            let error = input.parse::<HostRule>().unwrap_err().to_string();
            assert!(error.contains(fix) && error.contains(&format!("`{input}`")), "{input}: {error}");
        }
    }
}
