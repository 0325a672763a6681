//! Network cards (`/sys/class/net`, sysfs-class-net in the kernel's ABI documents).

use super::netlink::Address;
use super::text;
use crate::appliance::helper::status::{CardStatus, NetworkStatus};
use crate::appliance::network::Present;
use crate::appliance::settings::Mac;
use std::net::IpAddr;
use std::path::Path;

/// A machine with more has VLANs of its guests, which are not shown.
const AT_MOST: usize = 256;

struct Link {
    index: u32,
    name: String,
    is_card: bool,
}

/// All but the loopback, by the kernel's numbers.
fn links(root: &Path) -> Vec<Link> {
    let folder = root.join("sys/class/net");
    let mut found: Vec<Link> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let value = |key: &str| text(root, &format!("sys/class/net/{name}/{key}"));
            // 1 is Ethernet (ARPHRD_ETHER); the loopback is 772.
            value("type").filter(|kind| kind == "1")?;
            let index = value("ifindex")?.parse().ok()?;
            let is_card = folder.join(&name).join("device").exists();
            Some(Link { index, name, is_card })
        })
        .collect();
    found.sort_by_key(|link| link.index);
    found.truncate(AT_MOST);
    found
}

fn mac(root: &Path, name: &str) -> Option<Mac> {
    let value = |key: &str| text(root, &format!("sys/class/net/{name}/{key}"))?.parse().ok();
    // A bond's members have its address, and keep theirs here.
    value("bonding_slave/perm_hwaddr").or_else(|| value("address"))
}

/// The cards of the machine whose `/sys` is below `root`, in the kernel's order.
pub fn present(root: &Path) -> Vec<Present> {
    let cards = links(root).into_iter().filter(|link| link.is_card);
    cards.filter_map(|link| Some(Present { mac: mac(root, &link.name)?, name: link.name })).collect()
}

/// The network as it is; `resolv` is what the resolver is told.
pub(super) fn network(
    root: &Path,
    addresses: &[Address],
    gateways: Vec<IpAddr>,
    resolv: &str,
) -> NetworkStatus {
    let cards = links(root).into_iter().map(|link| {
        let value = |key: &str| text(root, &format!("sys/class/net/{}/{key}", link.name));
        CardStatus {
            mac: mac(root, &link.name),
            is_card: link.is_card,
            // Of a card that is down it cannot be read.
            has_link: value("carrier").is_some_and(|carrier| carrier == "1"),
            // -1 where it is not known.
            speed: value("speed").and_then(|speed| speed.parse().ok()).filter(|speed| *speed > 0),
            mtu: value("mtu").and_then(|mtu| mtu.parse().ok()),
            addresses: addresses.iter().filter(|(index, _)| *index == link.index).map(|one| one.1).collect(),
            name: link.name,
        }
    });
    let words = |key: &str| -> Vec<String> {
        let lines = resolv.lines().filter_map(|line| line.strip_prefix(key));
        lines.flat_map(str::split_ascii_whitespace).map(str::to_owned).collect()
    };
    NetworkStatus { cards: cards.collect(), gateways, dns: words("nameserver "), search: words("search ") }
}
