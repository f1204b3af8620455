//! systemd's part in cgroups: it owns the tree, and gives away a scope of it on request (`Delegate=yes`), below which it
//! touches nothing. One scope is asked for per pod; everything below is made without it (systemd.io/CGROUP_DELEGATION).
//!
//! Requests go over D-Bus by a client of a few messages, made here: one connection per request, and a deadline on each.

mod bus;
mod error;
mod message;
mod slice;
mod units;

pub use error::{Error, SliceError};
pub use slice::{is_scope, path_of};
pub use units::{Manager, Scope, is_running};
