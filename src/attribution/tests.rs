use super::*;

#[test]
fn hosts() {
    assert_eq!(host("https://WWW.Example.com:8080/a?b").as_deref(), Some("example.com"));
    assert_eq!(host("not a url"), None);
    assert_eq!(host("about:blank"), None);
    assert_eq!(host("$direct"), None);
}

proptest::proptest! {
    /// The fast path agrees with the full parser.
    #[test]
    fn plain_hosts(host in "(www[.])?([a-z0-9-]{0,4}[.]?|xn--|0x|é|A|%41|@|:|[.]){1,4}", rest in "([/?#:\\\\ \n].{0,9})?") {
        let url = format!("https://{host}{rest}");
        if let Some(plain) = plain_host(&url) {
            let parsed = Url::parse(&url).unwrap();
            proptest::prop_assert_eq!(parsed.host_str(), Some(plain));
        }
    }
}

#[test]
fn campaigns_of_urls() {
    let utm = utm_of("/x?utm_campaign=ga+campaign&utm_campaign=other#utm_source=no").unwrap();
    assert_eq!(utm.campaign.as_deref(), Some("ga campaign"));
    assert_eq!(utm.source, None);
    assert_eq!(utm_of("https://shop.test/?utm_source="), None);
    for url in [
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
        let utm = utm_of(url).unwrap_or_else(|| panic!("{url}"));
        assert_eq!(utm.source.as_deref(), Some("news"), "{url}");
    }
    assert_eq!(utm_of("#utm_source=what?").unwrap().source.as_deref(), Some("what?"));
    for url in ["", "#", "?", "#?", "/utm_source=no", "https://utm_source.test/#top", "/?x=utm_source=no#y"] {
        assert_eq!(utm_of(url), None, "{url}");
    }
}

#[test]
fn click_ids_of_urls() {
    let click = click_hash("gclid", "1");
    for url in ["/?fbclid=2&gclid=1", "/?GCLID=1", "/?gclid=#gclid=1", "/#/x?gclid=1", "/#gclid=1"] {
        assert_eq!(click_of(url), Some(click), "{url}");
    }
    assert_eq!(click_of("/gclid=1"), None);
}

#[test]
fn sites() {
    for (url, wanted) in [
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
        assert_eq!(site(url).as_deref(), Some(wanted), "{url}");
    }
    assert_eq!(site("news.example"), None);
}

#[test]
fn case_of_values() {
    let differ = |one, other, ignore_case| differs(Some(one), Some(other), ignore_case);
    assert!(differ("LinkedIn", "linkedin", false) && !differ("LinkedIn", "linkedin", true));
    assert!(!differ("ÄRZTE", "ärzte", true) && differ("a", "b", true) && differ("a", "ab", true));
    assert!(differs(None, Some("a"), true) && !differs(None, None, true));
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
    for outside in ["https://sub.shop.test/", "https://shop.tes/", "https://shop.test.example/", "https://shop.test:9/"]
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
        // The lists name hosts, even if `referrer_match` is `site`.
        ("https://a.example.com/", Referrer::External),
        ("https://a.pay.test/", Referrer::Ignored),
    ] {
        assert_eq!(Referrer::of(referrer, page, &by_site), kind, "{referrer}");
    }
}
