//! Errors become gRPC statuses here and nowhere else: kind to code, the chain of causes printed once, secrets taken out.

use engine::{About, Error};
use model::ErrorKind;
use tonic::{Code, Status};

use super::convert::Refused;

/// Kubelets look for these words at the beginning of an error's text (cri-api, pkg/errors).
mod word {
    pub(super) const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
    pub(super) const IMAGE_VOLUME_MOUNT_FAILED: &str = "ImageVolumeMountFailed";
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Corrupted => Code::DataLoss,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    }
}

/// What the engine says.
pub(crate) fn of_engine(error: &Error) -> Status {
    let text = scrubbed(&error.chain());
    match error.about() {
        About::ImageVolume(_) => Status::new(code(error.kind()), format!("{}: {text}", word::IMAGE_VOLUME_MOUNT_FAILED)),
        About::Engine | About::Pod(_) | About::Container(_) | About::Image(_) | About::Words => {
            Status::new(code(error.kind()), text)
        }
    }
}

/// An error that is the whole story, with its causes.
pub(crate) fn of_error(kind: ErrorKind, error: &dyn std::error::Error) -> Status {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    Status::new(code(kind), scrubbed(&text))
}

/// What the engine says about a pull. The kubelet only finds its word at the beginning of the text if the code is
/// UNKNOWN: it prints every other code in front of it.
pub(crate) fn of_pull(error: &Error) -> Status {
    match error.kind() {
        ErrorKind::Unavailable => Status::unknown(format!("{}: {}", word::REGISTRY_UNAVAILABLE, scrubbed(&error.chain()))),
        _ => of_engine(error),
    }
}

/// What the conversion of a request says.
pub(crate) fn of_request(refused: &Refused) -> Status {
    match refused {
        Refused::Invalid { .. } => Status::invalid_argument(refused.to_string()),
        Refused::ImageVolume { .. } => Status::invalid_argument(format!("{}: {refused}", word::IMAGE_VOLUME_MOUNT_FAILED)),
    }
}

/// Stopping or removing what is not there has succeeded already.
pub(crate) fn idempotent(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => other,
    }
}

/// An id that names nothing.
pub(crate) fn unknown_id(what: &str, id: &str) -> Status {
    Status::not_found(format!("no such {what}: {:?}", id.chars().take(80).collect::<String>()))
}

/// A field of a request that is wrong by itself.
pub(crate) fn bad_field(field: &str, why: &str) -> Status {
    Status::invalid_argument(format!("{field}: {why}"))
}

/// An archive that could not be received: the disk's fault, or its own.
pub(crate) fn of_archive(error: &std::io::Error) -> Status {
    use std::io::ErrorKind as Io;
    let code = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => Code::ResourceExhausted,
        Io::InvalidInput | Io::InvalidData | Io::UnexpectedEof | Io::FileTooLarge => Code::InvalidArgument,
        _ => Code::Internal,
    };
    Status::new(code, format!("receive the archive: {error}"))
}

/// What the streaming server says of a request.
pub(crate) fn of_streaming(error: &streaming::Error) -> Status {
    Status::new(code(error.kind()), error.to_string())
}

/// Something that cannot be done in the state that things are in.
pub(crate) fn not_now(why: &str) -> Status {
    Status::failed_precondition(why)
}

/// A reader of events who did not keep up.
pub(crate) fn lagged(lost: u64) -> Status {
    Status::data_loss(format!("the client was too slow, {lost} events are lost: list again"))
}

/// The client's deadline has passed. What was begun for it goes on.
pub(crate) fn too_late() -> Status {
    Status::deadline_exceeded("the request's deadline has passed")
}

/// The daemon ends.
pub(crate) fn ending() -> Status {
    Status::unavailable("the daemon is ending: connect again and list")
}

/// A bug of ours that did not take the daemon with it.
pub(crate) fn panicked() -> Status {
    Status::internal("creeld hit a bug in this request; its log has the details")
}

/// Passwords in URLs (`scheme://user:password@host`) are cut out: URLs come from registries and configuration files,
/// and errors end up in logs and in events of the cluster.
fn scrubbed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let authority = after.find(|c: char| c == '/' || c.is_whitespace() || c == '"').unwrap_or(after.len());
        match after[..authority].rfind('@') {
            Some(end) => {
                out.push_str("***");
                rest = &after[end..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, About::Image("x".into()), "why")
    }

    #[test]
    fn every_kind_has_its_code_and_the_text_is_kept() {
        for (kind, code) in [
            (ErrorKind::InvalidArgument, Code::InvalidArgument),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::AlreadyExists, Code::AlreadyExists),
            (ErrorKind::FailedPrecondition, Code::FailedPrecondition),
            (ErrorKind::PermissionDenied, Code::PermissionDenied),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::ResourceExhausted, Code::ResourceExhausted),
            (ErrorKind::DeadlineExceeded, Code::DeadlineExceeded),
            (ErrorKind::Cancelled, Code::Cancelled),
            (ErrorKind::Corrupted, Code::DataLoss),
            (ErrorKind::Unsupported, Code::Unimplemented),
            (ErrorKind::Internal, Code::Internal),
        ] {
            let status = of_engine(&error(kind));
            assert_eq!((status.code(), status.message()), (code, "image x: why"));
        }
    }

    #[test]
    fn a_kubelet_finds_its_words() {
        let status = of_pull(&error(ErrorKind::Unavailable));
        assert_eq!((status.code(), status.message()), (Code::Unknown, "RegistryUnavailable: image x: why"));
        assert_eq!(of_pull(&error(ErrorKind::NotFound)).code(), Code::NotFound);
        let refused = Refused::ImageVolume { field: "f".into(), why: "w".into() };
        assert!(of_request(&refused).message().starts_with("ImageVolumeMountFailed: f: w"));
        let volume = Error::new(ErrorKind::NotFound, About::ImageVolume("x".into()), "why");
        assert_eq!(of_engine(&volume).message(), "ImageVolumeMountFailed: image volume x: why");
    }

    #[test]
    fn only_what_is_missing_counts_as_done() {
        assert!(idempotent(Err(unknown_id("pod", "x"))).is_ok());
        assert!(idempotent(Err(panicked())).is_err());
        assert!(idempotent(Ok(())).is_ok());
    }

    #[test]
    fn passwords_in_urls_do_not_get_out() {
        assert_eq!(scrubbed("get https://u:p@r.example/v2/: no"), "get https://***@r.example/v2/: no");
        assert_eq!(scrubbed("a http://x/y@z b https://u@h"), "a http://x/y@z b https://***@h");
        assert_eq!(scrubbed("nothing :// here"), "nothing :// here");
    }
}
