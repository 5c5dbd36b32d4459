//! Sums over what is stored.
