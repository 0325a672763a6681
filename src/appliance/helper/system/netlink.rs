//! Addresses and routers from the kernel (rtnetlink(7), RFC 3549): dumps of `RTM_GETADDR` and `RTM_GETROUTE`.
//!
//! ```text
//! nlmsghdr   length u32, type u16, flags u16, sequence u32, port u32
//! ifaddrmsg  family u8, prefix u8, flags u8, scope u8, index u32
//! rtmsg      family u8, dst_len u8, src_len u8, tos u8, table u8, protocol u8, scope u8, type u8, flags u32
//! rtattr     length u16, type u16, value; each begins at a multiple of 4
//! ```
//! Numbers are the machine's own. Deliberately absent: changes, which are networkd's.

use ipnet::IpNet;
use landfall_image::{Error, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};
use std::net::IpAddr;
use std::time::Duration;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER: usize = 16;
/// The main table (`RT_TABLE_MAIN`).
const MAIN: u8 = 254;
/// Packets of one dump: routers of a site with full tables are not read to their end.
const PACKETS: usize = 4096;

/// The addresses of a card, by the card's number.
pub(super) type Address = (u32, IpNet);

/// All addresses.
pub(super) fn addresses() -> Result<Vec<Address>> {
    dump(RTM_GETADDR, &[0; 8], RTM_NEWADDR, address)
}

/// Routers of default routes, the best first as the kernel has them, each once.
pub(super) fn gateways() -> Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = Vec::new();
    for gateway in dump(RTM_GETROUTE, &[0; 12], RTM_NEWROUTE, gateway)? {
        if !found.contains(&gateway) {
            found.push(gateway);
        }
    }
    Ok(found)
}

fn dump<T>(ask: u16, body: &[u8], wanted: u16, read: fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
    let failed = |error: rustix::io::Errno| {
        Error::io("the kernel does not say its addresses and routes", error.into())
    };
    // Protocol 0 is NETLINK_ROUTE.
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map_err(failed)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))
        .map_err(failed)?;
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(ask.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend(1_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(body);
    send(&socket, &request, SendFlags::empty()).map_err(failed)?;
    let mut found = Vec::new();
    let mut packet = vec![0; 64 << 10];
    for _ in 0..PACKETS {
        let (count, _) = recv(&socket, packet.as_mut_slice(), RecvFlags::empty()).map_err(failed)?;
        for (kind, body) in messages(packet.get(..count).unwrap_or_default()) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    let error = std::io::Error::from_raw_os_error(code.saturating_neg());
                    return Err(Error::io("the kernel does not say its addresses and routes", error));
                }
                _ if kind == wanted => found.extend(read(body)),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Kind and body of each message. Ends where one is not whole.
fn messages(mut packet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*packet.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*packet.get(4..)?.first_chunk()?);
        let body = packet.get(HEADER..length)?;
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Kind and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits are flags.
        Some((kind & 0x3fff, value))
    })
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        AF_INET6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

fn address(body: &[u8]) -> Option<Address> {
    let (&[family, prefix, _, _, a, b, c, d], rest) = body.split_first_chunk::<8>()?;
    // Of a link between two machines the other one's address comes first.
    let value = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let own = ip(family, value(IFA_LOCAL).or_else(|| value(IFA_ADDRESS))?)?;
    Some((u32::from_ne_bytes([a, b, c, d]), IpNet::new(own, prefix).ok()?))
}

fn gateway(body: &[u8]) -> Option<IpAddr> {
    let (&[family, to, _, _, table, ..], rest) = body.split_first_chunk::<12>()?;
    let found = attributes(rest).find(|(kind, _)| *kind == RTA_GATEWAY);
    ip(family, found.filter(|_| to == 0 && table == MAIN)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::process::Command;

    /// What iproute2 reads of the same kernel.
    #[test]
    fn addresses_and_routers_are_those_that_ip_shows() {
        let ask = |args: &[&str]| -> Option<serde_json::Value> {
            let out = Command::new("ip").args(args).output().ok()?;
            serde_json::from_slice(&out.stdout).ok()
        };
        let Some(shown) = ask(&["-j", "address"]) else {
            eprintln!("SKIPPED: ip is not here (Debian: iproute2)");
            return;
        };
        let mut wanted = BTreeSet::new();
        for link in shown.as_array().unwrap() {
            for address in link["addr_info"].as_array().into_iter().flatten() {
                let text = format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]);
                wanted.insert((
                    u32::try_from(link["ifindex"].as_u64().unwrap()).unwrap(),
                    text.parse().unwrap(),
                ));
            }
        }
        assert_eq!(addresses().unwrap().into_iter().collect::<BTreeSet<_>>(), wanted);
        assert!(!wanted.is_empty());
        let mut routers = BTreeSet::new();
        for family in ["-4", "-6"] {
            for route in ask(&[family, "-j", "route", "show", "default"]).unwrap().as_array().unwrap() {
                routers.extend(route["gateway"].as_str().map(|text| text.parse::<IpAddr>().unwrap()));
            }
        }
        assert_eq!(gateways().unwrap().into_iter().collect::<BTreeSet<_>>(), routers);
    }

    proptest! {
        #[test]
        fn no_packet_panics(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, body) in messages(&packet).take(1000) {
                let _ = (address(body), gateway(body));
            }
            let _ = (address(&packet), gateway(&packet));
        }
    }
}
