//! The oracle: the definition of sessionization in `docs/sessions.md` as slow and obvious code. It sorts a visitor's events by
//! time, then uuid, and folds them once by the rules. It calls no logic of the crate. It uses only the crate's types for options
//! and campaigns, as carriers of values.

mod tests;

use chrono::Datelike;
use session_tracking::config::{
    Boundary, DirectThenSource, FirstCampaign, HostRule, InternalCampaigns, ReferrerMatch, SessionConfig, UtmField,
};
use session_tracking::session::{Millis, UtmParams};

/// The fields of an event that the oracle reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct OracleEvent<'a> {
    pub visitor: &'a str,
    pub uuid: &'a str,
    pub at: Millis,
    /// `$pageview` and `$screen` are page views.
    pub name: &'a str,
    pub url: Option<&'a str>,
    /// As it was sent, whether it is external or not.
    pub referrer: Option<&'a str>,
    /// The `utm_…` properties: source, medium, campaign, term, content.
    pub utm: [Option<&'a str>; 5],
}

/// A session, with the fields of the data files.
#[derive(Debug, Clone, PartialEq)]
pub struct OracleSession<'a> {
    pub visitor: &'a str,
    pub reason: &'static str,
    pub started_at: Millis,
    pub last_activity: Millis,
    pub event_count: u32,
    pub page_views: u32,
    pub entry_url: Option<&'a str>,
    pub landing_page: Option<&'a str>,
    pub exit_page: Option<&'a str>,
    pub referrer: Option<&'a str>,
    pub utm: Option<UtmParams>,
    /// The click id, if that rule is on.
    click_id: Option<String>,
    /// The events' uuids, in order.
    pub events: Vec<&'a str>,
}

/// Returns the final sessions, sorted by visitor and start.
pub fn sessions<'a>(events: &[OracleEvent<'a>], rules: &SessionConfig) -> Vec<OracleSession<'a>> {
    sessions_with_ends(events, &[], rules)
}

/// Like [`sessions`], with requests that ended sessions: each of `ends` is a visitor and the time of the request. Events of
/// exactly that time still belong to the session that was ended.
pub fn sessions_with_ends<'a>(
    events: &[OracleEvent<'a>],
    ends: &[(&str, Millis)],
    rules: &SessionConfig,
) -> Vec<OracleSession<'a>> {
    let is_passive = |event: &&OracleEvent| rules.passive_events.iter().any(|name| name == event.name);
    let mut sorted: Vec<&OracleEvent> = events.iter().filter(|event| !is_passive(event)).collect();
    sorted.sort_by_key(|event| (event.visitor, event.at, event.uuid));
    let mut sessions: Vec<OracleSession> = Vec::new();
    for event in sorted {
        let source = Source::of(event, rules);
        let before = sessions.last_mut().filter(|session| session.visitor == event.visitor);
        if rules.keep_alive_events.iter().any(|name| name == event.name) {
            if let Some(session) = before
                && time_reason(session, event, ends, rules).is_none()
            {
                session.last_activity = event.at;
            }
            continue;
        }
        let reason = match &before {
            None => Some("first"),
            Some(session) => reason(session, event, &source, ends, rules),
        };
        match (before, reason) {
            (Some(session), None) => session.add(event, source, rules),
            (_, reason) => sessions.push(OracleSession::begin(event, source, reason.unwrap_or("first"))),
        }
    }
    sessions
}

/// Returns why an event begins a new session after `session`: the first reason that holds.
fn reason(
    session: &OracleSession,
    event: &OracleEvent,
    source: &Source,
    ends: &[(&str, Millis)],
    rules: &SessionConfig,
) -> Option<&'static str> {
    time_reason(session, event, ends, rules).or_else(|| source_reason(session, source, rules))
}

/// Returns the first reason that holds and does not depend on the event's source.
fn time_reason(
    session: &OracleSession,
    event: &OracleEvent,
    ends: &[(&str, Millis)],
    rules: &SessionConfig,
) -> Option<&'static str> {
    let gap = event.at - session.last_activity;
    let timeout = rules.timeout.num_milliseconds();
    let is_timeout = if rules.boundary == Boundary::Inclusive { gap > timeout } else { gap >= timeout };
    let is_ended =
        ends.iter().any(|(visitor, end)| *visitor == event.visitor && session.last_activity <= *end && *end < event.at);
    if is_ended {
        Some("explicit")
    } else if is_timeout {
        Some("timeout")
    } else if event.at - session.started_at > rules.max_duration.num_milliseconds() {
        Some("max_duration")
    } else if day(event.at, rules) != day(session.last_activity, rules) {
        Some("midnight")
    } else if rules.max_events.is_some_and(|max| session.event_count >= max) {
        Some("max_events")
    } else {
        None
    }
}

