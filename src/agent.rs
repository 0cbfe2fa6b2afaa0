//! What a user agent tells: the browser, the operating system, the kind of device, and whether a program is at work instead of a
//! person.
//!
//! An agent is a list of words, and a few dozen of them tell nearly everything. They are looked for in order, with nothing compiled
//! and nothing loaded, so that a start costs nothing. The names are those that posthog-js gives, so that one visitor has one device
//! however it was told.

mod bots;
mod words;

pub use bots::is_bot;

use crate::session::DeviceInfo;
use words::{major_minor, number_after};

/// Limit of the bytes of an agent that are read. Longer ones are made up.
const MAX_AGENT_BYTES: usize = 1024;

/// A word in an agent, the browser's name, and what its version stands behind.
type Browser = (&'static str, &'static str, &'static str);

/// Browsers, those first that also have the words of others: nearly all of them state to be Chrome or Safari, too.
const BROWSERS: [Browser; 34] = [
    ("Edg/", "Microsoft Edge", "Edg/"),
    ("EdgA/", "Microsoft Edge", "EdgA/"),
    ("EdgiOS/", "Microsoft Edge", "EdgiOS/"),
    ("Edge/", "Microsoft Edge", "Edge/"),
    ("Opera Mini/", "Opera Mini", "Opera Mini/"),
    ("OPR/", "Opera", "OPR/"),
    ("OPT/", "Opera", "OPT/"),
    ("Opera/", "Opera", "Version/"),
    ("SamsungBrowser/", "Samsung Internet", "SamsungBrowser/"),
    ("YaBrowser/", "Yandex", "YaBrowser/"),
    ("Vivaldi/", "Vivaldi", "Vivaldi/"),
    ("UCBrowser/", "UC Browser", "UCBrowser/"),
    ("UBrowser/", "UC Browser", "UBrowser/"),
    ("Whale/", "Whale Browser", "Whale/"),
    ("HuaweiBrowser/", "Huawei Browser", "HuaweiBrowser/"),
    ("MiuiBrowser/", "MIUI Browser", "MiuiBrowser/"),
    ("QQBrowser/", "QQ Browser", "QQBrowser/"),
    ("Silk/", "Amazon Silk", "Silk/"),
    ("DuckDuckGo/", "DuckDuckGo", "DuckDuckGo/"),
    ("Ddg/", "DuckDuckGo", "Ddg/"),
    ("MicroMessenger/", "WeChat", "MicroMessenger/"),
    ("FBAN/", "Facebook Mobile", "FBAV/"),
    ("FBAV/", "Facebook Mobile", "FBAV/"),
    ("Instagram ", "Instagram", "Instagram "),
    ("FxiOS/", "Firefox iOS", "FxiOS/"),
    ("CriOS/", "Chrome iOS", "CriOS/"),
    ("GSA/", "Google Search App", "GSA/"),
    ("SeaMonkey/", "SeaMonkey", "SeaMonkey/"),
    ("Firefox/", "Firefox", "Firefox/"),
    ("Chromium/", "Chromium", "Chromium/"),
    ("Chrome/", "Chrome", "Chrome/"),
    ("MSIE ", "Internet Explorer", "MSIE "),
    ("Trident/", "Internet Explorer", "rv:"),
    ("Konqueror/", "Konqueror", "Konqueror/"),
];

/// Windows is numbered otherwise than it is called.
const WINDOWS: [(&str, &str); 7] =
    [("10.0", "10"), ("6.3", "8.1"), ("6.2", "8"), ("6.1", "7"), ("6.0", "Vista"), ("5.2", "XP"), ("5.1", "XP")];

/// Words in an agent, the system's name, and what its version stands behind. An empty one has no version.
const SYSTEMS: [(&str, &str, &str); 15] = [
    ("Windows Phone", "Windows Phone", "Windows Phone "),
    ("Xbox", "Xbox", ""),
    ("PlayStation", "PlayStation", ""),
    ("Nintendo", "Nintendo", ""),
    ("KAIOS/", "KaiOS", "KAIOS/"),
    ("Tizen", "Tizen", "Tizen "),
    ("Web0S", "webOS", ""),
    ("HarmonyOS", "HarmonyOS", "HarmonyOS "),
    ("Android", "Android", "Android "),
    ("CrOS ", "Chrome OS", ""),
    ("Mac OS X", "Mac OS X", "Mac OS X "),
    ("Macintosh", "Mac OS X", ""),
    ("FreeBSD", "FreeBSD", ""),
    ("Linux", "Linux", ""),
    ("X11", "Linux", ""),
];

/// Returns the device that an agent describes. Returns `None` for an agent that describes none, and for a bot, whose agent names a
/// device that it does not have.
pub fn device(agent: &str) -> Option<DeviceInfo> {
    let agent = &agent[..agent.floor_char_boundary(MAX_AGENT_BYTES)];
    if is_bot(agent) {
        return None;
    }
    let (os, os_version) = system(agent).unzip();
    let (browser, browser_version) = browser(agent).unzip();
    let device = DeviceInfo {
        device_type: os.map_or("", |os| kind(agent, os)).to_owned(),
        os: os.map(str::to_owned),
        os_version: os_version.flatten(),
        browser: browser.map(str::to_owned),
        browser_version: browser_version.flatten(),
        screen_resolution: None,
    };
    (device != DeviceInfo::default()).then_some(device)
}

fn browser(agent: &str) -> Option<(&'static str, Option<String>)> {
    if let Some((_, name, before)) = BROWSERS.iter().find(|(word, ..)| agent.contains(word)) {
        // Old versions of Opera have no `Version/`.
        let version = number_after(agent, before).or_else(|| number_after(agent, "Opera/"));
        return Some((name, version.map(major_minor)));
    }
    let version = number_after(agent, "Version/").map(major_minor);
    let is_apple = ["iPhone", "iPad", "iPod"].iter().any(|word| agent.contains(word));
    match () {
        // An app's web view has no `Safari/`.
        () if is_apple && agent.contains("AppleWebKit/") => Some(("Mobile Safari", version)),
        () if agent.contains("Android") && agent.contains("Safari/") => Some(("Android Mobile", version)),
        () if agent.contains("Safari/") => Some(("Safari", version)),
        () => None,
    }
}

fn system(agent: &str) -> Option<(&'static str, Option<String>)> {
    let is_apple = ["iPhone", "iPad", "iPod"].iter().any(|word| agent.contains(word));
    if is_apple && !agent.contains("Windows Phone") {
        // `CPU iPhone OS 17_4_1 like Mac OS X`, or without `iPhone` on an iPad; apps write `iOS 17.4.1`.
        let version = [" OS ", "iOS "].iter().find_map(|before| number_after(agent, before));
        return Some(("iOS", version.map(dotted)));
    }
    let found = SYSTEMS.iter().find(|(word, ..)| agent.contains(word));
    if let Some((_, name, before)) = found.filter(|(_, name, _)| !matches!(*name, "Linux" | "FreeBSD")) {
        let version = if before.is_empty() { None } else { number_after(agent, before) };
        return Some((name, version.map(dotted)));
    }
    if agent.contains("Windows") {
        let number = number_after(agent, "Windows NT ");
        let called = number.and_then(|number| WINDOWS.iter().find(|(own, _)| *own == number));
        return Some(("Windows", called.map(|(_, name)| (*name).to_owned())));
    }
    found.map(|(_, name, _)| (*name, None))
}

/// Returns a version with dots: Apple writes `17_4_1`.
fn dotted(version: &str) -> String {
    version.replace('_', ".")
}

/// Returns the kind of device. A kind that an agent does not tell is empty.
fn kind(agent: &str, os: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| agent.contains(word));
    match os {
        "Xbox" | "PlayStation" | "Nintendo" => "Console",
        _ if has(&["SmartTV", "SMART-TV", "Smart TV", "HbbTV", "GoogleTV", "AppleTV", "CrKey/", "BRAVIA", "AFT"]) => {
            "TV"
        }
        "webOS" => "TV",
        "iOS" if agent.contains("iPad") => "Tablet",
        "iOS" | "Windows Phone" | "KaiOS" => "Mobile",
        // Every phone's browser states `Mobile`, and no tablet's does. Apps that are no browsers state neither.
        "Android" | "HarmonyOS" | "Tizen" if has(&["Mobile", "Mobi/", "Opera Mini"]) => "Mobile",
        "Android" | "HarmonyOS" | "Tizen" if has(&["Safari/", "Firefox/", "Silk/", "Tablet"]) => "Tablet",
        "Android" | "HarmonyOS" | "Tizen" => "",
        _ => "Desktop",
    }
}

#[cfg(test)]
mod tests;
