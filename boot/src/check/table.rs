//! What `landfall explain` says of each finding, sorted by id.

mod from_a;
mod from_l;
mod linux;
mod windows;
mod windows_disks;
mod windows_drivers;
mod windows_network;
mod windows_settings;

use super::Explanation;
use std::sync::LazyLock;

/// Every finding that this crate can give, sorted by id.
pub static TABLE: LazyLock<Vec<Explanation>> = LazyLock::new(|| {
    let mut rows = [
        from_a::ROWS,
        linux::ROWS,
        from_l::ROWS,
        windows::ROWS,
        windows_disks::ROWS,
        windows_drivers::ROWS,
        windows_network::ROWS,
        windows_settings::ROWS,
    ]
    .concat();
    rows.sort_by_key(|row| row.id);
    rows
});
