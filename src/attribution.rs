//! Where a visit comes from: hosts, external referrers, campaigns and click ids in addresses. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use url::{Url, form_urlencoded};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{DirectThenSource, SessionConfig, UtmField, bare_host};
use crate::session::{SessionContext, UTM_NAMES, UtmParams};

/// Click ids that advertisers add to addresses, in the order in which they are looked for.
pub(crate) const CLICK_IDS: [&str; 10] =
    ["gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "ttclid", "twclid", "li_fat_id", "yclid"];

/// The host of an address, in lower case and without `www.`; none for what does not parse or has no host.
pub fn host(address: &str) -> Option<Cow<'_, str>> {
    if let Some(host) = plain_host(address) {
        return Some(Cow::Borrowed(host.strip_prefix("www.").unwrap_or(host)));
    }
    let url = Url::parse(address).ok()?;
    url.host_str().filter(|host| !host.is_empty()).map(|host| Cow::Owned(bare_host(host)))
}

/// The host where it stands in the address as it is, as nearly always: a full parse costs fifty times as much.
fn plain_host(address: &str) -> Option<&str> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"))?;
    let (mut before, mut label) = (b'.', b'.');
    let mut end = rest.len();
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'/' | b'?' | b'#' => {
                end = at;
                break;
            }
            // Two hyphens may mean another alphabet.
            b'-' | b'.' if before != byte => {}
            _ => return None,
        }
        if before == b'.' {
            label = byte;
        }
        before = byte;
    }
    // A name whose last label begins with a digit may be an IPv4 address.
    (label.is_ascii_lowercase() && before != b'.').then_some(&rest[..end])
}

/// Whether an address is one at this plain host, as far as that can be seen without parsing it.
fn is_at(address: &str, host: &str) -> bool {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    rest.and_then(|rest| rest.strip_prefix(host))
        .is_some_and(|path| path.is_empty() || path.starts_with(['/', '?', '#']))
}

/// Whether a referrer is external: it parses, and is not the page's own host, an internal one or an ignored one.
pub fn is_external(referrer: &str, page: Option<&str>, config: &SessionConfig) -> bool {
    // Most visitors come from another page of the same site.
    if plain_host(referrer).is_some_and(|host| page.is_some_and(|page| is_at(page, host))) {
        return false;
    }
    let Some(from) = host(referrer) else { return false };
    let known = |hosts: &[String]| hosts.iter().any(|host| *host == from);
    !known(&config.internal_hosts)
        && !known(&config.ignored_referrers)
        && page.and_then(host).is_none_or(|own| own != from)
}

/// The parameters of an address's query, decoded. Works on relative addresses too.
pub fn query(address: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(raw_query(address).as_bytes())
}

/// What stands between `?` and `#`.
fn raw_query(address: &str) -> &str {
    let Some(mark) = memchr::memchr2(b'?', b'#', address.as_bytes()) else { return "" };
    let rest = &address[mark..];
    rest.strip_prefix('?').map_or("", |query| query.split('#').next().unwrap_or_default())
}

/// The campaign that an address's query names; of a repeated parameter the first.
pub fn utm_of(address: &str) -> Option<UtmParams> {
    // Most addresses have none: one search spares them the decoding.
    if !raw_query(address).contains("utm_") {
        return None;
    }
    let mut fields = [const { None }; UTM_NAMES.len()];
    for (key, value) in query(address) {
        if let Some(at) = UTM_NAMES.iter().position(|name| *name == key) {
            fields[at].get_or_insert_with(|| value.into_owned());
        }
    }
    UtmParams::of_fields(fields)
}

/// A click id as the rules compare it.
pub fn click_hash(name: &str, value: &str) -> u64 {
    xxh3_64(format!("{name}={value}").as_bytes())
}

/// The first click id in an address's query.
pub fn click_of(address: &str) -> Option<u64> {
    CLICK_IDS.iter().find_map(|name| {
        query(address).find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| click_hash(name, &value))
    })
}

/// The source of a session or an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Source<'a> {
    /// An external referrer, as it came.
    pub referrer: Option<&'a Arc<str>>,
    pub utm: Option<&'a Arc<UtmParams>>,
    pub click: Option<u64>,
}

