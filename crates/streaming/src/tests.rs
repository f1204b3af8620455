//! The server and real clients of its protocols, without containers.
