//! Both ends talk to each other.
