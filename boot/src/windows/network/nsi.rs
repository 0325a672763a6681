//! Rows that the network store of Windows Vista and later (NSI) keeps in `Control\Nsi`: static IPv6 addresses, routes of an
//! adapter, and the hardware addresses that Windows 7 and 8 keep nowhere else.
//!
//! Microsoft describes none of it. The tables' keys are those that Wine's wine/nsi.h gives for the same tables of the
//! interface between user and kernel: the name of a value is the key of a row in hexadecimal digits, its data the rest. They
//! were compared with hives of Windows 7 and 10. Deliberately absent: writing any of it; netsh does that in the started guest.

use super::super::registry::Registry;
use crate::Result;
use crate::network_map::Host;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A row that holds more than this is none of these tables: an adapter's is 3,280 bytes long in Windows 10.
const ROW_AT_MOST: usize = 8192;

/// More rows than this are not a machine's.
const ROWS_AT_MOST: usize = 4096;

/// An adapter among others, as these tables know it: its index and the type of its interface (NET_LUID).
pub type Luid = [u8; 8];

/// NET_LUID: 24 bits that are not used, 24 of the index, 16 of the type.
pub fn luid(index: u32, kind: u32) -> Luid {
    let (index, kind) = (index.to_le_bytes(), kind.to_le_bytes());
    [0, 0, 0, index[0], index[1], index[2], kind[0], kind[1]]
}

/// The rows of the tables.
#[derive(Debug, Default)]
pub struct Rows {
    /// Adapter, address, nothing is sent from it unless asked for.
    pub addresses: Vec<(Luid, Host, bool)>,
    /// Adapter, network, next hop.
    pub routes: Vec<(Luid, IpNet, IpAddr)>,
    /// Adapter's id in lower case, and its hardware address.
    pub macs: Vec<(String, String)>,
}

/// Reads the tables below the control set's `Control\Nsi`.
pub fn read(registry: &Registry, nsi: &str) -> Result<Rows> {
    let mut rows = Rows::default();
    for (module, is_v4) in [("00", true), ("01", false)] {
        let table = |number| format!("{nsi}\\{{eb004a{module}-9b1a-11d4-9123-0050047759bc}}\\{number}");
        for (key, data) in table_rows(registry, &table(10))? {
            rows.addresses.extend(address(&key, &data, is_v4));
        }
        for (key, _) in table_rows(registry, &table(16))? {
            rows.routes.extend(route(&key, is_v4));
        }
    }
    let adapters = format!("{nsi}\\{{eb004a11-9b1a-11d4-9123-0050047759bc}}\\10");
    for (_, data) in table_rows(registry, &adapters)? {
        rows.macs.extend(adapter(&data));
    }
    Ok(rows)
}

fn table_rows(registry: &Registry, key: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let values = registry.values(key)?.into_iter().take(ROWS_AT_MOST);
    let rows = values.filter(|value| value.data.bytes.len() <= ROW_AT_MOST);
    Ok(rows.filter_map(|value| Some((digits(&value.name)?, value.data.bytes))).collect())
}

fn digits(name: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_row = name.len().is_multiple_of(2)
        && name.len() <= 256
        && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_row { None } else { name.as_bytes().chunks_exact(2).map(pair).collect() }
}

fn bytes<const N: usize>(row: &[u8], at: usize) -> Option<[u8; N]> {
    row.get(at..at + N)?.try_into().ok()
}

fn ip(row: &[u8], at: usize, is_v4: bool) -> Option<IpAddr> {
    match is_v4 {
        true => bytes::<4>(row, at).map(|octets| Ipv4Addr::from(octets).into()),
        false => bytes::<16>(row, at).map(|octets| Ipv6Addr::from(octets).into()),
    }
}

/// Key: adapter, address. Data: lifetimes, origins, then at 16 the prefix length and a flag.
fn address(key: &[u8], data: &[u8], is_v4: bool) -> Option<(Luid, Host, bool)> {
    let ip = ip(key, 8, is_v4)?;
    let prefix = *data.get(16)?;
    let is_length = prefix <= if is_v4 { 32 } else { 128 };
    is_length.then_some((bytes(key, 0)?, Host { ip, prefix: Some(prefix) }, data.get(17) == Some(&1)))
}

/// Key: 4 bytes, network, prefix length, filling up to a multiple of 8, adapter twice, next hop.
fn route(key: &[u8], is_v4: bool) -> Option<(Luid, IpNet, IpAddr)> {
    let (length_at, luid_at) = if is_v4 { (8, 24) } else { (20, 40) };
    let network = IpNet::new(ip(key, 4, is_v4)?, *key.get(length_at)?).ok()?;
    Some((bytes(key, luid_at)?, network, ip(key, luid_at + 16, is_v4)?))
}

/// Data: name and description, at 0x410 the adapter's id, at 0x440 its hardware address and at 0x462 its card's, each behind
/// its length.
fn adapter(data: &[u8]) -> Option<(String, String)> {
    let guid = uuid::Uuid::from_bytes_le(bytes(data, 0x410)?);
    let mac = |at| match bytes(data, at)? {
        [6, 0] => super::macs::from_octets(&bytes::<6>(data, at + 2)?),
        _ => None,
    };
    Some((format!("{{{guid}}}"), mac(0x462).or_else(|| mac(0x440))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_ipv6_are_read() {
        // The name that a public account of these tables gives for 2001::1.
        let key = digits("000000090000060020010000000000000000000000000001").unwrap();
        let mut data = vec![0xff; 8];
        data.extend([16, 0, 0, 0, 16, 0, 0, 0, 64, 0, 0, 0]);
        let host = Host { ip: "2001::1".parse().unwrap(), prefix: Some(64) };
        assert_eq!(address(&key, &data, false), Some((luid(9, 6), host, false)));
        data[17] = 1;
        assert!(address(&key, &data, false).unwrap().2);
        data[16] = 129;
        assert_eq!(address(&key, &data, false), None);

        let mut key = vec![0; 4];
        key.extend("2001:db8:5::".parse::<Ipv6Addr>().unwrap().octets());
        key.push(48);
        key.extend([0; 19]);
        key.extend(luid(0x8001, 6));
        key.extend(luid(0x8001, 6));
        key.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        let expected = (luid(0x8001, 6), "2001:db8:5::/48".parse().unwrap(), "fe80::1".parse().unwrap());
        assert_eq!(route(&key, false), Some(expected));
        assert_eq!(luid(0x8001, 6), [0, 0, 0, 1, 0x80, 0, 6, 0]);
        for length in 0..key.len() {
            assert_eq!(route(&key[..length], false), None);
        }
    }

    #[test]
    fn what_is_no_row_is_none() {
        assert_eq!(digits("0g"), None);
        assert_eq!(digits("0"), None);
        assert_eq!(digits("é0"), None);
        assert_eq!(adapter(&[0; 0x47f]), None);
        assert_eq!(address(&[0; 12], &[], true), None);
    }
}
