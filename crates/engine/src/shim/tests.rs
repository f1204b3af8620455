//! The client against supervisors, real and false.
