use super::*;

#[test]
fn session_properties_hold_no_line_break_and_no_long_key() {
    let json = format!(
        "{{\"$session_properties\": {{\"a\":\r\n [1,\n2], \"b\": \"\\n\", \"{}\":1, \"{}\":2}}}}",
        "k".repeat(MAX_KEY_BYTES),
        "l".repeat(MAX_KEY_BYTES + 1)
    );
    let properties = Properties::of(Some(&json), false).unwrap().session_properties();
    let long = "k".repeat(MAX_KEY_BYTES);
    let wanted = [("a", "[1, 2]"), ("b", "\"\\n\""), (long.as_str(), "1")];
    assert!(properties.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(wanted), "{properties:?}");
}

#[test]
fn a_user_is_a_text_or_a_number_and_not_nobody() {
    let config = SessionConfig::default();
    let long = "l".repeat(300);
    for (json, wanted) in [
        (r#"{"$user_id":"ann"}"#.to_owned(), Some("ann")),
        (r#"{"$user_id":7}"#.to_owned(), Some("7")),
        (format!(r#"{{"$user_id":"{long}"}}"#), Some(&long[..MAX_STRING_BYTES])),
        (r#"{"$user_id":""}"#.to_owned(), None),
        (r#"{"$user_id":null}"#.to_owned(), None),
        (r#"{"$user_id":"undefined"}"#.to_owned(), None),
        (r#"{"$user_id":{"id":1}}"#.to_owned(), None),
        ("{}".to_owned(), None),
    ] {
        let properties = Properties::of(Some(&json), false).unwrap();
        let known = SessionContext { user_id: Some("ann".into()), ..SessionContext::default() };
        let user_id = properties.context(&known, None, &config).user_id;
        assert_eq!(user_id.as_deref(), wanted, "{json}");
        assert!(is_shared(&user_id, &known.user_id));
    }
}

/// Returns whether two values are the same allocation, if they are equal.
fn is_shared<T: ?Sized + PartialEq>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one != other || Arc::ptr_eq(one, other),
        _ => true,
    }
}

/// A context that is equal to the known one is shared with it, and a different one is never replaced by it.
#[test]
fn equal_contexts_are_shared() {
    let long = "l".repeat(MAX_STRING_BYTES + 1);
    let samples = [
        "{}".to_owned(),
        r#"{"$os":"Linux","$browser":"Firefox","$browser_version":131,"$screen_width":800,"$screen_height":600}"#
            .to_owned(),
        r#"{"$os":"Linux","$browser":"Firefox","$browser_version":13,"$screen_width":800,"$screen_height":60}"#
            .to_owned(),
        r#"{"$os":"Linux","$browser":"Firefox","$browser_version":"131","$screen_width":800}"#.to_owned(),
        r#"{"$os":"Li\nux","$device_type":"","$screen_width":80,"$screen_height":"0x600"}"#.to_owned(),
        r#"{"$device_type":"Mobile","$os_version":"1","$os":null}"#.to_owned(),
        format!(r#"{{"$os":"{long}","$geoip_city_name":"{long}"}}"#),
        r#"{"$geoip_country_code":"CH","$geoip_country_name":"Schweiz","$geoip_time_zone":"Europe/Zurich"}"#.to_owned(),
        r#"{"$geoip_country_code":"","$geoip_country_name":"Schweiz","$geoip_subdivision_1_code":"BE"}"#.to_owned(),
        r#"{"utm_source":"one","$current_url":"https://a.test/?utm_source=two"}"#.to_owned(),
        r#"{"$current_url":"https://a.test/1","$referrer":"https://b.test/"}"#.to_owned(),
        r#"{"$current_url":"https://a.test/2","$referrer":"https://b.test/?q"}"#.to_owned(),
    ];
    let config = SessionConfig::default();
    let context = |json: &String, known: &SessionContext| {
        Properties::of(Some(json), false).unwrap().context(known, None, &config)
    };
    let contexts = samples.each_ref().map(|json| context(json, &SessionContext::default()));
    for (json, alone) in samples.iter().zip(&contexts) {
        for known in &contexts {
            let after = context(json, known);
            assert_eq!(after, *alone, "{json} after {known:?}");
            assert!(json.contains(&long) || is_shared(&after.device, &known.device), "{json} after {known:?}");
            assert!(json.contains(&long) || is_shared(&after.geo, &known.geo), "{json} after {known:?}");
            assert!(is_shared(&after.utm, &known.utm), "{json} after {known:?}");
            assert!(is_shared(&after.url, &known.url) && is_shared(&after.referrer, &known.referrer), "{json}");
        }
    }
}
