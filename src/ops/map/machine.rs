//! What a map's rules say of a machine: its name, its networks and storage, how much of the target it may have, and its
//! hardware addresses.

use super::WrittenRule;
use crate::finding;
use crate::hypervisor::Networks;
use crate::machine::{Cpus, Machine, parse_mac};
use crate::ops::toml_file::{Wrong, wrong};
use landfall_boot::check::Finding;
use landfall_boot::network_map::fits;
use landfall_boot::target::Platform;
use landfall_image::Bytes;
use std::collections::BTreeMap;
use toml::Spanned;
use uuid::Uuid;

/// What a rule says of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineRule {
    /// Its name at the target; `{name}` stands for the one at the source.
    pub name: Option<String>,
    /// Patterns of networks' names at the source, and what they become.
    pub networks: Vec<(String, String)>,
    /// The storage for its disks.
    pub storage: Option<String>,
    /// Its id at the target.
    pub id: Option<u32>,
    /// It gets no more processors.
    pub cpus_at_most: Option<u32>,
    /// It gets no more memory.
    pub memory_at_most: Option<Bytes>,
    /// What becomes of hardware addresses that `macs` does not name.
    pub mac: Option<Identity>,
    /// What becomes of the SMBIOS UUID.
    pub uuid: Option<Identity>,
    /// Hardware addresses at the source, and at the target.
    pub macs: BTreeMap<String, String>,
}

/// What becomes of what a machine is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It stays.
    Keep,
    /// Another one is made, always the same one for the same machine.
    New,
}

impl MachineRule {
    pub(super) fn is_empty(&self) -> bool {
        *self == MachineRule::default()
    }
}

/// What becomes of a machine.
#[derive(Clone, Debug, Default)]
pub struct Mapped {
    /// Its name at the target, where it gets another.
    pub name: Option<String>,
    /// Networks by their exact names.
    pub networks: Vec<(String, String)>,
    /// The storage for its disks.
    pub storage: Option<String>,
    /// Its id at the target.
    pub id: Option<u32>,
    /// Its processors, where it gets fewer.
    pub cpus: Option<Cpus>,
    /// Its memory, where it gets less.
    pub memory: Option<Bytes>,
    /// For each card its address at the target, where that is another.
    pub macs: Vec<Option<String>>,
    /// Its SMBIOS UUID, where it gets another.
    pub uuid: Option<Uuid>,
    /// What was changed and why.
    pub findings: Vec<Finding>,
}

impl Mapped {
    /// Networks as a definition's writer takes them: what the command line says counts before the map.
    pub fn networks(&self, given: &Networks) -> Networks {
        Networks { map: given.map.iter().chain(&self.networks).cloned().collect(), rest: given.rest.clone() }
    }
}

type Result<T> = std::result::Result<T, Wrong>;

