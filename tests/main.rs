//! End to end, one binary.
mod machines;
mod tidy;
