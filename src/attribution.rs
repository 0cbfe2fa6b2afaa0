//! Where a visit comes from: hosts, external referrers, campaigns and click ids in addresses. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use url::{Url, form_urlencoded};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{DirectThenSource, FirstCampaign, HostRule, ReferrerMatch, SessionConfig, UtmField, bare_host};
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

/// What a referrer is to the page that it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referrer {
    /// It does not parse, or has no host.
    Nothing,
    /// The page's own site, or an internal host.
    Internal,
    /// A payment or login provider.
    Ignored,
    /// A source.
    External,
}

impl Referrer {
    /// What a referrer is to a page.
    pub fn of(referrer: &str, page: Option<&str>, config: &SessionConfig) -> Self {
        // Most visitors come from another page of the same site.
        if plain_host(referrer).is_some_and(|host| page.is_some_and(|page| is_at(page, host))) {
            return Self::Internal;
        }
        let Some(from) = host(referrer) else { return Self::Nothing };
        let is_in = |hosts: &[HostRule]| hosts.iter().any(|host| host.covers(&from));
        if is_in(&config.internal_hosts) || page.is_some_and(|page| is_same(referrer, page, config)) {
            Self::Internal
        } else if is_in(&config.ignored_referrers) {
            Self::Ignored
        } else {
            Self::External
        }
    }
}

/// Whether a referrer is external: it parses, and is not the page's own host, an internal one or an ignored one.
pub fn is_external(referrer: &str, page: Option<&str>, config: &SessionConfig) -> bool {
    Referrer::of(referrer, page, config) == Referrer::External
}

/// Whether two addresses are of the same host, or of the same site where that is what counts.
fn is_same(one: &str, other: &str, config: &SessionConfig) -> bool {
    match config.referrer_match {
        ReferrerMatch::Host => host(one) == host(other),
        ReferrerMatch::Site => site(one) == site(other),
    }
}

/// The registrable domain of an address (`shop.co.uk` of `https://m.shop.co.uk/`), by the public suffix list. The host itself
/// where there is none: an IP address, a name of one label, a public suffix, an app.
fn site(address: &str) -> Option<Cow<'_, str>> {
    let host = host(address)?;
    let is_web = address.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
    let is_ip = host.starts_with('[')
        || host.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()));
    if !is_web || is_ip {
        return Some(host);
    }
    Some(match host {
        Cow::Borrowed(host) => Cow::Borrowed(psl::domain_str(host).unwrap_or(host)),
        Cow::Owned(host) => Cow::Owned(psl::domain_str(&host).map(str::to_owned).unwrap_or(host)),
    })
}

/// The lists of parameters in an address, in the order in which they count: its query, then what pages put behind a `#`
/// (`#utm_source=…`, `#/route?utm_source=…`). Works on relative addresses too.
fn parameter_lists(address: &str) -> impl Iterator<Item = &str> {
    let mark = memchr::memchr2(b'?', b'#', address.as_bytes()).unwrap_or(address.len());
    let (query, fragment) = match address[mark..].strip_prefix('?') {
        Some(rest) => rest.split_once('#').unwrap_or((rest, "")),
        None => ("", address.get(mark + 1..).unwrap_or_default()),
    };
    let in_fragment = |part| [str::split_once(part, '?').map_or("", |(_, query)| query), part];
    let lists = std::iter::once(query).chain(fragment.split('#').flat_map(in_fragment));
    lists.filter(|list| !list.is_empty())
}

/// The campaign that an address names, in its query or else behind a `#`; of a repeated parameter the first. Names count in
/// any case.
pub fn utm_of(address: &str) -> Option<UtmParams> {
    parameter_lists(address).find_map(utm_in)
}

fn utm_in(list: &str) -> Option<UtmParams> {
    // Most have none: one search spares them the decoding.
    let bytes = list.as_bytes();
    let is_name = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|rest| rest.eq_ignore_ascii_case(b"tm"));
    if !memchr::memchr2_iter(b'u', b'U', bytes).any(is_name) {
        return None;
    }
    let mut fields = [const { None }; UTM_NAMES.len()];
    for (key, value) in form_urlencoded::parse(bytes) {
        if let Some(at) = UTM_NAMES.iter().position(|name| name.eq_ignore_ascii_case(&key)) {
            fields[at].get_or_insert_with(|| value.into_owned());
        }
    }
    UtmParams::of_fields(fields)
}

/// A click id as the rules compare it.
pub fn click_hash(name: &str, value: &str) -> u64 {
    xxh3_64(format!("{name}={value}").as_bytes())
}

/// The first click id that an address names, in its query or else behind a `#`.
pub fn click_of(address: &str) -> Option<u64> {
    parameter_lists(address).find_map(click_in)
}

fn click_in(list: &str) -> Option<u64> {
    CLICK_IDS.iter().find_map(|name| {
        let mut parameters = form_urlencoded::parse(list.as_bytes());
        let found = parameters.find(|(key, value)| name.eq_ignore_ascii_case(key) && !value.is_empty());
        found.map(|(_, value)| click_hash(name, &value))
    })
}

/// Where a session came from, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The external referrer, as it came.
    pub referrer: Option<Arc<str>>,
    /// The campaign.
    pub utm: Option<Arc<UtmParams>>,
    /// A hash of the click id.
    pub click: Option<u64>,
}

impl Attribution {
    /// The same by reference, as the rules compare it.
    pub fn source(&self) -> Source<'_> {
        Source { referrer: self.referrer.as_ref(), utm: self.utm.as_ref(), click: self.click }
    }
}

impl From<Source<'_>> for Attribution {
    fn from(source: Source<'_>) -> Self {
        Self { referrer: source.referrer.cloned(), utm: source.utm.cloned(), click: source.click }
    }
}