pub(super) fn check(written: &WrittenRule) -> Result<MachineRule> {
    let mut rule = MachineRule::default();
    if let Some(name) = &written.name {
        let text = name.get_ref();
        let whole = text.replace("{name}", "x");
        // A misspelt {name} would call every machine the same.
        if !crate::ops::is_folder_name(&whole) || whole.contains(['{', '}']) {
            return Err(wrong(name.span().start, format!("{text:?} is no name for a machine")).hint(
                "write it without / and control characters; {name} stands for the name at the source, and there is no other {word}",
            ));
        }
        rule.name = Some(text.clone());
    }
    for (from, to) in &written.networks {
        if from.trim().is_empty() || to.get_ref().trim().is_empty() {
            return Err(wrong(to.span().start, "a network has an empty name"));
        }
        if matches!(to.get_ref().trim(), "bridge:" | "ovs:") {
            return Err(wrong(to.span().start, format!("{:?} names no bridge", to.get_ref()))
                .hint("write the bridge's name behind it: bridge:br0"));
        }
        rule.networks.push((from.clone(), to.get_ref().clone()));
    }
    // The most exact pattern is looked at first, whatever the order of the file's keys.
    rule.networks.sort_by_key(|(from, _)| (from.contains(['*', '?', '[']), std::cmp::Reverse(from.len())));
    if let Some(storage) = &written.storage {
        let text = storage.get_ref();
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            return Err(wrong(storage.span().start, format!("{text:?} is no name of a storage")));
        }
        rule.storage = Some(text.clone());
    }
    if let Some(id) = &written.id {
        // Proxmox VE reserves the numbers below 100, and has nine digits.
        if !(100..=999_999_999).contains(id.get_ref()) {
            return Err(wrong(
                id.span().start,
                format!("id is {}; 100 to 999999999 are possible", id.get_ref()),
            ));
        }
        rule.id = Some(*id.get_ref());
    }
    if let Some(cpus) = &written.cpus_at_most {
        if *cpus.get_ref() == 0 {
            return Err(wrong(cpus.span().start, "cpus_at_most is 0; a machine has at least 1"));
        }
        rule.cpus_at_most = Some(*cpus.get_ref());
    }
    if let Some(memory) = &written.memory_at_most {
        let at = memory.span().start;
        let size = crate::ops::parse_size(memory.get_ref()).map_err(|says| wrong(at, says))?;
        if size < Bytes::mib(64) {
            return Err(wrong(at, format!("memory_at_most is {size}; nothing starts with less than 64 MiB")));
        }
        rule.memory_at_most = Some(Bytes(size.0 >> 20 << 20));
    }
    rule.mac = identity(written.mac.as_ref(), "mac", "write keep or new; single addresses go into macs")?;
    rule.uuid = identity(written.uuid.as_ref(), "uuid", "write keep or new")?;
    for (from, to) in &written.macs {
        let at = to.span().start;
        let mac =
            |text: &str| parse_mac(text).ok_or_else(|| wrong(at, format!("{text:?} is no hardware address")));
        let (from, to) = (mac(from)?, mac(to.get_ref())?);
        if is_group(&to) {
            return Err(wrong(at, format!("{to} is an address of a group of cards, not of one"))
                .hint("the second digit of a card's address is even"));
        }
        if to == "00:00:00:00:00:00" {
            return Err(wrong(at, format!("{to} is no address of a card")));
        }
        if rule.macs.values().any(|known| *known == to) {
            return Err(wrong(at, format!("{to} is given twice")));
        }
        // Two ways to write one address.
        if rule.macs.insert(from.clone(), to).is_some() {
            return Err(wrong(at, format!("{from} becomes two addresses")));
        }
    }
    Ok(rule)
}

fn identity(policy: Option<&Spanned<String>>, key: &str, hint: &str) -> Result<Option<Identity>> {
    match policy.map(|policy| (policy.get_ref().as_str(), policy)) {
        None => Ok(None),
        Some(("keep", _)) => Ok(Some(Identity::Keep)),
        Some(("new", _)) => Ok(Some(Identity::New)),
        Some((other, policy)) => Err(wrong(policy.span().start, format!("{key} is {other:?}")).hint(hint)),
    }
}

fn is_group(mac: &str) -> bool {
    mac.get(..2).and_then(|octet| u8::from_str_radix(octet, 16).ok()).is_some_and(|octet| octet & 1 == 1)
}

