//! The agents of `tests/data/agents.jsonl`, and the library woothee as an oracle.

use serde::Deserialize;
use woothee::parser::Parser;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    agent: String,
    #[serde(default)]
    is_bot: bool,
    browser: Option<String>,
    browser_version: Option<String>,
    os: Option<String>,
    os_version: Option<String>,
    #[serde(default)]
    device_type: String,
}

fn rows() -> Vec<Row> {
    let lines = include_str!("../../tests/data/agents.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn agents_describe_their_devices() {
    for row in rows() {
        assert_eq!(is_bot(&row.agent), row.is_bot, "{}", row.agent);
        let Row { agent, browser, browser_version, os, os_version, device_type, .. } = row;
        let wanted = DeviceInfo { device_type, os, os_version, browser, browser_version, screen_resolution: None };
        assert_eq!(device(&agent).unwrap_or_default(), wanted, "{agent}");
    }
}

/// Where woothee knows an agent, it finds the same. It is older than some browsers, and does not know most of the bots.
#[test]
fn woothee_finds_the_same() {
    let mut compared = 0;
    for Row { agent, .. } in rows() {
        let Some(found) = Parser::new().parse(&agent) else { continue };
        let device = device(&agent).unwrap_or_default();
        if found.category == "crawler" {
            assert!(is_bot(&agent), "{agent}");
            continue;
        }
        if device == DeviceInfo::default() {
            // An app's library, from which woothee guesses the system.
            continue;
        }
        let os = device.os.as_deref().unwrap_or("UNKNOWN");
        let browser = device.browser.as_deref().unwrap_or("UNKNOWN");
        let is_os = match found.os {
            "Windows 10" | "Windows 7" | "Windows 8.1" => os == "Windows" || os == "Xbox",
            "Mac OSX" => os == "Mac OS X",
            "iPhone" | "iPad" | "iOS" => os == "iOS",
            "ChromeOS" => os == "Chrome OS",
            "BSD" => os == "FreeBSD",
            "Linux" => ["Linux", "webOS", "Tizen"].contains(&os),
            "Android" => ["Android", "HarmonyOS"].contains(&os),
            "Windows Phone OS" | "Windows UNKNOWN Ver" => os == "Windows Phone",
            // It has no name for these.
            _ => true,
        };
        let is_browser = match found.name {
            "Chrome" => browser.contains("Chrome") || !["Safari", "Firefox", "Opera"].contains(&browser),
            "Firefox" => browser.starts_with("Firefox"),
            "Safari" => {
                ["Safari", "Mobile Safari", "Android Mobile"].contains(&browser)
                    || device.os.as_deref() == Some("iOS")
                    || os == "Mac OS X"
            }
            "Edge" => browser == "Microsoft Edge",
            "Internet Explorer" => browser == "Internet Explorer" || browser == "Microsoft Edge",
            "Opera" => browser.starts_with("Opera"),
            "Vivaldi" => browser == "Vivaldi",
            "SamsungBrowser" => browser == "Samsung Internet",
            "Yandex Browser" => browser == "Yandex",
            _ => true,
        };
        let is_kind = match found.category {
            "pc" => ["Desktop", "TV", "Console"].contains(&&*device.device_type),
            "smartphone" => ["Mobile", "Tablet", ""].contains(&&*device.device_type),
            _ => true,
        };
        assert!(is_bot(&agent) || (is_os && is_browser && is_kind), "{agent}\n{found:?}\n{device:?}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}
