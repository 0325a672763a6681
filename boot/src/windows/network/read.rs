//! Adapters from SYSTEM: what they are, on which card, and how each is set up (Microsoft, "TCP/IP and NBT configuration
//! parameters for Windows"; the rest as hives of Windows 7 and 10 have it).
//!
//! ```text
//! Control\Class\{4d36e972-…}\NNNN            driver, id of the adapter, device
//! Control\Network\{4D36E972-…}\{GUID}        name of the connection
//! Enum\DEVICE                                slot, last arrival
//! Services\Tcpip\Parameters\Interfaces       IPv4
//! Services\Tcpip6\Parameters\Interfaces      name servers of IPv6
//! Control\Nsi                                addresses and routes of IPv6
//! Services\NetBT\Parameters\Interfaces       NetBIOS and WINS
//! ```
//! Deliberately absent: authentication (802.1X), what a driver of the old card was set to (VLAN numbers, offloads), QoS: they
//! belong to the driver, and another card has another.

use super::super::draft::System;
use super::super::registry::Registry;
use super::macs;
use super::nsi::{self, Luid, Rows};
use super::settings::{Address, CLEARED, Kind, Route, Settings, WindowsInterface};
use crate::Result;
use crate::network_map::Host;
use ipnet::{IpNet, Ipv4Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// A machine has tens of adapters, most of them software; a hostile hive could have a million.
const ADAPTERS_AT_MOST: usize = 512;
/// Of addresses, servers and routes in one place.
const VALUES_AT_MOST: usize = 512;
/// Class of network adapters.
const NET: &str = "{4d36e972-e325-11ce-bfc1-08002be10318}";
/// Property of a device: its last arrival.
const ARRIVED: &str = "{83da6326-97a6-4088-9453-a1923f573b29}\\0066";

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Network {
    /// Every adapter that has a connection, by its id.
    pub interfaces: Vec<WindowsInterface>,
    /// Routes of the machine (`route -p add`), in their order.
    pub routes: Vec<Route>,
    /// DNS suffixes that are searched.
    pub search: Vec<String>,
    /// What of the machine's own values was not understood.
    pub unread: Vec<String>,
}

/// A driver's key.
#[derive(Default)]
struct Driver {
    description: String,
    component: String,
    device: String,
    override_mac: Option<String>,
    luid: Option<Luid>,
}

/// Reads all of them.
pub fn read(registry: &Registry, system: &System) -> Result<Network> {
    let mut network = Network::default();
    let drivers = drivers(registry, system)?;
    let rows = nsi::read(registry, &system.key("Control\\Nsi"))?;
    let connections = system.key(&format!("Control\\Network\\{NET}"));
    let bound = |service: &str| registry.texts(&system.key(&format!("Services\\{service}\\Linkage")), "Bind");
    let (v4, v6) = (bound("Tcpip")?, bound("Tcpip6")?);
    let is_in =
        |list: &[String], guid: &str| list.iter().any(|name| name.to_ascii_lowercase().ends_with(guid));
    let names: Vec<String> =
        registry.subkeys(&connections)?.into_iter().filter(|name| is_guid(name)).collect();
    if names.len() > ADAPTERS_AT_MOST {
        network.unread.push(format!("there are {} adapters, and {ADAPTERS_AT_MOST} were read", names.len()));
    }
    for id in names.iter().take(ADAPTERS_AT_MOST) {
        let connection = format!("{connections}\\{id}\\Connection");
        let guid = id.to_ascii_lowercase();
        let no_driver = Driver::default();
        let driver = drivers.get(&guid).unwrap_or(&no_driver);
        let mut interface = WindowsInterface {
            name: registry.text(&connection, "Name")?.unwrap_or_default(),
            description: driver.description.clone(),
            device: match registry.text(&connection, "PnpInstanceID")? {
                Some(device) => device,
                None => driver.device.clone(),
            },
            override_mac: driver.override_mac.clone(),
            is_without_v6: is_in(&v4, &guid) && !v6.is_empty() && !is_in(&v6, &guid),
            guid,
            ..WindowsInterface::default()
        };
        interface.kind = kind(&driver.component, &interface.device);
        if interface.kind != Kind::Software {
            hardware(registry, system, &rows, &mut interface)?;
        }
        settings(registry, system, &rows, driver.luid, &mut interface)?;
        network.interfaces.push(interface);
    }
    let parameters = system.key("Services\\Tcpip\\Parameters");
    let routes = registry.values(&format!("{parameters}\\PersistentRoutes"))?;
    if routes.len() > VALUES_AT_MOST {
        let beyond = format!("of {} persistent routes what follows the first {VALUES_AT_MOST}", routes.len());
        network.unread.push(beyond);
    }
    for value in routes.into_iter().take(VALUES_AT_MOST) {
        match persistent_route(&value.name) {
            Some(route) => network.routes.push(route),
            None => network.unread.push(format!("the persistent route {:?}", value.name)),
        }
    }
    // `route -p add` leaves a row with the adapter, too.
    let is_of_machine = |route: &Route| network.routes.iter().any(|one| (one.0, one.1) == (route.0, route.1));
    for interface in &mut network.interfaces {
        interface.settings.routes.retain(|route| !is_of_machine(route));
    }
    let list = registry.text(&parameters, "SearchList")?.unwrap_or_default();
    network.search = words(&list).map(str::to_owned).collect();
    Ok(network)
}

fn is_guid(name: &str) -> bool {
    let inner = name.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    inner.is_some_and(|inner| inner.len() == 36 && uuid::Uuid::try_parse(inner).is_ok())
}

fn drivers(registry: &Registry, system: &System) -> Result<BTreeMap<String, Driver>> {
    let class = system.key(&format!("Control\\Class\\{NET}"));
    let mut found = BTreeMap::new();
    for number in registry.subkeys(&class)?.into_iter().take(ADAPTERS_AT_MOST) {
        let key = format!("{class}\\{number}");
        let Some(guid) = registry.text(&key, "NetCfgInstanceId")? else { continue };
        let text = |name| -> Result<String> { Ok(registry.text(&key, name)?.unwrap_or_default()) };
        let index = registry.dword(&key, "NetLuidIndex")?;
        let luid = index.zip(registry.dword(&key, "*IfType")?).map(|(index, kind)| nsi::luid(index, kind));
        let driver = Driver {
            description: text("DriverDesc")?,
            component: text("ComponentId")?.to_ascii_lowercase(),
            device: text("DeviceInstanceID")?,
            override_mac: macs::from_text(&text("NetworkAddress")?),
            luid,
        };
        found.insert(guid.to_ascii_lowercase(), driver);
    }
    Ok(found)
}

fn kind(component: &str, device: &str) -> Kind {
    let device = device.to_ascii_uppercase();
    let is_card = ["PCI\\", "VMBUS\\", "XENVIF\\", "XENBUS\\", "XEN\\", "XENNET\\"];
    if component.contains("ms_implat_mp") || device.contains("MS_IMPLAT_MP") {
        Kind::Team
    } else if component.contains("vms_mp") || device.contains("VMS_MP") {
        Kind::Switch
    } else if is_card.iter().any(|bus| device.starts_with(bus)) {
        Kind::Card
    } else {
        Kind::Software
    }
}

fn hardware(
    registry: &Registry,
    system: &System,
    rows: &Rows,
    interface: &mut WindowsInterface,
) -> Result<()> {
    let setup = system.key(&format!("Control\\NetworkSetup2\\Interfaces\\{}\\Kernel", interface.guid));
    let stored = rows.macs.iter().find(|(guid, _)| *guid == interface.guid).map(|(_, mac)| mac.clone());
    let found = [
        (macs::from_setup(registry, &setup)?, "Control\\NetworkSetup2"),
        (stored, "Control\\Nsi"),
        (macs::from_device(&interface.device), "the serial number of its device"),
    ];
    interface.macs.extend(found.into_iter().filter_map(|(mac, proof)| Some((mac?, proof))));
    if interface.device.is_empty() {
        return Ok(());
    }
    let key = system.key(&format!("Enum\\{}", interface.device));
    interface.slot = registry.text(&key, "LocationInformation")?.and_then(|text| slot(&text));
    let arrived = registry.value(&format!("{key}\\Properties\\{ARRIVED}"), "")?;
    interface.arrived =
        arrived.and_then(|data| data.bytes.try_into().ok()).map(u64::from_le_bytes).filter(|time| *time > 0);
    Ok(())
}

/// `…;PCI bus %1, device %2, function %3;(11,0,0)`, in every language.
fn slot(text: &str) -> Option<[u32; 3]> {
    let (_, numbers) = text.strip_suffix(')')?.rsplit_once('(')?;
    let numbers: Vec<u32> = numbers.split(',').map_while(|number| number.trim().parse().ok()).collect();
    numbers.try_into().ok()
}

/// Names and addresses that commas or blanks part.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', ';']).filter(|word| !word.is_empty()).take(VALUES_AT_MOST)
}

