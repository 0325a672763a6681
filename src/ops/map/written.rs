//! A map as it stands in its file: every key, what it is for, and where it was written. What the values mean is checked later.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// What becomes of machines and networks at the recovery site.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["rule"]))]
pub(crate) struct WrittenMap {
    /// The rules. Of two that speak of the same thing the later one counts.
    #[serde(default)]
    #[schemars(with = "Vec<WrittenRule>", length(min = 1))]
    pub rule: Vec<Spanned<WrittenRule>>,
}

/// One rule. Without `machine` it is for every machine, without `network` and `interface` for every card; with one of these two
/// it can only change addresses.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub(crate) struct WrittenRule {
    /// Only machines with this name at the source; `*` and `?` stand for any characters.
    #[schemars(with = "String", length(min = 1))]
    #[serde(default)]
    pub machine: Option<Spanned<String>>,
    /// Only cards in the network with this name at the source; `*` and `?` stand for any characters.
    #[schemars(with = "String", length(min = 1))]
    #[serde(default)]
    pub network: Option<Spanned<String>>,
    /// Only interfaces with this name in the guest; `*` and `?` stand for any characters.
    #[schemars(with = "String", length(min = 1))]
    #[serde(default)]
    pub interface: Option<Spanned<String>>,
    /// Subnets at the source and at the target, `ADDRESS/PREFIX` of one family: the host part of an address stays.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub subnets: BTreeMap<String, Spanned<String>>,
    /// Single addresses at the source, and what they become: `ADDRESS`, or `ADDRESS/PREFIX`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub addresses: BTreeMap<String, Spanned<String>>,
    /// The default gateway in place of the one that is configured; a list has one of each family.
    #[schemars(with = "OneOrMore")]
    #[serde(default)]
    pub gateway: Option<Spanned<OneOrMore>>,
    /// Addresses of the DNS servers in place of those that are configured.
    #[schemars(with = "Vec<String>", length(min = 1))]
    #[serde(default)]
    pub dns: Option<Spanned<Vec<Spanned<String>>>>,
    /// DNS search domains in place of those that are configured.
    #[schemars(with = "Vec<String>", length(min = 1))]
    #[serde(default)]
    pub search: Option<Spanned<Vec<Spanned<String>>>>,
    /// Destinations of configured routes, `ADDRESS/PREFIX`, and what becomes of those routes.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, WrittenRoute>")]
    pub routes: BTreeMap<String, Spanned<WrittenRoute>>,
    /// True: IPv4 by DHCP from now on, in place of what is configured.
    #[schemars(with = "bool")]
    #[serde(default)]
    pub dhcp: Option<bool>,
    /// The machine's name at the target; `{name}` stands for the one at the source.
    #[schemars(with = "String", length(min = 1))]
    #[serde(default)]
    pub name: Option<Spanned<String>>,
    /// Networks at the source, by name or pattern, and those at the target that take their place.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub networks: BTreeMap<String, Spanned<String>>,
    /// The storage for the disks, where the target has one to choose.
    #[schemars(with = "String", length(min = 1))]
    #[serde(default)]
    pub storage: Option<Spanned<String>>,
    /// The id at the target, where a machine has a number: at Proxmox VE.
    #[schemars(with = "u32", range(min = 100, max = 999_999_999))]
    #[serde(default)]
    pub id: Option<Spanned<u32>>,
    /// The machine gets no more processors than that.
    #[schemars(with = "u32", range(min = 1))]
    #[serde(default)]
    pub cpus_at_most: Option<Spanned<u32>>,
    /// The machine gets no more memory than that, 64 MiB at least: a whole number with K, M, G or T.
    #[schemars(with = "String", regex(pattern = crate::ops::SIZE))]
    #[serde(default)]
    pub memory_at_most: Option<Spanned<String>>,
    /// What becomes of hardware addresses that `macs` does not name: new ones are the same in every run.
    #[schemars(with = "Policy")]
    #[serde(default)]
    pub mac: Option<Spanned<String>>,
    /// What becomes of the SMBIOS UUID: a new one is the same in every run.
    #[schemars(with = "Policy")]
    #[serde(default)]
    pub uuid: Option<Spanned<String>>,
    /// Hardware addresses at the source, and at the target.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub macs: BTreeMap<String, Spanned<String>>,
}

/// An address, or a list of them.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "gateway is neither an address in quotes nor a list of them")]
pub(crate) enum OneOrMore {
    /// An address.
    One(String),
    /// One address of each family.
    More(#[schemars(length(min = 1, max = 2))] Vec<String>),
}

/// What becomes of a route: one of the two, or both.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Route")]
pub(crate) struct WrittenRoute {
    /// Another destination, `ADDRESS/PREFIX`.
    #[schemars(with = "String")]
    #[serde(default)]
    pub to: Option<String>,
    /// Another router's address.
    #[schemars(with = "String")]
    #[serde(default)]
    pub via: Option<String>,
}

// The file's words are read as text, so that a complaint can name the line; this is for the schema.
/// What becomes of what a machine is known by.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is wanted")]
enum Policy {
    /// It stays.
    Keep,
    /// Another one is made.
    New,
}
