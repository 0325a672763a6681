//! Settings that a hypervisor gives: documents on a medium that it attaches, read as text.
//!
//! | source | documents | medium |
//! |---|---|---|
//! | [`ovf`] | `ovf-env.xml` (DSP0243, section 11) | a CD that vSphere makes ("ISO image" transport), or one made by hand |
//! | [`nocloud`] | `meta-data`, `user-data`, `network-config` | a file system called `cidata`: Proxmox, libvirt, by hand |
//! | [`config_drive`] | `openstack/latest/*.json`, `user_data` | a file system called `config-2`: OpenStack, Nutanix |
//!
//! **Nothing of them is run.** They may say much more than an appliance heeds (packages, commands, users, files): all of that is
//! named in [`Given::unread`] and has no effect. A value that is not valid is named in [`Given::notes`], and left out; of the
//! network it is left out as a whole, so that the machine comes up with DHCP and not with half a network.
//!
//! Whoever can attach a medium owns the machine anyway; the documents are bounded all the same ([`DOCUMENT_AT_MOST`], depth
//! and number of parts by their readers), since a broken one must not keep it from starting. Mounting is for who calls.

pub mod config_drive;
mod draft;
mod media;
pub mod nocloud;
pub mod ovf;
mod user_data;

pub use media::look;

use super::settings::Settings;
use serde::{Deserialize, Serialize};

/// Bytes of one document. OpenStack's user data has 64 KiB at most, an OVF environment some KiB.
pub const DOCUMENT_AT_MOST: usize = 1 << 20;

/// What a source gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which source it is, and which edition.
    pub identity: Identity,
    /// What it says.
    pub settings: Settings,
    /// What is wrong with it and so left out, for people.
    pub notes: Vec<String>,
    /// Names of what it says beyond settings, and is not heeded.
    pub unread: Vec<String>,
}

/// A source's edition: it is taken once, and again when one of these is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `OVF environment`, `NoCloud`, `ConfigDrive`.
    pub source: String,
    /// The instance's id, where it has one.
    pub instance: Option<String>,
    /// BLAKE3 of its documents.
    pub digest: String,
}