/// Values of one adapter's key, and what of them is not understood.
struct Values<'a> {
    registry: &'a Registry,
    key: String,
    unread: &'a mut Vec<String>,
}

impl Values<'_> {
    /// The texts of a list, each with a place of its own.
    fn list(&mut self, name: &str) -> Result<Vec<String>> {
        let texts = self.registry.texts(&self.key, name)?;
        if texts.len() > VALUES_AT_MOST {
            self.unread.push(format!("{name} from place {} of {} on", VALUES_AT_MOST + 1, texts.len()));
        }
        Ok(texts.iter().map(|text| text.trim().to_owned()).take(VALUES_AT_MOST).collect())
    }
    /// Words of a text that stand for a list.
    fn words(&self, name: &str) -> Result<Vec<String>> {
        let text = self.registry.text(&self.key, name)?.unwrap_or_default();
        Ok(words(&text).map(str::to_owned).collect())
    }
    fn all<T: FromStr>(&mut self, name: &str, texts: Vec<String>) -> Vec<T> {
        let mut found = Vec::new();
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            match text.parse() {
                Ok(value) => found.push(value),
                Err(_) => self.unread.push(format!("{name} {text:?}")),
            }
        }
        found
    }
    fn number(&self, name: &str) -> Result<Option<u32>> {
        self.registry.dword(&self.key, name)
    }
}

