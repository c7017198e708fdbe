//! What goes over the socket beside the operations' own structures.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use thinstore_storage::{Error, ErrorKind};

use crate::operations::ProgressEvent;

/// The trailer that carries an error which came in the middle of a stream.
pub(super) const ERROR_TRAILER: &str = "thinstore-error";

/// An error as JSON: `{"error": {"code", "message"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorFields,
}

/// The fields of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFields {
    /// The name of the error's kind (see `ErrorKind::TABLE`).
    pub code: String,
    /// One sentence.
    pub message: String,
}

impl ErrorBody {
    /// The JSON form of an error.
    pub fn new(error: &Error) -> ErrorBody {
        let code = error.kind().name().to_owned();
        ErrorBody { error: ErrorFields { code, message: error.to_string() } }
    }

    /// The error again.
    pub fn into_error(self) -> Error {
        let kind = ErrorKind::from_name(&self.error.code).unwrap_or(ErrorKind::Io);
        Error::new(kind, self.error.message)
    }
}

/// A line of the answer to an operation that tells how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<R> {
    Progress(ProgressEvent),
    Outcome(R),
    Error(ErrorFields),
}

/// The HTTP status of an error.
pub(super) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Usage | ErrorKind::Refused => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Exists | ErrorKind::InUse => StatusCode::CONFLICT,
        ErrorKind::Permission | ErrorKind::ReadOnly => StatusCode::FORBIDDEN,
        ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Io | ErrorKind::Corrupt | ErrorKind::Incompatible => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_survives_the_wire() {
        for (kind, name, ..) in ErrorKind::TABLE {
            let body = ErrorBody::new(&Error::new(kind, "what"));
            let text = serde_json::to_string(&body).expect("json");
            assert_eq!(text, format!(r#"{{"error":{{"code":"{name}","message":"what"}}}}"#));
            let error = serde_json::from_str::<ErrorBody>(&text).expect("same").into_error();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, "what"));
            assert!(status(kind).as_u16() >= 400);
        }
    }
}
