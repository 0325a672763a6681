//! End to end, one binary.
mod appliance;
mod batch;
mod boots;
mod cli;
mod disk;
mod machines;
mod readme;
mod receive;
mod recoveries;
mod refusals;
mod registrations;
mod service;
mod sources;
mod tidy;
mod windows;