/// The source of a session or an event, by reference.
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
    /// The source that an event names.
    pub fn of(context: &'a SessionContext, click: Option<u64>) -> Self {
        Self { referrer: context.referrer.as_ref(), utm: context.utm.as_ref(), click }
    }

    /// Whether there is neither a campaign nor an external referrer nor a click id.
    pub fn is_none(&self) -> bool {
        self.referrer.is_none() && self.utm.is_none() && self.click.is_none()
    }

    /// How the source of an event differs, for the rules, from this source of the session before it.
    pub fn change(&self, event: &Source<'_>, config: &SessionConfig) -> Option<SourceChange> {
        let first_source_splits = config.direct_then_source == DirectThenSource::Split && self.is_none();
        let utm = match (self.utm, event.utm) {
            (Some(one), Some(other)) => {
                config.utm_fields.iter().any(|field| is_other(field.of(one), field.of(other), config.utm_ignore_case))
            }
            (None, Some(_)) if self.referrer.is_some() => config.first_campaign == FirstCampaign::Split,
            (None, Some(_)) => first_source_splits,
            _ => false,
        };
        let referrer = || match (self.referrer, event.referrer) {
            // Both are external, so both have a host; the same text needs no parsing.
            (Some(one), Some(other)) => one != other && !is_same(one, other, config),
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

/// Whether two values of a campaign's field differ.
fn is_other(one: Option<&str>, other: Option<&str>, ignore_case: bool) -> bool {
    match (one, other) {
        (Some(one), Some(other)) if ignore_case => {
            one != other && !one.chars().flat_map(char::to_lowercase).eq(other.chars().flat_map(char::to_lowercase))
        }
        _ => one != other,
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
        for address in [
            "https://shop.test/?UTM_Source=news",
            "/x?a=b&Utm_SOURCE=news&utm_source=other",
            "https://shop.test/?utm%5Fsource=news",
            "https://shop.test/#utm_source=news",
            "https://shop.test/?#utm_source=news",
            "https://shop.test/#?utm_source=news",
            "https://shop.test/#/landing?utm_source=news",
            "https://shop.test/#!/landing?a=b&utm_source=news",
            "https://shop.test/?page=2#section&UTM_SOURCE=news",
            "https://shop.test/?utm_term=shoes#utm_source=news",
            "https://shop.test/#/landing#utm_source=news",
            "#utm_source=news",
        ] {
            let utm = utm_of(address).unwrap_or_else(|| panic!("{address}"));
            assert_eq!(utm.source.as_deref(), Some("news"), "{address}");
        }
        assert_eq!(utm_of("#utm_source=what?").unwrap().source.as_deref(), Some("what?"));
        for address in ["", "#", "?", "#?", "/utm_source=no", "https://utm_source.test/#top", "/?x=utm_source=no#y"] {
            assert_eq!(utm_of(address), None, "{address}");
        }
    }

    #[test]
    fn click_ids_of_addresses() {
        let click = click_hash("gclid", "1");
        for address in ["/?fbclid=2&gclid=1", "/?GCLID=1", "/?gclid=#gclid=1", "/#/x?gclid=1", "/#gclid=1"] {
            assert_eq!(click_of(address), Some(click), "{address}");
        }
        assert_eq!(click_of("/gclid=1"), None);
    }

    #[test]
    fn sites() {
        for (address, wanted) in [
            ("https://m.shop.co.uk/x", "shop.co.uk"),
            ("https://WWW.blog.shop.test:80/", "shop.test"),
            ("HTTPS://l.instagram.com/", "instagram.com"),
            ("https://one.github.io/", "one.github.io"),
            ("https://github.io/", "github.io"),
            ("https://a.b.xn--bcher-kva.example/", "xn--bcher-kva.example"),
            ("https://a.bücher.example./", "xn--bcher-kva.example"),
            ("http://localhost:3000/", "localhost"),
            ("http://10.1.2.3/", "10.1.2.3"),
            ("http://[::1]:80/", "[::1]"),
            ("android-app://com.google.android.gm", "com.google.android.gm"),
        ] {
            assert_eq!(site(address).as_deref(), Some(wanted), "{address}");
        }
        assert_eq!(site("news.example"), None);
    }

    #[test]
    fn case_of_values() {
        let differ = |one, other, ignore_case| is_other(Some(one), Some(other), ignore_case);
        assert!(differ("LinkedIn", "linkedin", false) && !differ("LinkedIn", "linkedin", true));
        assert!(!differ("ÄRZTE", "ärzte", true) && differ("a", "b", true) && differ("a", "ab", true));
        assert!(is_other(None, Some("a"), true) && !is_other(None, None, true));
    }

    #[test]
    fn own_internal_and_ignored_hosts_are_not_external() {
        let config = SessionConfig {
            internal_hosts: vec!["example.com".parse().unwrap()],
            ignored_referrers: vec!["*.pay.test".parse().unwrap()],
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
        assert_eq!(Referrer::of("https://a.pay.test/", page, &config), Referrer::Ignored);
        assert_eq!(Referrer::of("https://example.com/", page, &config), Referrer::Internal);
        assert_eq!(Referrer::of("nonsense", page, &config), Referrer::Nothing);
        let by_site = SessionConfig { referrer_match: ReferrerMatch::Site, ..config };
        for (referrer, kind) in [
            ("https://sub.shop.test/", Referrer::Internal),
            // Lists name hosts, whatever counts as the same source.
            ("https://a.example.com/", Referrer::External),
            ("https://a.pay.test/", Referrer::Ignored),
        ] {
            assert_eq!(Referrer::of(referrer, page, &by_site), kind, "{referrer}");
        }
    }
}
