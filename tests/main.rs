//! End to end, one binary.
mod cli;
mod disk;
mod machines;
mod tidy;
