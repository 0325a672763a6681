//! Maps: the file in which a user says what becomes of machines and networks at the recovery site, and what of it is for a
//! machine.
//!
//! ```toml
//! [[rule]]                                        # for every machine
//! subnets = { "10.1.0.0/16" = "10.2.0.0/16" }     # addresses in the guest
//! dns = ["10.2.0.53"]
//! networks = { "VM Network" = "bridge:br0" }      # what its cards are plugged into
//! storage = "ssd"
//! memory_at_most = "16G"
//!
//! [[rule]]                                        # for some
//! machine = "web*"
//! name = "{name}-dr"
//! mac = "new"
//! ```
//!
//! Later rules win. Everything is checked before a machine is looked at, and every complaint names its line. What a rule does
//! to a guest is `landfall_boot::network_map`'s matter, what it does to a machine [`machine`]'s.

mod machine;
mod network;
mod written;

pub use machine::{Identity, MachineRule, Mapped};
pub(crate) use written::WrittenMap;
use written::{OneOrMore, WrittenRule};

use super::toml_file::{self, Wrong, wrong};
use crate::machine::Machine;
use landfall_boot::network_map::{NetworkMap, Rule, fits};
use landfall_boot::target::Platform;
use landfall_image::{Error, Result};
use std::path::Path;
use toml::Spanned;

/// A map as it was written, checked.
#[derive(Clone, Debug, Default)]
pub struct MapFile {
    /// In the order of the file.
    pub rules: Vec<Conditioned>,
}

/// A rule and for whom it is.
#[derive(Clone, Debug)]
pub struct Conditioned {
    /// Where it stands: `site-b.toml:12`.
    pub place: String,
    /// Pattern of machines' names at the source; all of them otherwise.
    pub machine: Option<String>,
    /// Pattern of networks' names at the source: only cards in one of them are meant.
    pub network: Option<String>,
    /// What it says of addresses.
    pub addresses: Option<Rule>,
    /// What it says of the machine.
    pub of_machine: MachineRule,
}

/// What a check of a map tells.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub struct MapChecked {
    /// Version of every JSON document.
    pub version: u32,
    /// The rules, in the file's order.
    pub rules: Vec<RuleChecked>,
}

/// One rule of a map, in words.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub struct RuleChecked {
    /// Where it stands: `site-b.toml:12`.
    pub place: String,
    /// Pattern of machines' names; `null` for all.
    pub machine: Option<String>,
    /// Pattern of networks' names; `null` for all cards.
    pub network: Option<String>,
    /// What it does, one line each.
    pub says: Vec<String>,
}

/// Reads the map at `path`.
pub fn load(path: &Path) -> Result<MapFile> {
    let (text, name) = toml_file::read(path)?;
    parse(&text, &name).map_err(|error| error.in_file(path))
}

/// The map in `text`; `name` is what findings call it.
pub fn parse(text: &str, name: &str) -> Result<MapFile> {
    let written: WrittenMap = toml_file::parse(text)?;
    if written.rule.is_empty() {
        return Err(Error::refused("has no rule").hint("write [[rule]] and below it what it changes"));
    }
    let mut rules = Vec::new();
    for rule in written.rule {
        let at = rule.span().start;
        let place = format!("{name}:{}", toml_file::line(text, at));
        rules.push(check(rule.get_ref(), at, place).map_err(|wrong| wrong.in_text(text))?);
    }
    Ok(MapFile { rules })
}

