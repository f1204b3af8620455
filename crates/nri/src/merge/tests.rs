//! What comes of several plugins' wishes.
