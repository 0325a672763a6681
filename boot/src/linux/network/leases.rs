//! What leases remember: the hardware address of the card that had a name when it last asked for an address. Evidence
//! where the configuration has none; a card that is gone is recognised by its address.
//!
//! dhclient and systemd-networkd keep nothing with a hardware address on disk, except dhclient where it was told to send one.

use super::{Given, Reader, is_name, mac};
use crate::Result;
use crate::tree::GuestTreeExt;
use landfall_image::Bytes;

/// A lease is a message of some hundred bytes, dhclient's file a list of them.
const LEASE_AT_MOST: Bytes = Bytes::mib(1);

/// So many leases are looked at in a folder.
const LEASES_AT_MOST: usize = 256;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let folders = [
        ("/var/lib/NetworkManager", Kind::NetworkManager),
        ("/var/lib/dhcp", Kind::Dhclient),
        ("/var/lib/dhclient", Kind::Dhclient),
        ("/var/lib/dhcp3", Kind::Dhclient),
        ("/var/lib/dhcpcd", Kind::Dhcpcd),
        ("/var/lib/dhcpcd5", Kind::Dhcpcd),
    ];
    for (folder, kind) in folders {
        let mut names = reader.tree.names(folder)?;
        names.retain(|name| name.ends_with(".lease") || name.ends_with(".leases"));
        names.truncate(LEASES_AT_MOST);
        for file in names {
            let path = format!("{folder}/{file}");
            let Some(bytes) = reader.tree.read(&path, LEASE_AT_MOST)? else { continue };
            let found = match kind {
                Kind::NetworkManager => network_manager(&file, &bytes),
                Kind::Dhclient => dhclient(&bytes),
                Kind::Dhcpcd => dhcpcd(&file, &bytes),
            };
            if let Some((name, mac)) = found.filter(|(name, _)| is_name(name)) {
                reader.network.seen.push(Given { name, mac, proof: path, is_pinned: false });
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    NetworkManager,
    Dhclient,
    Dhcpcd,
}

/// `internal-UUID-ens192.lease` with `CLIENTID=01005056…`: type 1, then the address.
fn network_manager(file: &str, bytes: &[u8]) -> Option<(String, String)> {
    const UUID_LENGTH: usize = 36;
    let name =
        file.strip_suffix(".lease")?.strip_prefix("internal-")?.get(UUID_LENGTH..)?.strip_prefix('-')?;
    let text = std::str::from_utf8(bytes).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("CLIENTID="))?.trim();
    Some((name.to_owned(), by_client_id(id)?))
}

/// The last `lease { interface "ens192"; … option dhcp-client-identifier 1:0:50:56:…; }`.
fn dhclient(bytes: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let last = text.rsplit("lease {").next()?;
    let value = |key: &str| last.split(';').find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let name = value("interface ")?.trim_matches('"').to_owned();
    Some((name, by_client_id(value("option dhcp-client-identifier ")?)?))
}

/// `01:00:50:56:aa:bb:cc`, with or without colons and leading zeros.
fn by_client_id(id: &str) -> Option<String> {
    let octets: Vec<String> = match id.contains(':') {
        true => id.split(':').map(|octet| format!("{octet:0>2}")).collect(),
        false if id.is_ascii() => {
            id.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect()
        }
        false => return None,
    };
    let (kind, address) = octets.split_first()?;
    (kind == "01").then(|| mac(&address.join(":")))?
}

/// `ens192.lease` is the server's answer as it came: hardware type and length, then `chaddr` (RFC 2131, section 2).
fn dhcpcd(file: &str, bytes: &[u8]) -> Option<(String, String)> {
    const CHADDR: std::ops::Range<usize> = 28..34;
    let name = file.strip_suffix(".lease")?;
    let name = name.strip_prefix("dhcpcd-").unwrap_or(name);
    // A reply over Ethernet.
    if bytes.get(..3)? != [2, 1, 6] {
        return None;
    }
    let octets: Vec<String> = bytes.get(CHADDR)?.iter().map(|octet| format!("{octet:02x}")).collect();
    Some((name.to_owned(), mac(&octets.join(":"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_remembers_in_its_own_way() {
        let expected = Some(("ens192".to_owned(), "00:50:56:00:00:0a".to_owned()));
        let file = "internal-2d1a6ee1-27ba-4a5a-8b2a-5c5e6d0e8f1f-ens192.lease";
        assert_eq!(
            network_manager(file, b"# private\nADDRESS=10.1.0.5\nCLIENTID=0100505600000a\n"),
            expected
        );
        assert_eq!(network_manager(file, b"ADDRESS=10.1.0.5\nCLIENTID=ff00505600000a\n"), None);
        assert_eq!(network_manager("internal-short-ens192.lease", b"CLIENTID=0100505600000a\n"), None);
        let lease = b"lease {\n  interface \"eth7\";\n}\nlease {\n  interface \"ens192\";\n  option dhcp-client-identifier 1:0:50:56:0:0:a;\n}\n";
        assert_eq!(dhclient(lease), expected);
        assert_eq!(dhclient(b"lease {\n  interface \"ens192\";\n}\n"), None);
        let mut message = vec![2, 1, 6, 0];
        message.resize(28, 0);
        message.extend([0, 0x50, 0x56, 0, 0, 0x0a]);
        assert_eq!(dhcpcd("ens192.lease", &message), expected);
        assert_eq!(dhcpcd("dhcpcd-ens192.lease", &message), expected);
        for length in 0..message.len() {
            assert_eq!(dhcpcd("ens192.lease", &message[..length]), None);
        }
    }
}