fn check(written: &WrittenRule, at: usize, place: String) -> std::result::Result<Conditioned, Wrong> {
    let pattern = |given: &Option<Spanned<String>>, what: &str| match given {
        Some(text) if text.get_ref().trim().is_empty() => {
            Err(wrong(text.span().start, format!("{what} is empty; leave it out for all")))
        }
        other => Ok(other.as_ref().map(|text| text.get_ref().clone())),
    };
    let (machine, network, interface) = (
        pattern(&written.machine, "machine")?,
        pattern(&written.network, "network")?,
        pattern(&written.interface, "interface")?,
    );
    let of_machine = machine::check(written)?;
    let for_cards_only = network.is_some() || interface.is_some();
    if for_cards_only && !of_machine.is_empty() {
        return Err(wrong(at, "the rule is for some cards, and says something of the machine as a whole")
            .hint("put name, networks, storage, id, cpus_at_most, memory_at_most, mac, macs and uuid into a rule without network and interface"));
    }
    let addresses = network::check(written, place.clone(), interface)?;
    if addresses.is_none() && of_machine.is_empty() {
        return Err(wrong(at, "the rule changes nothing").hint(
            "give it subnets, addresses, gateway, dns, search, routes or dhcp, or networks, storage, name, cpus_at_most, memory_at_most, mac, macs, uuid or id",
        ));
    }
    Ok(Conditioned { place, machine, network, addresses, of_machine })
}

impl MapFile {
    fn for_machine<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Conditioned> {
        self.rules.iter().filter(|one| one.machine.as_ref().is_none_or(|pattern| fits(pattern, name)))
    }

    /// The rules about addresses for a machine that is called `name` at the source; its networks are those of its cards.
    pub fn resolve(&self, name: &str, machine: &Machine) -> NetworkMap {
        let mut rules = Vec::new();
        for one in self.for_machine(name) {
            let Some(mut rule) = one.addresses.clone() else { continue };
            rule.cards = one.network.as_ref().map(|pattern| {
                let cards = machine.nics.iter().enumerate();
                let fitting =
                    cards.filter(|(_, nic)| nic.network.as_ref().is_some_and(|name| fits(pattern, name)));
                fitting.map(|(at, _)| at).collect()
            });
            rules.push(rule);
        }
        NetworkMap { rules }
    }

