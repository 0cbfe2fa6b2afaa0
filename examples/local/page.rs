//! The page that shows sessions: one HTML document with its style and its scripts in it, so that it needs no build and no network.
//!
//! `serve` offers it for what happens now, and `replay --html` writes it for what happened.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The document, with a comment in the place of each part.
const DOCUMENT: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
/// The modules, each behind those that it imports. Names at the top of a module are unique among all of them.
const MODULES: &[&str] = &[
    include_str!("page/dom.js"),
    include_str!("page/reasons.js"),
    include_str!("page/time.js"),
    include_str!("page/visitor.js"),
    include_str!("page/model.js"),
    include_str!("page/decision.js"),
    include_str!("page/filter.js"),
    include_str!("page/axis.js"),
    include_str!("page/draw.js"),
    include_str!("page/rows.js"),
    include_str!("page/details.js"),
    include_str!("page/totals.js"),
    include_str!("page/controls.js"),
    include_str!("page/source.js"),
    include_str!("page/main.js"),
];

/// A page, and the Content-Security-Policy that it has.
pub struct Document {
    pub html: String,
    pub policy: String,
}

/// Returns the page with a title and with data, a JSON object: `{"live":true,…}`, or `{"live":false,"left_out":0,"items":[…]}`.
pub fn document(title: &str, data: &str) -> Document {
    let script = script();
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'",
        source(&script),
        source(STYLE)
    );
    // Each place stands in the document once. The title and the data come last, because they may hold any string.
    let html = DOCUMENT
        .replacen("<!-- policy -->", &policy, 1)
        .replacen("/* style */", STYLE, 1)
        .replacen("/* script */", &script, 1)
        .replacen("<!-- title -->", &escaped(title), 1)
        .replacen("<!-- data -->", &embedded(data), 1);
    Document { html, policy }
}

/// Returns all modules as one: what they import stands before them, so that the lines that import it are left out.
fn script() -> String {
    let lines = MODULES.iter().flat_map(|module| module.lines());
    let kept =
        lines.filter(|line| !line.starts_with("import ")).map(|line| line.strip_prefix("export ").unwrap_or(line));
    kept.fold(String::new(), |script, line| script + line + "\n")
}

/// Returns the policy's source for an inline script or style with this content.
fn source(content: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

/// Returns JSON in a form that cannot end the element that it stands in: `<` stands only in strings.
fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