fn settings(
    registry: &Registry,
    system: &System,
    rows: &Rows,
    luid: Option<Luid>,
    interface: &mut WindowsInterface,
) -> Result<()> {
    let guid = interface.guid.clone();
    let key = |service: &str| system.key(&format!("Services\\{service}\\Parameters\\Interfaces\\{guid}"));
    let mut unread = Vec::new();
    let mut set = Settings::default();
    let mut values = Values { registry, key: key("Tcpip"), unread: &mut unread };
    // An adapter whose key says nothing has never been set up.
    set.is_dhcp = values.number("EnableDHCP")?.unwrap_or(1) != 0;
    interface.is_cleared = values.number(CLEARED)? == Some(1);
    interface.lease = registry.text(&values.key, "DhcpIPAddress")?.and_then(|text| text.parse().ok());
    if !set.is_dhcp {
        static_v4(&mut values, rows, luid, &mut set)?;
    }
    let servers = values.words("NameServer")?;
    set.servers = values.all::<IpAddr>("NameServer", servers);
    set.suffix = registry.text(&values.key, "Domain")?.filter(|text| !text.is_empty());
    if set.suffix.as_deref().is_some_and(|suffix| !is_suffix(suffix)) {
        values.unread.push(format!("Domain {:?}", set.suffix.take().unwrap_or_default()));
    }
    set.register = match (values.number("RegistrationEnabled")?, values.number("RegisterAdapterName")?) {
        (Some(0), _) => Some("none"),
        (_, Some(1)) => Some("both"),
        _ => None,
    };
    set.metric = values.number("InterfaceMetric")?.filter(|metric| (1..=9999).contains(metric));
    set.mtu = values.number("MTU")?.filter(|mtu| (576..=65535).contains(mtu));
    values.key = key("Tcpip6");
    let servers = values.words("NameServer")?;
    set.servers_v6 =
        values.all::<std::net::Ipv6Addr>("NameServer", servers).into_iter().map(IpAddr::V6).collect();
    values.key = system.key(&format!("Services\\NetBT\\Parameters\\Interfaces\\Tcpip_{guid}"));
    set.netbios = values.number("NetbiosOptions")?.filter(|option| matches!(option, 1 | 2));
    let wins = values.list("NameServerList")?;
    set.wins = values.all::<Ipv4Addr>("NameServerList", wins);
    if let Some(luid) = luid {
        let own = rows.addresses.iter().filter(|(owner, host, _)| *owner == luid && host.ip.is_ipv6());
        set.addresses_v6 = own.map(|(_, host, _)| *host).take(VALUES_AT_MOST).collect();
        let own = rows.routes.iter().filter(|(owner, network, next)| {
            // The gateways of IPv4 are values of the adapter, too.
            *owner == luid && !next.is_unspecified() && (network.addr().is_ipv6() || network.prefix_len() > 0)
        });
        set.routes = own.map(|(_, network, next)| (*network, *next, None)).take(VALUES_AT_MOST).collect();
    }
    interface.settings = set;
    interface.unread.extend(unread);
    Ok(())
}

