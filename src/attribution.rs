//! Where a visit comes from: hosts, external referrers, and the campaigns and click ids in URLs. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use url::{Url, form_urlencoded};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{DirectThenSource, FirstCampaign, HostRule, ReferrerMatch, SessionConfig, UtmField, bare_host};
use crate::session::{SessionContext, UTM_NAMES, UtmParams};

/// Parameters in which advertisers add click ids to URLs, in the order in which they are looked for.
pub(crate) const CLICK_IDS: [&str; 10] =
    ["gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "ttclid", "twclid", "li_fat_id", "yclid"];

/// Returns the host of a URL, in lower case and without `www.`. Returns `None` if the URL is not valid or has no host.
pub fn host(url: &str) -> Option<Cow<'_, str>> {
    if let Some(host) = plain_host(url) {
        return Some(Cow::Borrowed(host.strip_prefix("www.").unwrap_or(host)));
    }
    let parsed = Url::parse(url).ok()?;
    parsed.host_str().filter(|host| !host.is_empty()).map(|host| Cow::Owned(bare_host(host)))
}

/// The fast path of [`host`]: returns the host of a URL in the most common form. Parsing the URL in full takes fifty times as
/// long.
///
/// Returns `None` for any other form. That does not mean that the URL is invalid.
fn plain_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (mut before, mut label) = (b'.', b'.');
    let mut end = rest.len();
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'/' | b'?' | b'#' => {
                end = at;
                break;
            }
            // Two hyphens in a row may mean an internationalized name (`xn--…`).
            b'-' | b'.' if before != byte => {}
            _ => return None,
        }
        if before == b'.' {
            label = byte;
        }
        before = byte;
    }
    // A host whose last label begins with a digit may be an IPv4 address.
    (label.is_ascii_lowercase() && before != b'.').then_some(&rest[..end])
}

/// Returns whether a URL begins with this host, which [`plain_host`] returned. It does not parse the URL, so `false` does not
/// mean that the host differs.
fn is_at_host(url: &str, host: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.and_then(|rest| rest.strip_prefix(host))
        .is_some_and(|path| path.is_empty() || path.starts_with(['/', '?', '#']))
}

/// How a referrer counts on the page that it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referrer {
    /// It is not a valid URL, or has no host. It counts as no referrer.
    Nothing,
    /// It is the page's own site, or one of `internal_hosts`.
    Internal,
    /// It is one of `ignored_referrers`, such as a payment or login provider.
    Ignored,
    /// It is an external source.
    External,
}

