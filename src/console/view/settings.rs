//! Screens on which something is set: network, time, disks, keys.

use super::Page;
use crate::console::change::{self, CardRow};
use crate::console::state::State;
use crate::ops::appliance::console::{Dhcp, DiskRole, Machine, Nic};

/// The machine, or a page that says why it is not known.
fn known<'a>(state: &'a State, page: &mut Page) -> Option<&'a Machine> {
    match state.machine.get() {
        Some(Ok(machine)) => return Some(machine),
        Some(Err(problem)) => {
            page.strong("The helper, which does everything on this screen, cannot be asked.");
            page.problem(problem);
        }
        None => page.text("... the helper is being asked"),
    }
    None
}

pub fn network(state: &State, width: usize) -> Page {
    let keys = "Up/Down: choose   Enter: set the card   1: host name   2: take settings back";
    let mut page = Page::new(width, keys);
    let Some(machine) = known(state, &mut page) else { return page };
    let network = &machine.network;
    let listed = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(" ") };
    let gateways: Vec<String> = network.gateways.iter().map(ToString::to_string).collect();
    page.pair("Host name", &machine.hostname);
    page.pair("Gateways", &listed(&gateways));
    page.pair("DNS servers", &listed(&network.dns));
    page.pair("Search", &listed(&network.search));
    page.blank();
    let rows = change::cards(machine);
    page.head(if rows.is_empty() { "No network card was found" } else { "Cards" });
    for (number, row) in rows.iter().enumerate() {
        card(&mut page, row, number == state.row, machine.settings.nics().is_empty());
    }
    for other in network.cards.iter().filter(|card| !card.is_card) {
        let addresses: Vec<String> = other.addresses.iter().map(ToString::to_string).collect();
        page.row(false, &format!("{:<10} made of the cards above: {}", other.name, listed(&addresses)));
    }
    page
}

fn card(page: &mut Page, row: &CardRow<'_>, is_chosen: bool, is_all_dhcp: bool) {
    let mut line = format!("{:<10} ", row.title());
    match row.card {
        Some(card) => {
            line.push_str(card.mac.as_ref().map_or("-", |mac| mac.as_str()));
            let link = match (card.has_link, card.speed) {
                (true, Some(speed)) => format!("  link, {speed} Mbit/s"),
                (true, None) => "  link".to_owned(),
                (false, _) => "  NO LINK: no cable, or not connected at the hypervisor".to_owned(),
            };
            line.push_str(&link);
        }
        None => line.push_str("is not in this machine"),
    }
    page.row(is_chosen, &line);
    let addresses: Vec<String> =
        row.card.iter().flat_map(|card| &card.addresses).map(ToString::to_string).collect();
    let now = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") };
    page.below(&format!("now: {now}; set: {}", set(row.nic, is_all_dhcp)));
}

fn set(nic: Option<&Nic>, is_all_dhcp: bool) -> String {
    let Some(nic) = nic else {
        return if is_all_dhcp { "DHCP".to_owned() } else { "nothing: it is not used".to_owned() };
    };
    let mut parts: Vec<String> = Vec::new();
    match nic.dhcp {
        Dhcp::Yes => parts.push("DHCP".to_owned()),
        Dhcp::Ipv4 => parts.push("DHCP for IPv4".to_owned()),
        Dhcp::Ipv6 => parts.push("DHCP for IPv6".to_owned()),
        Dhcp::No => {}
    }
    parts.extend(nic.addresses.iter().map(ToString::to_string));
    parts.extend(nic.gateways.iter().map(|gateway| format!("gateway {gateway}")));
    parts.extend(nic.mtu.map(|mtu| format!("MTU {mtu}")));
    if let Some(bond) = &nic.bond {
        let with: Vec<String> = bond.with.iter().map(ToString::to_string).collect();
        parts.push(format!("one with {}", with.join(" ")));
    }
    parts.join(", ")
}

pub fn time(state: &State, width: usize) -> Page {
    let mut page = Page::new(width, "1: servers of time   2: set the clock   Esc: status");
    let Some(machine) = known(state, &mut page) else { return page };
    let time = &machine.time;
    page.pair("Now", &time.now.to_string());
    page.pair(
        "Synchronised",
        if time.is_synchronised { "yes" } else { "NO: no server of time was heard since the start" },
    );
    let servers = if time.servers.is_empty() { "none".to_owned() } else { time.servers.join(" ") };
    page.pair("Servers", &servers);
    let from = match (&machine.typed.ntp, &machine.settings.ntp) {
        (Some(_), _) => "set here",
        (None, Some(_)) => "given by the hypervisor",
        (None, None) if time.servers.is_empty() => {
            "nothing is set, and DHCP names none: those of Debian are asked"
        }
        (None, None) => "named by DHCP",
    };
    page.pair("", &format!("({from})"));
    page.blank();
    page.text("Recovery points have this machine's time. With a wrong clock a point is looked for at the wrong hour: synchronise it, or set it by hand.");
    page
}

pub fn disks(state: &State, width: usize) -> Page {
    let keys = "Up/Down: choose   Enter: take an empty disk for the vault   1: grow   Esc: status";
    let mut page = Page::new(width, keys);
    let Some(machine) = known(state, &mut page) else { return page };
    page.head(if machine.disks.is_empty() { "No disk was found" } else { "Disks" });
    for (number, disk) in machine.disks.iter().enumerate() {
        let role = match disk.role {
            DiskRole::System => "this system",
            DiskRole::Data => "THE VAULT",
            DiskRole::Other if disk.has_vault && disk.is_whole => "has a vault, which is not used",
            DiskRole::Other if disk.has_vault => "has a vault that was not made to its end",
            DiskRole::Other if disk.holds.is_empty() => "empty",
            DiskRole::Other => "not used",
        };
        page.row(number == state.row, &format!("{:<9} {:>10}  {role}", disk.name, disk.size.to_string()));
        let model = disk.model.as_deref().unwrap_or("unknown make");
        let serial = disk.serial.as_deref().map(|serial| format!(", serial {serial}")).unwrap_or_default();
        let holds = if disk.holds.is_empty() {
            "nothing is on it".to_owned()
        } else {
            format!("holds {}", disk.holds.join(", "))
        };
        page.below(&format!("{model}{serial}; {holds}"));
    }
    page.blank();
    page.text("A disk with content is never taken. An empty disk that appears is taken by itself while there is no vault.");
    page
}

pub fn keys(state: &State, width: usize) -> Page {
    let mut page = Page::new(width, "1: add a key   Up/Down: choose   Enter: take the key out   Esc: status");
    let Some(machine) = known(state, &mut page) else { return page };
    let keys = machine.settings.ssh_keys.as_deref().unwrap_or_default();
    match keys.is_empty() {
        true => {
            page.strong("There is no key: nothing listens for SSH.");
            page.text("With one, root can come in with it on port 22, and with nothing else: there are no passwords.");
        }
        false => {
            page.head("Whoever has one of these keys comes in as root with SSH, on port 22");
            for (number, key) in keys.iter().enumerate() {
                page.row(number == state.row, &change::key_in_words(key));
            }
        }
    }
    page.blank();
    page.text("Where the administrator's token is lost, a key makes another, from elsewhere:");
    page.exactly(&format!("  {}", change::NEW_TOKEN));
    page
}
