//! How the appliance is: what the console shows, and the support bundle has.

use crate::appliance::settings::{Mac, Settings};
use crate::moment::Moment;
use landfall_image::Bytes;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// landfall's version.
    pub version: String,
    /// What the machine is called now.
    pub hostname: String,
    /// Cards, routers, servers of names.
    pub network: NetworkStatus,
    /// The clock.
    pub time: TimeStatus,
    /// Disks, in the kernel's order.
    pub disks: Vec<DiskStatus>,
    /// The system that runs; `None` where this is not known.
    pub system: Option<SystemStatus>,
    /// Of the machine.
    pub memory: Memory,
    /// What is wrong, for people: settings that could not be read, cards that are not there, units that failed.
    pub problems: Vec<String>,
    /// What holds: what was typed, else what was given.
    pub settings: Settings,
    /// What was typed at the console.
    pub typed: Settings,
    /// Who gave the rest: `NoCloud`, `OVF environment`, `ConfigDrive`.
    pub given_by: Option<String>,
}

/// The network as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Cards, and what stands on them.
    pub cards: Vec<CardStatus>,
    /// Routers that lead everywhere.
    pub gateways: Vec<IpAddr>,
    /// Servers of names that are asked.
    pub dns: Vec<String>,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
}

/// A network card, a bond or a VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardStatus {
    /// Its name.
    pub name: String,
    /// Its hardware address, where it has one.
    pub mac: Option<Mac>,
    /// False for bonds and VLANs.
    pub is_card: bool,
    /// A cable is in it, and somebody at its other end.
    pub has_link: bool,
    /// In megabits per second, where it says.
    pub speed: Option<u32>,
    /// The longest packet in bytes.
    pub mtu: Option<u32>,
    /// Addresses with the length of their prefix, link-local ones too.
    pub addresses: Vec<ipnet::IpNet>,
}

/// The clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeStatus {
    /// What it says.
    pub now: Moment,
    /// A server of time has been heard since the start.
    pub is_synchronised: bool,
    /// Servers that are set or that DHCP names.
    pub servers: Vec<String>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its name in `/dev`: `sda`, `nvme0n1`.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// Who made it, as it says.
    pub model: Option<String>,
    /// Its serial number, as it says.
    pub serial: Option<String>,
    /// What udev finds on it: `gpt`, `ext4`, `LVM2_member`; empty where it finds nothing.
    pub holds: Vec<String>,
    /// It has a vault's partition: one of before, of another appliance, or one whose making was cut off.
    pub has_vault: bool,
    /// That vault is whole. One that is not is made anew where its disk is taken: nothing can be in it yet.
    pub is_whole: bool,
    /// What it is to the appliance.
    pub role: DiskRole,
}

/// What a disk is to the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRole {
    /// It has the appliance itself.
    System,
    /// It has the vault.
    Data,
    /// It is not used.
    Other,
}

/// The system that runs, and the one that is tried next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// Its slot: `a`, `b`; `None` on a disc.
    pub slot: Option<String>,
    /// The moment of its packages: `20261130T000000Z`.
    pub snapshot: String,
    /// An update that was installed since the start, and is tried at the next one.
    pub next: Option<NextSystem>,
}

/// An update that waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextSystem {
    /// landfall's version in it.
    pub version: String,
    /// The moment of its packages.
    pub snapshot: String,
}

/// Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All.
    pub total: Bytes,
    /// What programs can still have.
    pub available: Bytes,
}
