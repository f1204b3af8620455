//! ttrpc's envelopes: what a request and a response say around the message (request.proto of github.com/containerd/ttrpc).

/// Of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    /// How long the caller waits; 0: it does not say.
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
}

/// Of a response.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    /// Absent: all went well.
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// Why a call failed (google.rpc.Status without its details).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// A number of [`Code`], or any other of gRPC's.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The codes of gRPC that this interface tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Whatever a plugin's error is by default.
    Unknown = 2,
    /// The message is wrong.
    InvalidArgument = 3,
    /// Too many requests at once.
    ResourceExhausted = 8,
    /// Not now.
    FailedPrecondition = 9,
    /// No such method: a plugin of before it was there.
    Unimplemented = 12,
}

impl Status {
    /// A failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as i32, message: message.into() }
    }

    /// Whether it is this one.
    pub fn is(&self, code: Code) -> bool {
        self.code == code as i32
    }
}