/// What the rules, each with its place, make of the machine that is called `source_name` at the source.
pub(super) fn apply(
    rules: &[(&str, &MachineRule)],
    (source_name, given): (&str, Option<&str>),
    machine: &Machine,
    platform: Platform,
) -> Mapped {
    let mut mapped =
        Mapped { name: given.map(str::to_owned), macs: vec![None; machine.nics.len()], ..Mapped::default() };
    let mut say = |place: &str, says: String| {
        mapped.findings.push(finding::MAPPED.finding(format!("{place}: {says}"), ""));
    };
    /// The last rule that says something of a thing.
    fn last<'a, T>(
        rules: &[(&'a str, &'a MachineRule)],
        of: impl Fn(&'a MachineRule) -> Option<T>,
    ) -> Option<(&'a str, T)> {
        rules.iter().rev().find_map(|(place, rule)| Some((*place, of(rule)?)))
    }
    if given.is_none()
        && let Some((place, name)) = last(rules, |rule| rule.name.as_ref())
    {
        let name = name.replace("{name}", source_name);
        if name != source_name {
            say(place, format!("the machine is called {name} at the target."));
            mapped.name = Some(name);
        }
    }
    if let Some((place, most)) =
        last(rules, |rule| rule.cpus_at_most).filter(|(_, most)| *most < machine.cpus.count)
    {
        say(place, format!("the machine gets {most} processors instead of {}.", machine.cpus.count));
        mapped.cpus = Some(machine.cpus.fewer(most));
    }
    if let Some((place, most)) =
        last(rules, |rule| rule.memory_at_most).filter(|(_, most)| *most < machine.memory)
    {
        say(place, format!("the machine gets {most} of memory instead of {}.", machine.memory));
        mapped.memory = Some(most);
    }
    mapped.storage = last(rules, |rule| rule.storage.clone()).map(|(_, storage)| storage);
    mapped.id = last(rules, |rule| rule.id).map(|(_, id)| id);
    for name in machine.nics.iter().filter_map(|nic| nic.network.as_ref()) {
        let target = last(rules, |rule| rule.networks.iter().find(|(pattern, _)| fits(pattern, name)));
        if let Some((_, (_, to))) = target
            && !mapped.networks.iter().any(|(known, _)| known == name)
        {
            mapped.networks.push((name.clone(), to.clone()));
        }
    }
    let own_name = mapped.name.clone().unwrap_or_else(|| source_name.to_owned());
    let policy = last(rules, |rule| rule.mac);
    for (index, nic) in machine.nics.iter().enumerate() {
        let Some(old) = &nic.mac else { continue };
        let listed = last(rules, |rule| rule.macs.get(old).cloned());
        let made = policy
            .filter(|(_, policy)| *policy == Identity::New)
            .and_then(|(place, _)| Some((place, new_mac(&own_name, machine, index, platform)?)));
        if let Some((place, new)) = listed.or(made).filter(|(_, new)| new != old) {
            say(place, format!("{} gets the hardware address {new} instead of {old}.", nic.slot));
            mapped.macs[index] = Some(new);
        }
    }
    if let Some((place, Identity::New)) = last(rules, |rule| rule.uuid)
        && let Some(old) = machine.smbios.uuid
    {
        let new = new_uuid(&own_name, old);
        say(place, format!("the machine gets the UUID {new} instead of {old}."));
        mapped.uuid = Some(new);
    }
    mapped
}

/// Copies of one machine differ in their names alone.
fn new_uuid(name: &str, old: Uuid) -> Uuid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(old.as_bytes()).update(name.as_bytes());
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *hasher.finalize().as_bytes();
    uuid::Builder::from_random_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]).into_uuid()
}

