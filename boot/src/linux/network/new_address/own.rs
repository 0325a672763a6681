//! Addresses that the guest sets by itself, whatever the card has: NetworkManager's clones, `MACADDR` and `LLADDR` of ifcfg files,
//! `hwaddress` of ifupdown, `macaddress` of netplan, `MACAddress` of systemd's `[Link]`. One that was the card's old one is
//! renewed by then; any other is the administrator's choice and stays, and is told: the machine is seen with it at both sites.
//!
//! Deliberately absent: addresses of software devices in `.netdev` files.

use super::super::netplan::KINDS;
use super::super::settings::{self, Setting};
use super::super::yaml::{self, Value};
use super::Renewal;
use crate::Result;
use crate::linux::draft::Draft;
use crate::linux::{mac, text};
use std::collections::BTreeSet;

/// Says which addresses a file sets that no card has.
pub(super) fn tell(draft: &mut Draft<'_>, renewal: &Renewal, path: &str) -> Result<()> {
    let Some(file) = draft.read(path)? else { return Ok(()) };
    for address in set_by(path, &file) {
        if renewal.pairs.iter().all(|(_, new)| *new != address) {
            draft.find(
                "linux-nic-old-address",
                format!("{path} gives an interface the address {address}, which it keeps at the target."),
                "Take it out, where the machine is to be known by the addresses of its cards there.",
            );
        }
    }
    Ok(())
}

/// Every address that a file sets.
fn set_by(path: &str, file: &[u8]) -> BTreeSet<String> {
    let ends = |end: &str| path.ends_with(end);
    let settings = |found: Vec<Setting>, is: fn(&Setting) -> bool| {
        let values = found.into_iter().filter(is).filter_map(|one| settings::str_at(file, &one.value));
        values.filter_map(mac::normal).collect()
    };
    if ends(".link") || ends(".network") || ends(".conf") && path.contains("/systemd/network/") {
        return settings(settings::ini(file), |one| {
            one.section == "link" && one.key.eq_ignore_ascii_case("macaddress")
        });
    }
    if ends(".yaml") {
        let root = std::str::from_utf8(file).ok().and_then(|text| yaml::parse(text).ok());
        return root.as_ref().map(netplan).unwrap_or_default();
    }
    if path.contains("/ifcfg-") {
        return settings(settings::shell(file), |one| {
            ["MACADDR", "LLADDR"].iter().any(|key| one.key.eq_ignore_ascii_case(key))
        });
    }
    if path.contains("/network/interfaces") {
        let words = |body: &[u8]| {
            let body = std::str::from_utf8(body).ok()?;
            let mut words = body.split_whitespace();
            (words.next()? == "hwaddress").then(|| words.find_map(mac::normal))?
        };
        return text::lines(file).filter_map(|(body, _)| words(body)).collect();
    }
    settings(settings::ini(file), |one| one.key.to_ascii_lowercase().ends_with("cloned-mac-address"))
}

fn netplan(root: &Value) -> BTreeSet<String> {
    let kinds = root.get("network").map_or(&[][..], Value::entries);
    let kinds = kinds.iter().filter(|kind| KINDS.contains(&kind.key.as_str()));
    let devices = kinds.flat_map(|kind| kind.value.entries());
    let set = devices.filter_map(|device| device.value.get("macaddress").and_then(Value::text));
    set.filter_map(mac::normal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_told_from_what_is_looked_for() {
        for (path, text, expected) in [
            (
                "/etc/systemd/network/a.network",
                "[Match]\nMACAddress=00:50:56:00:00:01\n[Link]\nMACAddress=0200.0000.0001\n",
                Some("02:00:00:00:00:01"),
            ),
            (
                "/etc/systemd/network/a.network.d/x.conf",
                "[Link]\nMACAddress=02:00:00:00:00:01\n",
                Some("02:00:00:00:00:01"),
            ),
            (
                "/etc/systemd/network/a.link",
                "[Match]\nMACAddress=00:50:56:00:00:01\n[Link]\nMACAddressPolicy=none\n",
                None,
            ),
            (
                "/etc/netplan/a.yaml",
                "network: {ethernets: {a: {match: {macaddress: '00:50:56:00:00:01'}, macaddress: '02:00:00:00:00:01'}}}",
                Some("02:00:00:00:00:01"),
            ),
            ("/etc/netplan/a.yaml", "network: [", None),
            (
                "/etc/sysconfig/network-scripts/ifcfg-a",
                "HWADDR=00:50:56:00:00:01\nMACADDR=02-00-00-00-00-01\n",
                Some("02:00:00:00:00:01"),
            ),
            ("/etc/sysconfig/network/ifcfg-a", "LLADDR='02:00:00:00:00:01'\n", Some("02:00:00:00:00:01")),
            (
                "/etc/network/interfaces.d/a",
                "iface a inet dhcp\n hwaddress ether 02:00:00:00:00:01\n",
                Some("02:00:00:00:00:01"),
            ),
            (
                "/etc/NetworkManager/system-connections/a",
                "[ethernet]\nmac-address=00:50:56:00:00:01\ncloned-mac-address=02:00:00:00:00:01\n",
                Some("02:00:00:00:00:01"),
            ),
            (
                "/etc/NetworkManager/conf.d/a.conf",
                "[connection]\nethernet.cloned-mac-address=preserve\n",
                None,
            ),
        ] {
            let found: Vec<String> = set_by(path, text.as_bytes()).into_iter().collect();
            assert_eq!(found, expected.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{path}: {text}");
        }
    }
}
