//! The client against registries good and bad.
