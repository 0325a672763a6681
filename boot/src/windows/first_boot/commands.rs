//! The commands that set up one adapter: netsh by the adapter's index, which the script has in `%IDX%`, and values of the
//! registry by its id, which it has in `%GUID%`.
//!
//! Everything that is put into them is an address, a number or a word that was checked to hold letters, digits and `-._` only.

use super::Adapter;
use crate::network_map::Host;
use crate::windows::draft::Version;
use ipnet::Ipv4Net;
use std::fmt::Write;
use std::net::IpAddr;

/// What an adapter needs.
#[derive(Debug, Default)]
pub struct Commands {
    /// Without them the machine is not reachable as it was: tried again. Arguments of netsh.
    pub must: Vec<String>,
    /// They may fail where they are done already. Arguments of netsh.
    pub soft: Vec<String>,
    /// Either of two: the first makes it, the second is for one that is there already. Arguments of netsh.
    pub either: Vec<(String, String)>,
    /// Tried once; where one fails, the adapter is only partly set up. Arguments of netsh.
    pub wants: Vec<String>,
    /// Tried once in the same way: keys below Services, names, types and data.
    pub values: Vec<String>,
}

/// The commands for an adapter. `validate=no` and lists of servers by index are of Windows 7.
pub fn of(adapter: &Adapter, version: Version) -> Commands {
    let mut commands = Commands::default();
    let set = &adapter.settings;
    match set.addresses.split_first() {
        Some((first, others)) => {
            let mut line =
                format!("interface ipv4 set address name=%IDX% source=static {}", dotted(first.host));
            let mut gateways = set.gateways.iter();
            match gateways.next() {
                Some((ip, metric)) => line.push_str(&gateway(*ip, *metric)),
                None => line.push_str(" gateway=none"),
            }
            commands.must.push(line);
            for one in others {
                let mut line = format!("interface ipv4 add address name=%IDX% {}", dotted(one.host));
                if one.is_skipped_as_source {
                    line.push_str(" skipassource=true");
                }
                commands.must.push(line);
            }
            for (ip, metric) in gateways {
                commands.must.push(format!("interface ipv4 add address name=%IDX%{}", gateway(*ip, *metric)));
            }
        }
        None => commands.soft.push("interface ipv4 set address name=%IDX% source=dhcp".into()),
    }
    servers(&mut commands, "ipv4", &set.servers, set.register, version);
    servers(&mut commands, "ipv6", &set.servers_v6, None, version);
    if set.servers.is_empty() {
        let register = set.register.map(|how| format!(" register={how}")).unwrap_or_default();
        commands.soft.push(format!("interface ipv4 set dnsservers name=%IDX% source=dhcp{register}"));
    }
    for (at, server) in set.wins.iter().enumerate() {
        commands.wants.push(match at {
            0 => format!("interface ipv4 set winsservers name=%IDX% source=static address={server}"),
            _ => format!("interface ipv4 add winsservers name=%IDX% address={server} index={}", at + 1),
        });
    }
    for host in &set.addresses_v6 {
        let ends = format!("address interface=%IDX% address={}/{}", host.ip, host.prefix.unwrap_or(64));
        commands.either.push((format!("interface ipv6 add {ends}"), format!("interface ipv6 set {ends}")));
    }
    for (network, next, metric) in &set.routes {
        let family = if network.addr().is_ipv4() { "ipv4" } else { "ipv6" };
        let mut ends = format!("route prefix={network} interface=%IDX% nexthop={next}");
        if let Some(metric) = metric {
            let _ = write!(ends, " metric={metric}");
        }
        commands
            .either
            .push((format!("interface {family} add {ends}"), format!("interface {family} set {ends}")));
    }
    if let Some(metric) = set.metric {
        commands.wants.push(format!("interface ipv4 set interface interface=%IDX% metric={metric}"));
    }
    if let Some(mtu) = set.mtu {
        commands
            .wants
            .push(format!("interface ipv4 set subinterface interface=%IDX% mtu={mtu} store=persistent"));
    }
    if let Some(suffix) = &set.suffix {
        commands.values.push(format!("\"%TCPIP%\\%GUID%\" /v Domain /t REG_SZ /d {suffix}"));
    }
    if let Some(option) = set.netbios {
        commands.values.push(format!("\"%NETBT%\\Tcpip_%GUID%\" /v NetbiosOptions /t REG_DWORD /d {option}"));
    }
    commands
}

fn dotted(host: Host) -> String {
    let mask = match (host.ip, host.prefix) {
        (IpAddr::V4(ip), Some(prefix)) => Ipv4Net::new(ip, prefix).map(|net| net.netmask()).ok(),
        _ => None,
    };
    let mask = mask.unwrap_or(std::net::Ipv4Addr::BROADCAST);
    format!("address={} mask={mask}", host.ip)
}

fn gateway(ip: IpAddr, metric: Option<u32>) -> String {
    let metric = metric.map(|metric| format!(" gwmetric={metric}")).unwrap_or_default();
    format!(" gateway={ip}{metric}")
}

fn servers(
    commands: &mut Commands,
    family: &str,
    servers: &[IpAddr],
    register: Option<&str>,
    version: Version,
) {
    // Without it netsh asks each server first, which may not be there yet.
    let unasked = if version >= Version::SEVEN { " validate=no" } else { "" };
    for (at, server) in servers.iter().enumerate() {
        let register = register.map(|how| format!(" register={how}")).unwrap_or_default();
        commands.must.push(match at {
            0 => format!(
                "interface {family} set dnsservers name=%IDX% source=static address={server}{register}{unasked}"
            ),
            _ => format!(
                "interface {family} add dnsservers name=%IDX% address={server} index={}{unasked}",
                at + 1
            ),
        });
    }
}
