//! Which agents are bots: crawlers, previews, monitors, automated browsers and HTTP libraries.
//!
//! Most name themselves by a word that ends in `bot`, or give the address of a page about themselves (`+https://…`). The others are
//! in a list. Libraries that apps are built with (`okhttp`, `CFNetwork`, `Dalvik`) are not bots.

use super::words::words;

/// Ends of words that name a bot.
const ENDS: [&str; 9] = ["bot", "bots", "crawler", "spider", "scraper", "pinger", "preview", "fetcher", "validator"];
/// Beginnings of words that name a bot.
const STARTS: [&str; 4] = ["headless", "phantomjs", "lighthouse", "facebookexternal"];
/// A maker of phones.
const NO_BOTS: [&str; 1] = ["cubot"];
/// Other words of bots, in lower case and in order.
#[rustfmt::skip] // One word a line would be three screens.
const WORDS: [&str; 65] = [
    "aiohttp", "anthropic", "archiver", "axios", "burpcollaborator", "catchpoint", "checkly", "cohere", "colly",
    "crawl", "curl", "dareboost", "datadogsynthetics", "embedly", "externalagent", "externalhit", "facebookcatalog",
    "facebookplatform", "favicon", "feedburner", "googleother", "gtmetrix", "guzzlehttp", "happydom", "heritrix",
    "hetrixtools", "httpclient", "httpie", "httpx", "httrack", "inspectiontool", "jsdom", "libwww", "linkcheck",
    "lychee", "masscan", "mediapartners", "nagios", "nmap", "node", "nutch", "pagespeed", "pingdom", "playwright",
    "postmanruntime", "prerender", "ptst", "puppeteer", "python", "rendertron", "ruby", "scrapy", "selenium",
    "site24x7", "sitechecker", "slurp", "speedcurve", "statuscake", "uptime", "urllib", "w3c", "webpagetest", "wget",
    "zabbix", "zgrab",
];
/// First words of programs whose names mean something else further behind.
const FIRST_WORDS: [&str; 6] = ["go", "java", "perl", "php", "whatsapp", "apache"];

/// Returns whether an agent is that of a bot.
pub fn is_bot(agent: &str) -> bool {
    if agent.contains("+http") {
        return true;
    }
    let is_first = |word: &str| FIRST_WORDS.iter().any(|first| first.eq_ignore_ascii_case(word));
    words(agent).next().is_some_and(is_first) || words(agent).any(is_bot_word)
}

fn is_bot_word(word: &str) -> bool {
    let mut buffer = [0; 32];
    // No word of a bot is longer.
    let Some(lower) = buffer.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    let Ok(word) = std::str::from_utf8(lower) else { return false };
    let is_named = ENDS.iter().any(|end| word.ends_with(end)) || STARTS.iter().any(|start| word.starts_with(start));
    (is_named && !NO_BOTS.contains(&word)) || WORDS.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_in_order() {
        assert!(WORDS.is_sorted());
    }

    #[test]
    fn long_words_and_odd_characters_are_no_bots() {
        for agent in ["", " ", "é", &"x".repeat(2000), "CUBOT X30", "Cubot_Note", "Robotic", "Abbott", "bottle"] {
            assert!(!is_bot(agent), "{agent}");
        }
        for agent in ["bot", "my-BOT/1", "A B (robot; x)", "curl/8.5.0", "Java/17.0.1", "Go-http-client/1.1"] {
            assert!(is_bot(agent), "{agent}");
        }
    }
}
