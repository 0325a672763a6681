//! What a section is for: the decoration behind its name (Microsoft, "INF Manufacturer Section", "Combining Platform
//! Extensions with Operating System Versions").
//!
//! ```text
//! NT[architecture][.[major][.[minor][.[product type][.[suite mask][.[build]]]]]]     NTamd64.10.0...14393
//! ```
//! A suite is not known of a guest at rest: what asks for one is passed over, as is what asks for a domain controller.

use super::number;
use crate::windows::draft::{System, Version};

/// `VER_NT_WORKSTATION` and `VER_NT_SERVER` (winnt.h).
const WORKSTATION: u32 = 1;
const SERVER: u32 = 3;

/// How INF files call an architecture.
pub fn architecture(system: &System) -> &'static str {
    match system.architecture.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => "x86",
    }
}

/// A decoration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoration {
    /// In lower case; empty for all.
    architecture: String,
    version: Version,
    product: Option<u32>,
    suite: Option<u32>,
}

impl Decoration {
    /// Reads one, without the dot before it; `None` where it is none.
    pub fn parse(text: &str) -> Option<Decoration> {
        let text = text.trim().to_lowercase();
        let mut parts = text.split('.');
        let architecture = parts.next()?.strip_prefix("nt")?.to_owned();
        if !matches!(architecture.as_str(), "" | "x86" | "amd64" | "arm" | "arm64" | "ia64") {
            return None;
        }
        let mut next = || match parts.next() {
            None | Some("") => Some(None),
            Some(digits) => number(digits).map(Some),
        };
        let (major, minor, product, suite, build) = (next()?, next()?, next()?, next()?, next()?);
        let version =
            Version { major: major.unwrap_or(0), minor: minor.unwrap_or(0), build: build.unwrap_or(0) };
        Some(Decoration { architecture, version, product, suite })
    }

    /// True where the section is for the guest.
    pub fn fits(&self, system: &System) -> bool {
        let product = if system.is_server { SERVER } else { WORKSTATION };
        (self.architecture.is_empty() || self.architecture == architecture(system))
            && self.version <= system.version
            && self.product.is_none_or(|only| only == product)
            && self.suite.is_none_or(|suite| suite == 0)
    }

    /// True where it names the guest's architecture, or the guest's needs no name.
    fn names(&self, system: &System) -> bool {
        !self.architecture.is_empty() || architecture(system) == "x86"
    }

    /// How close it is; the closest is taken.
    fn rank(&self) -> (Version, bool, bool) {
        (self.version, self.product.is_some(), !self.architecture.is_empty())
    }
}

/// The section with a manufacturer's devices for the guest, of those that `[Manufacturer]` names: `VioStor.NTamd64`. One for
/// other machines than x86 must name the architecture.
pub fn models<'d>(
    section: &str,
    decorations: impl Iterator<Item = &'d str>,
    system: &System,
) -> Option<String> {
    let mut best: Option<(Decoration, &str)> = None;
    for text in decorations {
        let Some(decoration) = Decoration::parse(text) else { continue };
        let fits = decoration.fits(system) && decoration.names(system);
        if fits && best.as_ref().is_none_or(|(best, _)| best.rank() < decoration.rank()) {
            best = Some((decoration, text));
        }
    }
    match best {
        Some((_, text)) => Some(format!("{section}.{}", text.trim())),
        None if architecture(system) == "x86" => Some(section.to_owned()),
        None => None,
    }
}

/// The section that installs a device, of all that are called so: with the closest decoration, else without one.
pub fn closest<'n>(section: &str, names: impl Iterator<Item = &'n str>, system: &System) -> Option<&'n str> {
    let mut best: Option<(Option<Decoration>, &str)> = None;
    for name in names {
        let Some((head, rest)) = name.split_at_checked(section.len()) else { continue };
        if !head.eq_ignore_ascii_case(section) {
            continue;
        }
        let decoration = match rest.strip_prefix('.').map(Decoration::parse) {
            None if rest.is_empty() => None,
            Some(Some(decoration)) if decoration.fits(system) => Some(decoration),
            _ => continue,
        };
        let rank = |decoration: &Option<Decoration>| {
            decoration.as_ref().map(|found| (!found.architecture.is_empty(), found.rank()))
        };
        if best.as_ref().is_none_or(|(best, _)| rank(best) < rank(&decoration)) {
            best = Some((decoration, name));
        }
    }
    best.map(|(_, name)| name)
}
