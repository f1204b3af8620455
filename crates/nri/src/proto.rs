//! The messages, generated from `proto/nri/v1alpha1/api.proto`; the comments there are the documentation.
#![allow(clippy::all, missing_debug_implementations, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/nri.pkg.api.v1alpha1.rs"));