impl Referrer {
    /// Returns how `referrer` counts on a page with the URL `page`.
    pub fn of(referrer: &str, page: Option<&str>, config: &SessionConfig) -> Self {
        // Fast path: most referrers are another page of the same site.
        if plain_host(referrer).is_some_and(|host| page.is_some_and(|page| is_at_host(page, host))) {
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

/// Returns whether a referrer is external: it is valid, and neither the page's own site nor an internal or ignored host.
pub fn is_external(referrer: &str, page: Option<&str>, config: &SessionConfig) -> bool {
    Referrer::of(referrer, page, config) == Referrer::External
}

/// Returns whether two URLs have the same host, or the same site if `referrer_match` is `site`.
fn is_same(one: &str, other: &str, config: &SessionConfig) -> bool {
    match config.referrer_match {
        ReferrerMatch::Host => host(one) == host(other),
        ReferrerMatch::Site => site(one) == site(other),
    }
}

/// Returns the registrable domain of a URL by the public suffix list: `shop.co.uk` for `https://m.shop.co.uk/`.
///
/// Returns the host if it has no registrable domain: an IP address, a name of one label, a public suffix, or an app.
fn site(url: &str) -> Option<Cow<'_, str>> {
    let host = host(url)?;
    let is_web = url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
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

/// Returns the parameter lists of a URL, in the order in which they are searched: the query, then the fragment
/// (`#utm_source=…`, `#/route?utm_source=…`). The URL may be relative.
fn parameter_lists(url: &str) -> impl Iterator<Item = &str> {
    let delimiter = memchr::memchr2(b'?', b'#', url.as_bytes()).unwrap_or(url.len());
    let (query, fragment) = match url[delimiter..].strip_prefix('?') {
        Some(rest) => rest.split_once('#').unwrap_or((rest, "")),
        None => ("", url.get(delimiter + 1..).unwrap_or_default()),
    };
    let in_fragment = |fragment| [str::split_once(fragment, '?').map_or("", |(_, query)| query), fragment];
    let lists = std::iter::once(query).chain(fragment.split('#').flat_map(in_fragment));
    lists.filter(|list| !list.is_empty())
}

/// Returns the campaign in a URL: from its query, or else from its fragment. Parameter names are compared without case. If a
/// parameter occurs twice, the first one counts.
pub fn utm_of(url: &str) -> Option<UtmParams> {
    parameter_lists(url).find_map(utm_in)
}

fn utm_in(list: &str) -> Option<UtmParams> {
    // Fast path: most lists have no `utm_` parameter and need not be decoded.
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

/// Returns the hash of a click id. The rules compare only hashes. `name` is the parameter, such as `gclid`.
pub fn click_hash(name: &str, value: &str) -> u64 {
    xxh3_64(format!("{name}={value}").as_bytes())
}

/// Returns the hash of the first click id in a URL: from its query, or else from its fragment.
pub fn click_of(url: &str) -> Option<u64> {
    parameter_lists(url).find_map(click_in)
}

fn click_in(list: &str) -> Option<u64> {
    CLICK_IDS.iter().find_map(|name| {
        let mut parameters = form_urlencoded::parse(list.as_bytes());
        let found = parameters.find(|(key, value)| name.eq_ignore_ascii_case(key) && !value.is_empty());
        found.map(|(_, value)| click_hash(name, &value))
    })
}

/// The source of a session, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The external referrer's URL, as the event has it.
    pub referrer: Option<Arc<str>>,
    /// The campaign.
    pub utm: Option<Arc<UtmParams>>,
    /// The hash of the click id ([`click_hash`]).
    pub click: Option<u64>,
}

impl Attribution {
    /// Returns the source by reference, as the rules compare it.
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
    /// The external referrer's URL, as the event has it.
    pub referrer: Option<&'a Arc<str>>,
    /// The campaign.
    pub utm: Option<&'a Arc<UtmParams>>,
    /// The hash of the click id ([`click_hash`]).
    pub click: Option<u64>,
}

/// The first part of a source that differs, in the order in which the rules compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceChange {
    /// The campaign.
    Utm,
    /// The external referrer.
    Referrer,
    /// The click id.
    Click,
}

impl<'a> Source<'a> {
    /// Returns the source that an event's context and click id name.
    pub fn of(context: &'a SessionContext, click: Option<u64>) -> Self {
        Self { referrer: context.referrer.as_ref(), utm: context.utm.as_ref(), click }
    }

    /// Returns whether there is no campaign, no external referrer and no click id.
    pub fn is_none(&self) -> bool {
        self.referrer.is_none() && self.utm.is_none() && self.click.is_none()
    }

    /// Compares this source of a session with that of its next event. Returns what differs, if the rules begin a session because
    /// of it.
    pub fn change(&self, event: &Source<'_>, config: &SessionConfig) -> Option<SourceChange> {
        if config.new_session_on_utm_change && self.has_other_utm(event, config) {
            Some(SourceChange::Utm)
        } else if config.new_session_on_referrer_change && self.has_other_referrer(event, config) {
            Some(SourceChange::Referrer)
        } else if config.new_session_on_click_id_change && self.has_other_click(event, config) {
            Some(SourceChange::Click)
        } else {
            None
        }
    }

    /// Returns whether a campaign of the next event would begin a session, if the rule for campaigns is on.
    pub(crate) fn has_other_utm(&self, event: &Source<'_>, config: &SessionConfig) -> bool {
        match (self.utm, event.utm) {
            (Some(one), Some(other)) => {
                config.utm_fields.iter().any(|field| differs(field.of(one), field.of(other), config.utm_ignore_case))
            }
            (None, Some(_)) if self.referrer.is_some() => config.first_campaign == FirstCampaign::Split,
            (None, Some(_)) => self.is_split_by_first(config),
            _ => false,
        }
    }

    /// Returns whether a referrer of the next event would begin a session, if the rule for referrers is on.
    pub(crate) fn has_other_referrer(&self, event: &Source<'_>, config: &SessionConfig) -> bool {
        match (self.referrer, event.referrer) {
            // Both are external, so both have a host. Equal URLs need no parsing.
            (Some(one), Some(other)) => one != other && !is_same(one, other, config),
            (None, Some(_)) => self.is_split_by_first(config),
            _ => false,
        }
    }

    /// Returns whether a click id of the next event would begin a session, if the rule for click ids is on.
    pub(crate) fn has_other_click(&self, event: &Source<'_>, config: &SessionConfig) -> bool {
        match (self.click, event.click) {
            (Some(one), Some(other)) => one != other,
            (None, Some(_)) => self.is_split_by_first(config),
            _ => false,
        }
    }

    /// Returns whether this is no source, and the first source begins another session.
    fn is_split_by_first(&self, config: &SessionConfig) -> bool {
        config.direct_then_source == DirectThenSource::Split && self.is_none()
    }
}

/// Returns whether two values of a campaign's field differ.
fn differs(one: Option<&str>, other: Option<&str>, ignore_case: bool) -> bool {
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
mod tests;
