//! Named profiles: rules under which sessions begin and end where those of another system do, as far as rules can.
//!
//! `docs/profiles.md` has the source of each figure, and what each profile does not reproduce.

use serde_json::{Value, json};

use super::{ConfigError, GivenRules};

/// The longest `max_duration_seconds`, for systems that have no maximum: 30 days.
const NO_MAX_DURATION: u32 = 30 * 86_400;

/// The names of the profiles, in the order of `docs/profiles.md`.
const PROFILES: [&str; 10] = [
    "ga4",
    "universal-analytics",
    "matomo",
    "plausible",
    "posthog",
    "mixpanel",
    "amplitude",
    "snowplow",
    "otel-mobile",
    "datadog",
];

/// Events that Mixpanel leaves out of sessions by default.
const MIXPANEL_EXCLUDED_EVENTS: [&str; 10] = [
    "$identify",
    "$create_alias",
    "$merge",
    "$hotshard_events",
    "$campaign_delivery",
    "$campaign_bounced",
    "$campaign_marked_spam",
    "$message_suppressed",
    "$unsubscribe",
    "$journey_entered",
];

impl GivenRules {
    /// Takes the rules of a profile.
    ///
    /// A profile sets every rule that separates one system's sessions from another's, also those that have our default. So it
    /// replaces the rules below it as a whole. It leaves the rules that describe a site and its senders: `internal_hosts`,
    /// `ignored_referrers`, `counted_events`, `nobody_ids`, `exclude_bots`, `viewer_headers`, `strip_query_params`, `lateness_seconds`
    /// and `clock_skew_tolerance_seconds`.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if there is no profile of this name.
    pub fn of_profile(name: &str) -> Result<Self, ConfigError> {
        let Some(differences) = differences(name) else {
            let names = PROFILES.map(|name| format!("`{name}`")).join(", ");
            return Err(ConfigError(format!("`{name}` is no profile; the profiles are {names}")));
        };
        Ok(Self::of_json(timeout_alone())?.with(Self::of_json(differences)?))
    }

    /// Returns the names of the profiles.
    pub fn profile_names() -> impl Iterator<Item = &'static str> {
        PROFILES.into_iter()
    }
}

/// Returns the rules of a system in which only 30 minutes of inactivity end a session.
fn timeout_alone() -> Value {
    json!({
        "timeout_seconds": 1800,
        "boundary": "inclusive",
        "max_duration_seconds": NO_MAX_DURATION,
        "new_session_on_referrer_change": false,
        "new_session_on_utm_change": false,
        "utm_fields": ["source", "medium", "campaign"],
        "utm_ignore_case": false,
        "direct_then_source": "continue",
        "first_campaign": "continue",
        "internal_campaigns": "split",
        "referrer_match": "host",
        "new_session_on_click_id_change": false,
        "midnight": null,
        "passive_events": [],
        "keep_alive_events": ["$pageleave"],
        "max_events": null,
    })
}

/// Returns the rules of a profile that differ from [`timeout_alone`]. Returns `None` if there is no such profile.
fn differences(name: &str) -> Option<Value> {
    Some(match name {
        "ga4" | "amplitude" | "snowplow" => json!({}),
        // Any of the five `utm_…` values and the click id make another campaign. A visit without a source never replaces one.
        "universal-analytics" => json!({
            "boundary": "exclusive",
            "new_session_on_referrer_change": true,
            "new_session_on_utm_change": true,
            "utm_fields": ["source", "medium", "campaign", "term", "content"],
            "direct_then_source": "split",
            "first_campaign": "split",
            "referrer_match": "site",
            "new_session_on_click_id_change": true,
            "midnight": "UTC",
        }),
        // The first source in a visit without one becomes the visit's. Pings extend a visit, but begin none.
        "matomo" => json!({
            "boundary": "exclusive",
            "new_session_on_utm_change": true,
            "utm_fields": ["campaign", "term"],
            "utm_ignore_case": true,
            "direct_then_source": "upgrade",
            "first_campaign": "split",
            "midnight": "UTC",
            "keep_alive_events": ["$pageleave", "$ping", "page_ping"],
            "max_events": 10_000,
        }),
        "plausible" => json!({ "keep_alive_events": ["$pageleave", "pageleave", "engagement"] }),
        "posthog" => json!({ "max_duration_seconds": 86_400 }),
        "mixpanel" => json!({ "midnight": "UTC", "passive_events": MIXPANEL_EXCLUDED_EVENTS }),
        "otel-mobile" => {
            json!({ "timeout_seconds": 900, "boundary": "exclusive", "max_duration_seconds": 14_400 })
        }
        // Only what a user does extends a session. What the page measures is annotated with it.
        "datadog" => json!({
            "timeout_seconds": 900,
            "boundary": "exclusive",
            "max_duration_seconds": 14_400,
            "passive_events": ["resource", "error", "long_task", "vital"],
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionConfig;

    #[test]
    fn every_profile_can_be_read_and_replaces_all_rules_that_separate_sessions() {
        let mut odd = SessionConfig::rule_names();
        let site = [
            "internal_hosts",
            "ignored_referrers",
            "counted_events",
            "nobody_ids",
            "exclude_bots",
            "viewer_headers",
            "strip_query_params",
            "lateness_seconds",
            "clock_skew_tolerance_seconds",
        ];
        let base = timeout_alone();
        let set = base.as_object().unwrap();
        assert!(odd.all(|rule| set.contains_key(rule) != site.contains(&rule)));
        for name in GivenRules::profile_names() {
            let profile = GivenRules::of_profile(name).unwrap();
            let service = GivenRules::of_json(json!({
                "timeout_seconds": 7, "boundary": "exclusive", "midnight": "Europe/Berlin", "max_events": 3,
                "utm_fields": ["term"], "passive_events": ["x"], "lateness_seconds": 7,
            }));
            let over_service = service.unwrap().with(profile.clone()).read().unwrap();
            let alone = profile.read().unwrap();
            assert_eq!(over_service, SessionConfig { lateness: over_service.lateness, ..alone }, "{name}");
            assert_eq!(over_service.lateness_ms(), 7_000, "{name}");
        }
        let error = GivenRules::of_profile("ga3").unwrap_err().to_string();
        assert!(error.starts_with("`ga3` is no profile; the profiles are `ga4`, `universal-analytics`, "), "{error}");
    }
}