/// An address from the range of the target's hypervisor, always the same for a machine and card, so that a second run makes
/// no third address. `None` where the target chooses by itself.
fn new_mac(name: &str, machine: &Machine, index: usize, platform: Platform) -> Option<String> {
    let prefix = match platform {
        Platform::Kvm => [0x52, 0x54, 0x00],
        Platform::Ahv => [0x50, 0x6b, 0x8d],
        Platform::Esxi => [0x00, 0x50, 0x56],
        Platform::Hyperv => [0x00, 0x15, 0x5d],
        Platform::Xen => [0x00, 0x16, 0x3e],
        Platform::Azure => return None,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    if let Some(uuid) = machine.smbios.uuid {
        hasher.update(uuid.as_bytes());
    }
    hasher.update(&index.to_le_bytes());
    hasher.update(machine.nics.get(index)?.mac.as_deref().unwrap_or_default().as_bytes());
    let digest = *hasher.finalize().as_bytes();
    // VMware takes static addresses up to 00:50:56:3f:ff:ff only.
    let fourth = if platform == Platform::Esxi { digest[0] & 0x3f } else { digest[0] };
    let octets = [prefix[0], prefix[1], prefix[2], fourth, digest[1], digest[2]];
    Some(octets.map(|octet| format!("{octet:02x}")).join(":"))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::machine::NicSlot;

    fn machine() -> Machine {
        let mut machine = Machine::new("web01", Bytes::gib(8));
        machine.cpus = Cpus::new(8, 4, 1);
        for (mac, network) in [("00:50:56:00:00:01", "VM Network"), ("00:50:56:00:00:02", "Backup")] {
            let nic = NicSlot::new("ethernet0");
            machine.nics.push(NicSlot { mac: Some(mac.into()), network: Some(network.into()), ..nic });
        }
        machine
    }

    #[test]
    fn the_last_rule_that_says_something_counts() {
        let map = parse(
            r#"
            [[rule]]
            networks = { "*" = "default", "VM Network" = "LAN" }
            storage = "slow"
            memory_at_most = "4G"
            cpus_at_most = 6
            mac = "new"
            [[rule]]
            machine = "web*"
            name = "{name}-dr"
            storage = "fast"
            id = 120
            macs = { "00-50-56-00-00-02" = "52:54:00:AA:bb:cc" }
            [[rule]]
            machine = "db*"
            storage = "other"
            "#,
            "map.toml",
        )
        .unwrap();
        let mapped = map.place("web01", None, &machine(), Platform::Kvm);
        assert_eq!(mapped.name.as_deref(), Some("web01-dr"));
        assert_eq!((mapped.storage.as_deref(), mapped.id), (Some("fast"), Some(120)));
        assert_eq!(mapped.cpus, Some(Cpus { count: 6, cores_per_socket: 3, threads_per_core: 1 }));
        assert_eq!(mapped.memory, Some(Bytes::gib(4)));
        let networks: Vec<_> = mapped.networks.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(networks, [("VM Network", "LAN"), ("Backup", "default")]);
        let first = mapped.macs[0].clone().unwrap();
        assert!(first.starts_with("52:54:00:") && first != "52:54:00:aa:bb:cc", "{first}");
        assert_eq!(mapped.macs[1].as_deref(), Some("52:54:00:aa:bb:cc"));
        assert_eq!(
            map.place("web01", None, &machine(), Platform::Kvm).macs,
            mapped.macs,
            "the same in every run"
        );
        assert_eq!(mapped.findings.len(), 5);
        // A name that was given counts, and nothing else is said.
        let given = map.place("web01", Some("foo"), &machine(), Platform::Kvm);
        assert_eq!((given.name.as_deref(), given.findings.len()), (Some("foo"), 4));
        let other = map.place("app", None, &machine(), Platform::Azure);
        assert_eq!((other.name, other.macs), (None, vec![None, None]));
    }

    #[test]
    fn new_addresses_are_the_hypervisors_own() {
        for platform in Platform::ALL.iter().filter(|platform| **platform != Platform::Azure) {
            let mac = new_mac("web01", &machine(), 0, *platform).unwrap();
            assert_eq!(parse_mac(&mac).as_deref(), Some(mac.as_str()));
            assert!(!is_group(&mac), "{mac}");
            assert_ne!(new_mac("web01", &machine(), 1, *platform).unwrap(), mac);
            assert_ne!(new_mac("copy", &machine(), 0, *platform).unwrap(), mac, "a copy of it is another");
        }
        // VMware refuses static addresses beyond.
        for number in 0..200 {
            let mac = new_mac(&format!("web{number}"), &machine(), 0, Platform::Esxi).unwrap();
            assert!(u8::from_str_radix(&mac[9..11], 16).unwrap() <= 0x3f, "{mac}");
        }
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, expected) in [
            ("[[rule]]\nname = \"a/b\"\n", "line 2: \"a/b\" is no name"),
            ("[[rule]]\nid = 7\n", "line 2: id is 7"),
            ("[[rule]]\ncpus_at_most = 0\n", "line 2: cpus_at_most is 0"),
            ("[[rule]]\nmemory_at_most = \"1x\"\n", "line 2: "),
            ("[[rule]]\nmemory_at_most = \"1M\"\n", "line 2: memory_at_most is 1"),
            ("[[rule]]\nmac = \"random\"\n", "line 2: mac is \"random\""),
            ("[[rule]]\nmacs = { \"00:50:56:00:00:01\" = \"1\" }\n", "line 2: \"1\" is no hardware address"),
            ("[[rule]]\nmacs = { \"00:50:56:00:00:01\" = \"01:00:00:00:00:01\" }\n", "of a group"),
            ("[[rule]]\nnetwork = \"LAN\"\nstorage = \"a\"\n", "line 1: the rule is for some cards"),
            ("[[rule]]\nnetworks = { \"a\" = \"\" }\n", "line 2: a network has an empty name"),
            ("[[rule]]\nstorage = \"\"\n", "line 2: \"\" is no name of a storage"),
            ("[[rule]]\nname = \"{nme}-dr\"\n", "line 2: \"{nme}-dr\" is no name"),
            ("[[rule]]\nnetworks = { \"a\" = \"bridge:\" }\n", "line 2: \"bridge:\" names no bridge"),
            (
                "[[rule]]\nmacs = { \"00:50:56:00:00:0a\" = \"52:54:00:00:00:01\", \"00-50-56-00-00-0A\" = \"52:54:00:00:00:02\" }\n",
                "line 2: 00:50:56:00:00:0a becomes two addresses",
            ),
            ("[[rule]]\nmacs = { \"00:50:56:00:00:01\" = \"000000000000\" }\n", "is no address of a card"),
        ] {
            let error = parse(text, "map.toml").unwrap_err().to_string();
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }
}
