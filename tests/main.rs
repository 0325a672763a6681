//! End to end, one binary.
mod boots;
mod cli;
mod disk;
mod machines;
mod readme;
mod refusals;
mod registrations;
mod tidy;
