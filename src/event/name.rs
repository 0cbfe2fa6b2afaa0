//! The names of the properties that the service reads or writes.

/// A property that the service reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PropertyName {
    /// `$current_url`.
    Url,
    /// `$referrer`. It is read and written.
    Referrer,
    /// `$session_properties`.
    Session,
    /// `$user_id`. It is read, and written if the event has none.
    UserId,
    /// `utm_source` and so on.
    Utm(UtmField),
    /// `$device_type` and so on.
    Device(DeviceField),
    /// `$screen_width` and `$screen_height`.
    Screen(ScreenField),
    /// `$geoip_country_code` and so on.
    Geo(GeoField),
    /// `$user_agent` and `$raw_user_agent`.
    Agent,
    /// `$is_bot`. It is read and written, also on events without a session.
    IsBot,
    /// `$time_flag`, `$sanitized` and `$no_session`: written, also on events without a session.
    Flag,
    /// Any other property that is written, such as `$session_id`.
    WriteOnly,
}

/// A field of a campaign, in the order of [`crate::session::UtmParams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UtmField {
    Source,
    Medium,
    Campaign,
    Term,
    Content,
}

/// A field of a device, in the order of [`crate::session::DeviceInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceField {
    Type,
    Os,
    OsVersion,
    Browser,
    BrowserVersion,
}

/// A dimension of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScreenField {
    Width,
    Height,
}

/// A field of a place. If an event has both a code and a name, the code is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GeoField {
    CountryCode,
    RegionCode,
    City,
    TimeZone,
    CountryName,
    RegionName,
}

impl PropertyName {
    /// Returns the property of this name. Returns `None` if the service neither reads nor writes it.
    pub fn of(key: &[u8]) -> Option<Self> {
        use PropertyName::{Agent, Device, Flag, Geo, IsBot, Referrer, Screen, Session, Url, UserId, Utm, WriteOnly};
        // Every name in the list begins with one of these.
        if !matches!(key.first(), Some(b'$' | b'u')) {
            return None;
        }
        // `==` compares a whole name in a few instructions. A pattern would be compared byte by byte.
        Some(match key {
            _ if key == b"$current_url" => Url,
            _ if key == b"$referrer" => Referrer,
            _ if key == b"utm_source" => Utm(UtmField::Source),
            _ if key == b"utm_medium" => Utm(UtmField::Medium),
            _ if key == b"utm_campaign" => Utm(UtmField::Campaign),
            _ if key == b"utm_term" => Utm(UtmField::Term),
            _ if key == b"utm_content" => Utm(UtmField::Content),
            _ if key == b"$device_type" => Device(DeviceField::Type),
            _ if key == b"$os" => Device(DeviceField::Os),
            _ if key == b"$os_version" => Device(DeviceField::OsVersion),
            _ if key == b"$browser" => Device(DeviceField::Browser),
            _ if key == b"$browser_version" => Device(DeviceField::BrowserVersion),
            _ if key == b"$screen_width" => Screen(ScreenField::Width),
            _ if key == b"$screen_height" => Screen(ScreenField::Height),
            _ if key == b"$geoip_country_code" => Geo(GeoField::CountryCode),
            _ if key == b"$geoip_subdivision_1_code" => Geo(GeoField::RegionCode),
            _ if key == b"$geoip_city_name" => Geo(GeoField::City),
            _ if key == b"$geoip_time_zone" => Geo(GeoField::TimeZone),
            _ if key == b"$geoip_country_name" => Geo(GeoField::CountryName),
            _ if key == b"$geoip_subdivision_1_name" => Geo(GeoField::RegionName),
            _ if key == b"$session_properties" => Session,
            _ if key == b"$user_id" => UserId,
            _ if key == b"$user_agent" || key == b"$raw_user_agent" => Agent,
            _ if key == b"$is_bot" => IsBot,
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
                WriteOnly
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_distinguished() {
        let of = |key: &str| PropertyName::of(key.as_bytes());
        for (key, name) in [
            ("$os", PropertyName::Device(DeviceField::Os)),
            ("$os_version", PropertyName::Device(DeviceField::OsVersion)),
            ("$session_id", PropertyName::WriteOnly),
            ("$session_version", PropertyName::WriteOnly),
            ("$browser_version", PropertyName::Device(DeviceField::BrowserVersion)),
            ("$geoip_city_name", PropertyName::Geo(GeoField::City)),
            ("$geoip_time_zone", PropertyName::Geo(GeoField::TimeZone)),
            ("$time_flag", PropertyName::Flag),
            ("$raw_user_agent", PropertyName::Agent),
            ("$is_bot", PropertyName::IsBot),
            ("utm_term", PropertyName::Utm(UtmField::Term)),
        ] {
            assert_eq!(of(key), Some(name), "{key}");
            for other in [format!("{key}s"), key[..key.len() - 1].to_owned(), key.to_uppercase()] {
                assert_eq!(of(&other), None, "{other}");
            }
        }
        assert_eq!([of(""), of("$"), of("u"), of("$session")], [None; 4]);
    }
}
