//! End to end, one binary.
mod disk;
mod machines;
mod tidy;
