//! What a network adapter of a Windows guest is, and how it is set up.

use crate::network_map::Host;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// One adapter that Windows knows, there or long gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsInterface {
    /// Its id, in lower case: `{5f3f359e-9d52-4566-9bec-37efdfb25abe}`.
    pub guid: String,
    /// Name of its connection: `Ethernet0`. A person may have written anything into it.
    pub name: String,
    /// What its driver calls it.
    pub description: String,
    /// Instance of its device: `PCI\VEN_8086&DEV_100F&SUBSYS_075015AD&REV_01\4&b70f118&0&0888`.
    pub device: String,
    /// What it stands on.
    pub kind: Kind,
    /// Hardware addresses that Windows keeps for it, each with where that is, the most reliable first.
    pub macs: Vec<(String, &'static str)>,
    /// The address that a person gave it instead of the card's.
    pub override_mac: Option<String>,
    /// PCI bus, device and function.
    pub slot: Option<[u32; 3]>,
    /// When its device was last plugged in, where that is kept (100 ns since 1601).
    pub arrived: Option<u64>,
    /// The last IPv4 address that it had by DHCP.
    pub lease: Option<Ipv4Addr>,
    /// IPv6 is switched off on it, though the machine has it.
    pub is_without_v6: bool,
    /// An earlier first start found it gone and took its addresses away.
    pub is_cleared: bool,
    /// How it is set up.
    pub settings: Settings,
    /// Values that were not understood.
    pub unread: Vec<String>,
}

/// A value that marks the key of an adapter that was found gone.
pub const CLEARED: &str = "LandfallCleared";

/// What an adapter stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A card of the machine.
    #[default]
    Card,
    /// A team of cards (LBFO).
    Team,
    /// A port of a virtual switch of Hyper-V.
    Switch,
    /// Software: loopback, tunnels, VPN clients, Bluetooth. It is the same on any hardware.
    Software,
}

/// An IPv4 address that an adapter has for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// With its prefix length.
    pub host: Host,
    /// Nothing is sent from it unless a program asks for it.
    pub is_skipped_as_source: bool,
}

/// A default gateway, with its metric where that is not automatic.
pub type Gateway = (IpAddr, Option<u32>);

/// A static route: network, next hop, metric where that is not automatic.
pub type Route = (IpNet, IpAddr, Option<u32>);

/// How an adapter is set up. What is automatic is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// IPv4 addresses come by DHCP; `addresses` and `gateways` are empty then.
    pub is_dhcp: bool,
    /// IPv4 addresses.
    pub addresses: Vec<Address>,
    /// IPv4 gateways.
    pub gateways: Vec<Gateway>,
    /// IPv6 addresses.
    pub addresses_v6: Vec<Host>,
    /// Routes that hang on this adapter, default ones of IPv6 among them.
    pub routes: Vec<Route>,
    /// IPv4 name servers.
    pub servers: Vec<IpAddr>,
    /// IPv6 name servers.
    pub servers_v6: Vec<IpAddr>,
    /// WINS servers.
    pub wins: Vec<Ipv4Addr>,
    /// Its addresses are put into DNS: `none`, `both` (under the connection's suffix, too); otherwise as Windows does by
    /// itself.
    pub register: Option<&'static str>,
    /// DNS suffix of the connection.
    pub suffix: Option<String>,
    /// NetBIOS over TCP/IP: 1 on, 2 off.
    pub netbios: Option<u32>,
    /// Metric of the interface.
    pub metric: Option<u32>,
    /// Largest packet.
    pub mtu: Option<u32>,
}

impl Settings {
    /// True where a new adapter is set up like this by itself.
    pub fn is_automatic(&self) -> bool {
        *self == Settings { is_dhcp: true, ..Settings::default() }
    }
    /// True where it has addresses of its own.
    pub fn is_static(&self) -> bool {
        !self.addresses.is_empty() || !self.addresses_v6.is_empty()
    }
}

impl WindowsInterface {
    /// The addresses that it has for good, of both families.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        let hosts = self.settings.addresses.iter().map(|address| address.host);
        hosts.chain(self.settings.addresses_v6.iter().copied())
    }
    /// Its name in sentences.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { &self.guid } else { &self.name }
    }
    /// Where its addresses lie, for reports.
    pub fn place(&self) -> String {
        format!("Services\\Tcpip\\Parameters\\Interfaces\\{}", self.guid)
    }
}