    /// What becomes of a machine that is called `name` at the source, on its way to `platform`; `given` is the name that was
    /// chosen for it, which counts before any rule.
    pub fn place(&self, name: &str, given: Option<&str>, machine: &Machine, platform: Platform) -> Mapped {
        let rules: Vec<_> = self.for_machine(name).map(|one| (one.place.as_str(), &one.of_machine)).collect();
        machine::apply(&rules, (name, given), machine, platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the documentation.
    const EXAMPLE: &str = include_str!("../../../tests/network-maps/site-b.toml");

    fn complaint(text: &str) -> String {
        let error = parse(text, "map.toml").unwrap_err();
        format!("{error}|{}", error.hint_text().unwrap_or(""))
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, expected) in [
            ("", "has no rule|write [[rule]]"),
            ("[[rule]]\n\nsubnet = {}\n", "line 3: unknown field `subnet`"),
            ("[[rule]]\n\nsubnet = {}\n", "|did you mean subnets?"),
            ("[[rules]]\n", "|did you mean rule?"),
            ("[[rule]]\nmachine = \"a\"\n", "line 1: the rule changes nothing|give it"),
            ("[[rule]]\ndns = [\n  \"10.0.0.1\",\n  \"10.0.0\",\n]\n", "line 4: \"10.0.0\" is no IP address"),
            (
                "[[rule]]\nsubnets = { \"10.1.0.5/16\" = \"10.2.0.0/16\" }\n",
                "line 2: 10.1.0.5/16 is an address within a subnet|write 10.1.0.0/16",
            ),
            (
                "[[rule]]\nsubnets = { \"10.1.0.0/16\" = \"2001:db8::/64\" }\n",
                "line 2: 10.1.0.0 and 2001:db8:: are of different families",
            ),
            (
                "[[rule]]\nsubnets = { \"10.1/16\" = \"10.2.0.0/16\" }\n",
                "line 2: \"10.1/16\" is no subnet|write it as",
            ),
            (
                "[[rule]]\n[rule.subnets]\n\"10.1.0.0/16\" = \"10.2.0.0/16\"\n\"10.1.0.0/16\" = \"10.3.0.0/16\"\n",
                "line 4: duplicate key",
            ),
            (
                "[[rule]]\naddresses = { \"10.1.0.5\" = \"10.1.0.5/33\" }\n",
                "line 2: \"10.1.0.5/33\" is no address",
            ),
            ("[[rule]]\ngateway = [\"10.1.0.1\", \"10.1.0.2\"]\n", "line 2: gateway has two addresses"),
            ("[[rule]]\nsearch = [\"a b\"]\n", "line 2: \"a b\" is no domain name"),
            ("[[rule]]\nroutes = { \"10.9.0.0/16\" = {} }\n", "line 2: the route has neither"),
            (
                "[[rule]]\nroutes = { \"10.9.0.0/16\" = { over = \"10.1.0.1\" } }\n",
                "line 2: unknown field `over`",
            ),
            ("[[rule]]\ndhcp = \"yes\"\n", "line 2: invalid type"),
            ("[[rule]]\nmachine = \"\"\ndhcp = true\n", "line 2: machine is empty"),
            ("[[rule]\n", "line 1: "),
            ("[[rule]]\ndns = []\n", "line 2: dns is empty|leave it out"),
            ("[[rule]]\nsearch = []\n", "line 2: search is empty|leave it out"),
            ("[[rule]]\ngateway = []\n", "line 2: gateway is empty|leave it out"),
            (
                "[[rule]]\nroutes = { \"0.0.0.0/0\" = { via = \"10.2.0.1\" } }\n",
                "line 2: 0.0.0.0/0 is the default route|use gateway",
            ),
            (
                "[[rule]]\nroutes = { \"::/0\" = { via = \"fe80::1\" } }\n",
                "line 2: ::/0 is the default route|use gateway",
            ),
            ("[[rule]]\ngateway = 5\n", "line 2: gateway is neither an address in quotes nor a list of them"),
            (
                "[rule]\ndhcp = true\n",
                "line 1: invalid type: map, expected a sequence|write it in double brackets: [[rule]]",
            ),
            (
                "[[rule]]\ndns = \"10.2.0.53\"\n",
                "line 2: invalid type: string \"10.2.0.53\", expected a sequence|write [\"10.2.0.53\"]",
            ),
            ("[[rule]]\nsearch = \"b.example\"\n", "|write [\"b.example\"]"),
            (
                "[[rule]]\naddresses = { \"10.1.0.5\" = \"10.2.0.0/24\" }\n",
                "line 2: 10.2.0.0 is the address of the network 10.2.0.0/24|write the machine's own",
            ),
            (
                "[[rule]]\naddresses = { \"10.1.0.5\" = \"10.2.0.255/24\" }\n",
                "line 2: 10.2.0.255 is the broadcast address of 10.2.0.0/24|write the machine's own",
            ),
        ] {
            let found = complaint(text);
            assert!(found.contains(expected), "{text}\n{found}\n{expected}");
        }
    }

    /// Two routers of a line between two, and addresses alone.
    #[test]
    fn every_address_of_a_small_network_is_one() {
        for to in ["10.2.0.0/31", "10.2.0.1/31", "10.2.0.0/32", "10.2.0.0", "2001:db8::ff/120"] {
            let from = if to.contains(':') { "2001:db8:1::5" } else { "10.1.0.5" };
            let text = format!("[[rule]]\naddresses = {{ \"{from}\" = \"{to}\" }}\n");
            assert!(parse(&text, "map.toml").is_ok(), "{to}");
        }
    }

    #[test]
    fn a_machine_gets_its_rules() {
        let map = parse(EXAMPLE, "site-b.toml").unwrap();
        let vmx = b"config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web01\"\nmemSize = \"1024\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n\
            ethernet0.present = \"TRUE\"\nethernet0.networkName = \"VM Network\"\nethernet1.present = \"TRUE\"\nethernet1.networkName = \"Backup\"\n";
        let parse_vmx = |text: &[u8]| crate::hypervisor::vmware::vmx::parse(text, &Default::default());
        let machine = parse_vmx(vmx).unwrap().machine;
        let web = map.resolve("web01", &machine);
        let db = map.resolve("db01", &machine);
        assert!(web.rules.len() > db.rules.len());
        let by_network = db.rules.iter().find(|rule| rule.cards.is_some()).unwrap();
        assert_eq!(by_network.cards, Some(vec![1]));
        assert!(by_network.place.starts_with("site-b.toml:"), "{}", by_network.place);
    }
}
