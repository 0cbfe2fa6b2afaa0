//! The close function's payload, which a schedule sends, and the error that a failed run returns to Lambda.

use lambda_runtime::Diagnostic;
use serde::Deserialize;
use serde_json::Value;

use crate::manager::{CloseReport, Share};

/// Returns the share of the shards that an invocation of the close function handles: `{"shard_of": [INDEX, COUNT]}` names
/// it, with an index that counts from 0. Any other payload means all shards.
///
/// # Errors
/// The share is invalid. Closing all shards instead would make several closers silently do the same work.
pub fn share(payload: &Value) -> Result<Share, Diagnostic> {
    let Some(value) = payload.get("shard_of") else { return Ok(Share::WHOLE) };
    let share = <(u8, u8)>::deserialize(value).ok().and_then(|(index, count)| Share::new(index, count));
    share.ok_or_else(|| Diagnostic {
        error_type: "InvalidShare".to_owned(),
        error_message: format!(
            "`shard_of` is {value}; it must be [INDEX, COUNT], two numbers of which the first counts from 0 and is less than \
             the second"
        ),
    })
}

/// Returns the error of a run in which something failed, so that Lambda counts the invocation as failed.
pub fn failure(report: &CloseReport) -> Diagnostic {
    Diagnostic {
        error_type: "CloseFailed".to_owned(),
        error_message: format!(
            "{} shards could not be listed, {} timelines could not be closed, {} sessions were closed; see the log",
            report.unlisted, report.failed, report.closed
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_names_a_share_or_means_all_shards() {
        for (payload, wanted) in [
            (json!({"shard_of": [0, 1]}), Share::new(0, 1)),
            (json!({"shard_of": [3, 8]}), Share::new(3, 8)),
            (json!({"source": "aws.events", "detail": {}}), Some(Share::WHOLE)),
            (json!(null), Some(Share::WHOLE)),
            (json!({"shard_of": [1, 1]}), None),
            (json!({"shard_of": [0, 0]}), None),
            (json!({"shard_of": [-1, 2]}), None),
            (json!({"shard_of": [0]}), None),
            (json!({"shard_of": "0 of 2"}), None),
            (json!({"shard_of": null}), None),
        ] {
            assert_eq!(share(&payload).ok(), wanted, "{payload}");
        }
        assert!(share(&json!({"shard_of": [9, 2]})).unwrap_err().error_message.starts_with("`shard_of` is [9,2]; "));
    }
}
