//! Windows guests: what is known of them, read and written without Windows.

pub mod hive;