fn source_reason(session: &OracleSession, source: &Source, rules: &SessionConfig) -> Option<&'static str> {
    let first_source = session.has_no_source() && rules.direct_then_source == DirectThenSource::Split;
    let utm = match (&session.utm, &source.utm) {
        (Some(one), Some(other)) => rules.utm_fields.iter().any(|&field| {
            let compared = |utm| {
                value(utm, field).as_ref().map(|value: &String| match rules.utm_ignore_case {
                    true => value.to_lowercase(),
                    false => value.clone(),
                })
            };
            compared(one) != compared(other)
        }),
        (None, Some(_)) if session.referrer.is_some() => rules.first_campaign == FirstCampaign::Split,
        (None, Some(_)) => first_source,
        _ => false,
    };
    let referrer = match (session.referrer, source.referrer) {
        (Some(one), Some(other)) => compared_host(one, rules) != compared_host(other, rules),
        (None, Some(_)) => first_source,
        _ => false,
    };
    let click_id = match (&session.click_id, &source.click_id) {
        (Some(one), Some(other)) => one != other,
        (None, Some(_)) => first_source,
        _ => false,
    };
    if rules.new_session_on_utm_change && utm {
        Some("utm_change")
    } else if rules.new_session_on_referrer_change && referrer {
        Some("referrer_change")
    } else if rules.new_session_on_click_id_change && click_id {
        Some("click_id_change")
    } else {
        None
    }
}

/// Returns the local day, or `None` if the `midnight` rule is off.
fn day(at: Millis, rules: &SessionConfig) -> Option<(i32, u32)> {
    let local = chrono::DateTime::from_timestamp_millis(at)?.with_timezone(&rules.midnight?);
    Some((local.year(), local.ordinal()))
}

fn value(utm: &UtmParams, field: UtmField) -> &Option<String> {
    match field {
        UtmField::Source => &utm.source,
        UtmField::Medium => &utm.medium,
        UtmField::Campaign => &utm.campaign,
        UtmField::Term => &utm.term,
        UtmField::Content => &utm.content,
    }
}

impl<'a> OracleSession<'a> {
    fn begin(event: &OracleEvent<'a>, source: Source<'a>, reason: &'static str) -> Self {
        let page = event.url.filter(|_| event.is_page_view());
        Self {
            visitor: event.visitor,
            reason,
            started_at: event.at,
            last_activity: event.at,
            event_count: 1,
            page_views: u32::from(event.is_page_view()),
            entry_url: event.url,
            landing_page: page,
            exit_page: page,
            referrer: source.referrer,
            utm: source.utm,
            click_id: source.click_id,
            events: vec![event.uuid],
        }
    }

    fn add(&mut self, event: &OracleEvent<'a>, source: Source<'a>, rules: &SessionConfig) {
        let page = event.url.filter(|_| event.is_page_view());
        self.last_activity = event.at;
        self.event_count += 1;
        self.page_views += u32::from(event.is_page_view());
        self.entry_url = self.entry_url.or(event.url);
        self.landing_page = self.landing_page.or(page);
        self.exit_page = page.or(self.exit_page);
        self.events.push(event.uuid);
        if rules.direct_then_source == DirectThenSource::Upgrade && self.has_no_source() {
            (self.referrer, self.utm, self.click_id) = (source.referrer, source.utm, source.click_id);
        }
    }

    fn has_no_source(&self) -> bool {
        self.referrer.is_none() && self.utm.is_none() && self.click_id.is_none()
    }
}

impl OracleEvent<'_> {
    fn is_page_view(&self) -> bool {
        self.name == "$pageview" || self.name == "$screen"
    }
}

/// An event's traffic source.
struct Source<'a> {
    referrer: Option<&'a str>,
    utm: Option<UtmParams>,
    click_id: Option<String>,
}

