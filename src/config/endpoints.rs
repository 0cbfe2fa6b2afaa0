//! The endpoints of the AWS clients, by the variables that all AWS SDKs read.

/// Which endpoints the AWS clients use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// `AWS_ENDPOINT_URL_DYNAMODB`, or else `AWS_ENDPOINT_URL`. `None` for the region's own endpoint.
    pub dynamodb: Option<String>,
    /// `AWS_ENDPOINT_URL_SQS`, or else `AWS_ENDPOINT_URL`. `None` for the region's own endpoint.
    pub sqs: Option<String>,
    /// `AWS_ENDPOINT_URL_S3`, or else `AWS_ENDPOINT_URL`. `None` for the region's own endpoint.
    #[cfg(feature = "replay")]
    pub s3: Option<String>,
    /// `AWS_USE_FIPS_ENDPOINT`: whether the region's FIPS endpoints are used.
    pub use_fips: bool,
    /// `AWS_USE_DUALSTACK_ENDPOINT`: whether the region's endpoints for IPv4 and IPv6 are used.
    pub use_dual_stack: bool,
}

impl Endpoints {
    /// Reads the variables. `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` turns the URLs off.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let is_true = |name: &str| variable(name).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        let ignores_urls = is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
        let url = |name: &str| {
            let value = |name: &str| variable(name).map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
            value(name).or_else(|| value("AWS_ENDPOINT_URL")).filter(|_| !ignores_urls)
        };
        Self {
            dynamodb: url("AWS_ENDPOINT_URL_DYNAMODB"),
            sqs: url("AWS_ENDPOINT_URL_SQS"),
            #[cfg(feature = "replay")]
            s3: url("AWS_ENDPOINT_URL_S3"),
            use_fips: is_true("AWS_USE_FIPS_ENDPOINT"),
            use_dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_own_url_counts_before_the_common_one() {
        let of = |variables: &[(&str, &str)]| {
            let value =
                |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
            Endpoints::from_variables(value)
        };
        let urls = |dynamodb: Option<&str>, sqs: Option<&str>| Endpoints {
            dynamodb: dynamodb.map(Into::into),
            sqs: sqs.map(Into::into),
            #[cfg(feature = "replay")]
            s3: sqs.and(Some("http://all".to_owned())),
            ..Endpoints::default()
        };
        assert_eq!(of(&[]), Endpoints::default());
        assert_eq!(of(&[("AWS_ENDPOINT_URL", "http://all")]), urls(Some("http://all"), Some("http://all")));
        let both = [("AWS_ENDPOINT_URL", "http://all"), ("AWS_ENDPOINT_URL_SQS", " http://queue ")];
        assert_eq!(of(&both), urls(Some("http://all"), Some("http://queue")));
        assert_eq!(
            of(&[("AWS_ENDPOINT_URL_DYNAMODB", "http://table"), ("AWS_ENDPOINT_URL", "")]),
            urls(Some("http://table"), None)
        );
        let ignored = [both[0], both[1], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(of(&ignored), Endpoints::default());
        let flags = of(&[("AWS_USE_FIPS_ENDPOINT", "TRUE"), ("AWS_USE_DUALSTACK_ENDPOINT", "false")]);
        assert_eq!(flags, Endpoints { use_fips: true, ..Endpoints::default() });
    }
}
