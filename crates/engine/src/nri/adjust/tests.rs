//! Adjustments one by one.