fn static_v4(values: &mut Values<'_>, rows: &Rows, luid: Option<Luid>, set: &mut Settings) -> Result<()> {
    let masks = values.list("SubnetMask")?;
    let is_skipped = |ip: Ipv4Addr| {
        let mut rows = rows.addresses.iter();
        rows.any(|(owner, host, skips)| Some(*owner) == luid && host.ip == IpAddr::V4(ip) && *skips)
    };
    for (at, text) in values.list("IPAddress")?.iter().enumerate() {
        let mask: Option<Ipv4Addr> = masks.get(at).and_then(|mask| mask.parse().ok());
        let net = text.parse().ok().zip(mask).and_then(|(ip, mask)| Ipv4Net::with_netmask(ip, mask).ok());
        match net {
            Some(net) if net.addr().is_unspecified() => {}
            Some(net) => set.addresses.push(Address {
                host: Host { ip: net.addr().into(), prefix: Some(net.prefix_len()) },
                is_skipped_as_source: is_skipped(net.addr()),
            }),
            None => values.unread.push(format!("IPAddress {text:?} with SubnetMask {:?}", masks.get(at))),
        }
    }
    let mut metrics = values.list("DefaultGatewayMetric")?;
    if metrics.is_empty() {
        metrics = values.list("GatewayCostMetric")?;
    }
    // Each has its metric at the same place.
    for (at, gateway) in values.list("DefaultGateway")?.into_iter().enumerate() {
        let metric = metrics.get(at).and_then(|metric| metric.parse().ok());
        for gateway in values.all::<Ipv4Addr>("DefaultGateway", vec![gateway]) {
            if !gateway.is_unspecified() {
                set.gateways.push((gateway.into(), metric.filter(|metric| (1..=9999).contains(metric))));
            }
        }
    }
    Ok(())
}

/// A DNS suffix that can stand in a command.
pub(super) fn is_suffix(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.len() <= 253 && text.bytes().all(is_plain) && !text.starts_with('-')
}

/// `10.9.0.0,255.255.0.0,10.1.0.254,1`; -1 is an automatic metric.
fn persistent_route(name: &str) -> Option<Route> {
    let mut parts = name.split(',').map(str::trim);
    let (ip, mask) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let network = Ipv4Net::with_netmask(ip, mask).ok()?.trunc();
    let next: Ipv4Addr = parts.next()?.parse().ok()?;
    let metric =
        parts.next().and_then(|metric| metric.parse().ok()).filter(|metric| (1..=9999).contains(metric));
    Some((IpNet::V4(network), next.into(), metric))
}