impl<'a> Source<'a> {
    fn of(event: &OracleEvent<'a>, rules: &SessionConfig) -> Self {
        let is_own =
            |referrer: &str| event.url.is_some_and(|url| compared_host(url, rules) == compared_host(referrer, rules));
        let is_internal = |referrer: &str| is_listed(referrer, &rules.internal_hosts) || is_own(referrer);
        let is_external = |referrer: &&str| {
            host(referrer).is_some() && !is_internal(referrer) && !is_listed(referrer, &rules.ignored_referrers)
        };
        let is_internal_campaign = rules.internal_campaigns == InternalCampaigns::Ignore
            && event.referrer.is_some_and(|referrer| host(referrer).is_some() && is_internal(referrer));
        let [source, medium, campaign, term, content] = event.utm.map(|value| value.map(str::to_owned));
        let explicit = UtmParams { source, medium, campaign, term, content };
        let lists = event.url.map(parameter_lists).unwrap_or_default();
        let from_url = |list: &&str| {
            named_campaign(UtmParams {
                source: parameter(list, "utm_source"),
                medium: parameter(list, "utm_medium"),
                campaign: parameter(list, "utm_campaign"),
                term: parameter(list, "utm_term"),
                content: parameter(list, "utm_content"),
            })
        };
        let click_id = |list: &&str| parameter(list, "gclid").or_else(|| parameter(list, "fbclid"));
        let utm = named_campaign(explicit).or_else(|| lists.iter().find_map(from_url));
        Self {
            referrer: event.referrer.filter(is_external),
            utm: utm.filter(|_| !is_internal_campaign),
            click_id: if rules.new_session_on_click_id_change { lists.iter().find_map(click_id) } else { None },
        }
    }
}

/// Returns the campaign, or `None` if it has no source, no medium and no campaign name.
fn named_campaign(utm: UtmParams) -> Option<UtmParams> {
    (utm.source.is_some() || utm.medium.is_some() || utm.campaign.is_some()).then_some(utm)
}

/// Returns the parameter lists of a URL: its query, then for each part after a `#` what follows its `?`, and the whole part.
/// For example `/?a=1#/page?b=2` has the lists `a=1`, `b=2` and `/page?b=2`.
fn parameter_lists(url: &str) -> Vec<&str> {
    let mut parts = url.split('#');
    let mut lists: Vec<&str> =
        parts.next().and_then(|page| page.split_once('?')).map(|(_, query)| query).into_iter().collect();
    for part in parts {
        lists.extend(part.split_once('?').map(|(_, query)| query));
        lists.push(part);
    }
    lists
}

/// Returns the value of a parameter. Its name is compared without case. An empty value counts as none.
fn parameter(list: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(list.as_bytes());
    let found = pairs.find(|(key, _)| key.to_lowercase() == name).map(|(_, value)| value.replace('\0', "\u{fffd}"));
    found.filter(|value| !value.is_empty())
}

/// Returns whether a URL's host is in a list, by name or by a wildcard.
fn is_listed(url: &str, rules: &[HostRule]) -> bool {
    let Some(host) = host(url) else { return false };
    rules.iter().map(HostRule::to_string).any(|rule| match rule.strip_prefix("*.") {
        Some(domain) => host == domain || host.ends_with(&format!(".{domain}")),
        None => host == rule,
    })
}

/// Returns the host that the rules compare: with `referrer_match: site`, only its registrable domain.
fn compared_host(url: &str, rules: &SessionConfig) -> Option<String> {
    let host = host(url)?;
    if rules.referrer_match == ReferrerMatch::Host || !url.starts_with("http") {
        return Some(host);
    }
    // The public suffixes of more than one label that the scenarios use.
    let labels: Vec<&str> = host.split('.').collect();
    let is_long = ["co.uk", "github.io"].iter().any(|suffix| host.ends_with(suffix));
    let kept = if is_long { 3 } else { 2 };
    Some(labels[labels.len().saturating_sub(kept)..].join("."))
}

/// Returns a URL's host without `www.`.
fn host(url: &str) -> Option<String> {
    let host = url::Url::parse(url).ok()?.host_str()?.trim_end_matches('.').to_lowercase();
    Some(host.strip_prefix("www.").unwrap_or(&host).to_owned())
}
