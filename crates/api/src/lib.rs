//! CRI v1 and creel's own API, generated from `proto/` at build time. The comments there are the documentation.
#![forbid(unsafe_code)]
#![allow(clippy::all, missing_debug_implementations, reason = "generated code")]

/// Container Runtime Interface, v1.
pub mod runtime {
    tonic::include_proto!("runtime.v1");
}

/// creel's own API.
pub mod creel {
    tonic::include_proto!("creel.v1");
}

/// All of `proto/` as an encoded `google.protobuf.FileDescriptorSet`, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Most bytes of one message, either way. The kubelet's own limit; more is RESOURCE_EXHAUSTED.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Bytes that may be under way in one stream, and in one connection: archives wait for neither end as with HTTP/2's 64 KiB.
pub const WINDOWS: (u32, u32) = (4 << 20, 8 << 20);

/// Most bytes of a frame: a piece of an archive is one in a few, not in dozens.
pub const MAX_FRAME: u32 = 256 << 10;
