//! Proxmox VE: qemu-server's configuration files (.conf).
pub mod conf;
mod devices;
pub mod read;
pub mod write;