/// Which part of a source differs, in the order in which the rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceChange {
    Utm,
    Referrer,
    Click,
}

impl<'a> Source<'a> {
    pub fn new(referrer: Option<&'a Arc<str>>, utm: Option<&'a Arc<UtmParams>>, click: Option<u64>) -> Self {
        Self { referrer, utm, click }
    }

    /// The source that an event says.
    pub fn of(context: &'a SessionContext, click: Option<u64>) -> Self {
        Self::new(context.referrer.as_ref(), context.utm.as_ref(), click)
    }

    /// Whether there is neither a campaign nor an external referrer nor a click id.
    pub fn is_none(&self) -> bool {
        self.referrer.is_none() && self.utm.is_none() && self.click.is_none()
    }

    /// How the source of an event differs, for the rules, from this source of the session before it.
    pub fn change(&self, event: &Source<'_>, config: &SessionConfig) -> Option<SourceChange> {
        let first_source_splits = config.direct_then_source == DirectThenSource::Split && self.is_none();
        let utm = match (self.utm, event.utm) {
            (Some(one), Some(other)) => config.utm_fields.iter().any(|field| field.of(one) != field.of(other)),
            (None, Some(_)) => first_source_splits,
            _ => false,
        };
        let referrer = || match (self.referrer, event.referrer) {
            // Both are external, so both have a host; the same text needs no parsing.
            (Some(one), Some(other)) => one != other && host(one) != host(other),
            (None, Some(_)) => first_source_splits,
            _ => false,
        };
        let click = || match (self.click, event.click) {
            (Some(one), Some(other)) => one != other,
            (None, Some(_)) => first_source_splits,
            _ => false,
        };
        if config.new_session_on_utm_change && utm {
            Some(SourceChange::Utm)
        } else if config.new_session_on_referrer_change && referrer() {
            Some(SourceChange::Referrer)
        } else if config.new_session_on_click_id_change && click() {
            Some(SourceChange::Click)
        } else {
            None
        }
    }
}

impl UtmField {
    fn of(self, utm: &UtmParams) -> Option<&str> {
        match self {
            Self::Source => utm.source.as_deref(),
            Self::Medium => utm.medium.as_deref(),
            Self::Campaign => utm.campaign.as_deref(),
            Self::Term => utm.term.as_deref(),
            Self::Content => utm.content.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(host("https://WWW.Example.com:8080/a?b").as_deref(), Some("example.com"));
        assert_eq!(host("not a url"), None);
        assert_eq!(host("about:blank"), None);
        assert_eq!(host("$direct"), None);
    }

    proptest::proptest! {
        /// The shortcut and the full parse agree.
        #[test]
        fn plain_hosts(host in "(www[.])?([a-z0-9-]{0,4}[.]?|xn--|0x|é|A|%41|@|:|[.]){1,4}", rest in "([/?#:\\\\ \n].{0,9})?") {
            let address = format!("https://{host}{rest}");
            if let Some(plain) = plain_host(&address) {
                let url = Url::parse(&address).unwrap();
                proptest::prop_assert_eq!(url.host_str(), Some(plain));
            }
        }
    }

    #[test]
    fn campaigns_of_addresses() {
        let utm = utm_of("/x?utm_campaign=ga+campaign&utm_campaign=other#utm_source=no").unwrap();
        assert_eq!(utm.campaign.as_deref(), Some("ga campaign"));
        assert_eq!(utm.source, None);
        assert_eq!(utm_of("https://shop.test/?utm_source="), None);
    }

    #[test]
    fn own_internal_and_ignored_hosts_are_not_external() {
        let config = SessionConfig {
            internal_hosts: vec!["example.com".into()],
            ignored_referrers: vec!["pay.test".into()],
            ..SessionConfig::default()
        };
        let page = Some("https://shop.test/");
        for inside in ["https://www.shop.test/x", "https://www.example.com/", "https://pay.test/done", "nonsense"] {
            assert!(!is_external(inside, page, &config), "{inside}");
        }
        for outside in
            ["https://sub.shop.test/", "https://shop.tes/", "https://shop.test.example/", "https://shop.test:9/"]
        {
            let is_outside = !outside.contains(":9");
            assert_eq!(is_external(outside, page, &config), is_outside, "{outside}");
        }
    }
}
