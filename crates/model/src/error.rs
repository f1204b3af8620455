//! The closed set of error kinds that every crate's errors fall into.

/// What a caller can do about an error. Each crate's error type maps onto it with a total `kind()`; only the front
/// door (`src/services/status.rs`) turns it into a gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request can never succeed as it is.
    InvalidArgument,
    /// The named thing is not there.
    NotFound,
    /// The name is taken by something else.
    AlreadyExists,
    /// Right request, wrong state of the thing it names.
    FailedPrecondition,
    /// Credentials are missing or not enough.
    PermissionDenied,
    /// A peer (registry, plugin, supervisor) does not answer; trying again may help.
    Unavailable,
    /// Disk, memory, addresses, descriptors: something is full.
    ResourceExhausted,
    /// A deadline passed.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// Bytes are not what their digest or format promises.
    Corrupted,
    /// The kernel, the build or the configuration cannot do this.
    Unsupported,
    /// A fault of ours.
    Internal,
}
