//! End to end, one binary.
mod machines;
