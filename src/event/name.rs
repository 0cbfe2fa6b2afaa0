//! The properties that we read or write, by their names.

/// A property that we read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Url,
    Referrer,
    Session,
    Utm(usize),
    Device(usize),
    Screen(usize),
    Geo(usize),
    /// `$time_flag`, `$sanitized` and `$no_session`, which an event without a session can get, too.
    Flag,
    /// It is only written.
    Written,
}

impl Name {
    /// The property that a key names, if it is one of ours.
    #[inline(always)]
    pub fn of(key: &[u8]) -> Option<Self> {
        use Name::{Device, Flag, Geo, Referrer, Screen, Session, Url, Utm, Written};
        // No other character begins a name of ours.
        if !matches!(key.first(), Some(b'$' | b'u')) {
            return None;
        }
        // By comparison of wholes, which takes some instructions a name: patterns would be compared byte by byte.
        Some(match key {
            _ if key == b"$current_url" => Url,
            _ if key == b"$referrer" => Referrer,
            _ if key == b"utm_source" => Utm(0),
            _ if key == b"utm_medium" => Utm(1),
            _ if key == b"utm_campaign" => Utm(2),
            _ if key == b"utm_term" => Utm(3),
            _ if key == b"utm_content" => Utm(4),
            _ if key == b"$device_type" => Device(0),
            _ if key == b"$os" => Device(1),
            _ if key == b"$os_version" => Device(2),
            _ if key == b"$browser" => Device(3),
            _ if key == b"$browser_version" => Device(4),
            _ if key == b"$screen_width" => Screen(0),
            _ if key == b"$screen_height" => Screen(1),
            _ if key == b"$geoip_country_code" => Geo(0),
            _ if key == b"$geoip_subdivision_1_code" => Geo(1),
            _ if key == b"$geoip_city_name" => Geo(2),
            _ if key == b"$geoip_time_zone" => Geo(3),
            _ if key == b"$geoip_country_name" => Geo(4),
            _ if key == b"$geoip_subdivision_1_name" => Geo(5),
            _ if key == b"$session_properties" => Session,
            _ if key == b"$time_flag" || key == b"$sanitized" || key == b"$no_session" => Flag,
            _ if key == b"$entry_url"
                || key == b"$event_referrer"
                || key == b"$event_time"
                || key == b"$exit_url"
                || key == b"$late"
                || key == b"$previous_session_id"
                || key == b"$session_duration"
                || key == b"$session_id"
                || key == b"$session_number"
                || key == b"$session_page_views"
                || key == b"$session_start"
                || key == b"$session_start_reason"
                || key == b"$session_version" =>
            {
                Written
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let of = |key: &str| Name::of(key.as_bytes());
        for (key, name) in [
            ("$os", Name::Device(1)),
            ("$os_version", Name::Device(2)),
            ("$session_id", Name::Written),
            ("$session_version", Name::Written),
            ("$browser_version", Name::Device(4)),
            ("$geoip_city_name", Name::Geo(2)),
            ("$geoip_time_zone", Name::Geo(3)),
            ("$time_flag", Name::Flag),
            ("utm_term", Name::Utm(3)),
        ] {
            assert_eq!(of(key), Some(name), "{key}");
            for other in [format!("{key}s"), key[..key.len() - 1].to_owned(), key.to_uppercase()] {
                assert_eq!(of(&other), None, "{other}");
            }
        }
        assert_eq!([of(""), of("$"), of("u"), of("$session")], [None; 4]);
    }
}
