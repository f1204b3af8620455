//! How a session ended, in the words of the error stream.

use bytes::Bytes;
use serde_json::json;

use crate::backend::Failure;

/// How the error stream says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Before v4: text if something went wrong, else nothing.
    Text,
    /// From v4 on: a Status of Kubernetes' meta/v1 as JSON.
    Json,
}

impl Format {
    /// What to write; `None`: nothing.
    pub(crate) fn of(self, result: &Result<i32, Failure>) -> Option<Bytes> {
        match self {
            Self::Text => text(result),
            Self::Json => Some(json_of(result)),
        }
    }
}

fn text(result: &Result<i32, Failure>) -> Option<Bytes> {
    match result {
        Ok(0) => None,
        Ok(code) => Some(nonzero(*code).into()),
        Err(failure) => Some(failure.to_string().into()),
    }
}

fn nonzero(code: i32) -> String {
    format!("command terminated with non-zero exit code: error executing command: exit status {code}")
}

fn json_of(result: &Result<i32, Failure>) -> Bytes {
    let status = match result {
        Ok(0) => json!({ "metadata": {}, "status": "Success" }),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "message": nonzero(*code), "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        Err(failure) => json!({
            "metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {failure}"),
            "reason": "InternalError", "details": { "causes": [{ "message": failure.to_string() }] }, "code": 500,
        }),
    };
    status.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_said_so_that_clients_find_them() {
        let parse = |result| -> serde_json::Value { serde_json::from_slice(&Format::Json.of(&result).unwrap()).unwrap() };
        assert_eq!(parse(Ok(0))["status"], "Success");
        let failed = parse(Ok(3));
        assert_eq!((&failed["status"], &failed["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
        assert_eq!(failed["details"]["causes"], json!([{ "reason": "ExitCode", "message": "3" }]));
        let broken = parse(Err(Failure("no \"shim\"".into())));
        assert_eq!((&broken["reason"], &broken["code"]), (&json!("InternalError"), &json!(500)));
        assert_eq!(Format::Text.of(&Ok(0)), None);
        assert!(Format::Text.of(&Ok(3)).is_some());
    }
}
