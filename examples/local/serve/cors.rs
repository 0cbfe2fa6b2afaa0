//! CORS: the answers of API Gateway for the API of `template.yaml`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_yaml_ng::Value;

use crate::failure::Failure;

/// The values of the CORS headers.
pub struct Cors {
    origin: HeaderValue,
    methods: HeaderValue,
    headers: HeaderValue,
}

impl Cors {
    /// Reads the CORS configuration of the template.
    ///
    /// # Errors
    /// The template has another form than expected.
    pub fn deployed() -> Result<Self, Failure> {
        Self::of(include_str!("../../../template.yaml")).ok_or_else(|| {
            Failure::work(
                "template.yaml: `Resources.Api.Properties.CorsConfiguration` has a form that `serve` does not know",
            )
        })
    }

    fn of(template: &str) -> Option<Self> {
        let template: Value = serde_yaml_ng::from_str(template).ok()?;
        let cors = &template["Resources"]["Api"]["Properties"]["CorsConfiguration"];
        let list = |name: &str| {
            let values = cors[name].as_sequence()?.iter().map(|value| resolved(&template, value));
            HeaderValue::from_str(&values.collect::<Option<Vec<_>>>()?.join(",")).ok()
        };
        Some(Self { origin: list("AllowOrigins")?, methods: list("AllowMethods")?, headers: list("AllowHeaders")? })
    }

    /// Adds the header that lets a page read the answer. A request without an `Origin` gets none.
    pub fn allow(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        let Some(origin) = request.get(header::ORIGIN) else { return };
        if self.origin == "*" || self.origin == origin {
            put(answer, header::ACCESS_CONTROL_ALLOW_ORIGIN, &self.origin);
        }
    }

    /// Adds the headers of the answer to a preflight request.
    pub fn preflight(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        self.allow(request, answer);
        if answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            put(answer, header::ACCESS_CONTROL_ALLOW_METHODS, &self.methods);
            put(answer, header::ACCESS_CONTROL_ALLOW_HEADERS, &self.headers);
        }
    }
}

fn put(answer: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    answer.insert(name, value.clone());
}

/// Returns a value of the template. A reference to a parameter becomes the parameter's default.
fn resolved(template: &Value, value: &Value) -> Option<String> {
    match value {
        Value::Tagged(tagged) if tagged.tag == "Ref" => {
            Some(template["Parameters"][tagged.value.as_str()?]["Default"].as_str()?.to_owned())
        }
        value => Some(value.as_str()?.to_owned()),
    }
}
