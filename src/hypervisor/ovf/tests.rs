//! Descriptors, line by line.
