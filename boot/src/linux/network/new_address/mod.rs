//! Cards that have another hardware address at the target: whatever goes by the old one goes by the new one.
//!
//! Names and cards are assigned by the addresses of the source. Then the address changes where it stands, in its spelling:
//! in files that configure interfaces ([`places`]), in kernel parameters, in the copies that an initramfs has. An address
//! that a file *sets* (a clone, a bond's, a bridge's) follows, too, where it is the card's old one: kept, the guest would
//! send with an address that another machine may have. What an earlier pass has written reads as the source's.
//!
//! Deliberately absent: identifiers that were once made of the address (DHCP's client id and DUID). A server knows the
//! machine by them, so they stay, and are told. Files that landfall does not know are only looked at ([`watch`]).

mod own;
mod places;
mod watch;

use super::assign::Assigned;
use super::{Network, readdress, renewed};
use crate::Result;
use crate::linux::draft::Draft;
use crate::linux::loader;
use crate::linux::mac::{self, Changes, Language};
use crate::linux::text;
use crate::patch::{InitramfsFile, Text};
use crate::target::Request;
use std::collections::BTreeSet;

const WHY: &str = "It goes by the hardware address that the card has at the target.";

/// The new addresses of a machine's cards.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// Source's and target's.
    pairs: Vec<(String, String)>,
    changes: Changes,
    /// Why none can be followed: whole sentences.
    refused: Vec<String>,
}

impl Renewal {
    /// What a request asks for. Nothing where the platform gives cards addresses of its own choice.
    pub fn of(request: &Request) -> Self {
        let mut renewal = Renewal::default();
        if renewed::is_meant(request) {
            return renewal;
        }
        for (at, nic) in request.nics.iter().enumerate() {
            let Some(given) = &nic.new_mac else { continue };
            let Some(new) = mac::normal(given) else {
                renewal
                    .refused
                    .push(format!("The address {given:?} that a card is to get at the target is none."));
                continue;
            };
            let mut others = request.nics.iter().enumerate().filter(|(other, _)| *other != at);
            let is_taken = others.any(|(_, other)| {
                let is_it =
                    |mac: &Option<String>| mac.as_deref().and_then(mac::normal).as_ref() == Some(&new);
                is_it(&other.mac) || is_it(&other.new_mac)
            });
            let old = nic.mac.as_deref().and_then(mac::normal);
            if is_taken {
                let card = old.as_deref().unwrap_or("without an address");
                renewal.refused.push(format!(
                    "The card {card} is to get the address {new} at the target, and another card of the machine has it on the source or gets it, too."
                ));
            } else if let Some(old) = old.filter(|old| *old != new) {
                renewal.pairs.push((old, new));
            }
        }
        if !renewal.refused.is_empty() {
            renewal.pairs.clear();
        }
        renewal.changes = Changes::new(&renewal.pairs);
        renewal
    }

    /// The request with addresses for cards that have one at the target only.
    pub fn complete(&self, request: &Request) -> Request {
        let mut request = request.clone();
        for nic in request.nics.iter_mut().filter(|_| self.refused.is_empty()) {
            nic.mac = nic.mac.take().or_else(|| nic.new_mac.as_deref().and_then(mac::normal));
        }
        request
    }

    /// The configuration as it was at the source: what an earlier pass renewed is no stranger.
    pub fn at_source(&self, network: &mut Network) {
        let old = |mac: &mut String| {
            if let Some((old, _)) = self.pairs.iter().find(|(_, new)| new == mac) {
                mac.clone_from(old);
            }
        };
        network.configured.iter_mut().filter_map(|one| one.mac.as_mut()).for_each(old);
        network.given.iter_mut().chain(&mut network.seen).for_each(|given| old(&mut given.mac));
    }

    /// The address of a card at the target.
    pub fn at_target<'m>(&'m self, mac: &'m str) -> &'m str {
        self.pairs.iter().find(|(old, _)| old == mac).map_or(mac, |(_, new)| new)
    }

    /// A pair by its place.
    fn pair(&self, at: usize) -> (&str, &str) {
        self.pairs.get(at).map_or(("", ""), |(old, new)| (old, new))
    }
}

/// Plans the edits, when all others of the network are planned.
pub(super) fn plan(
    draft: &mut Draft<'_>,
    renewal: &Renewal,
    network: &Network,
    assigned: &Assigned,
    request: &Request,
    inside: &mut [InitramfsFile],
) -> Result<()> {
    for says in &renewal.refused {
        draft.find(
            "linux-nic-address-refused",
            says.clone(),
            "Give every card an address that no card of the machine has on the source, and convert again.",
        );
    }
    if renewal.pairs.is_empty() {
        return Ok(());
    }
    let mut known = BTreeSet::new();
    for (path, language) in places::files(draft, network)? {
        follow(draft, renewal, &path, language)?;
        own::tell(draft, renewal, &path)?;
        known.insert(path);
    }
    for path in places::named_by_address(draft)? {
        known.extend(rename(draft, renewal, &path)?);
    }
    known.extend(parameters(draft, renewal)?);
    for file in inside {
        if let Some(new) = renewal.changes.file(&file.contents.0, Language::Plain) {
            file.contents = Text(new);
        }
    }
    draft.addresses_inside.clone_from(&renewal.pairs);
    watch::identifiers(draft, renewal)?;
    watch::strangers(draft, renewal, &known)?;
    leases(draft, renewal, network, assigned, request);
    Ok(())
}

/// One file of those that are known.
fn follow(draft: &mut Draft<'_>, renewal: &Renewal, path: &str, language: Language) -> Result<()> {
    let mut left = None;
    draft.edit(path, WHY, |old| {
        text::map_lines(old, |body| {
            if text::is_comment(body) || body.trim_ascii_start().starts_with(b";") {
                return None;
            }
            let new = renewal.changes.line_unless(body, language, is_identifier);
            left = left.or_else(|| renewal.changes.find(new.as_deref().unwrap_or(body)));
            new
        })
    })?;
    if let Some(at) = left {
        watch::identifier(draft, renewal.pair(at), path);
    }
    Ok(())
}

/// True where the value that follows is one that a DHCP server knows the machine by.
fn is_identifier(before: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[b"clientid", b"duid"];
    let letters: Vec<u8> =
        key(before).iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    WORDS.iter().any(|word| letters.windows(word.len()).any(|part| part == *word))
}

/// What says the meaning of the value that follows: `macaddress` for `{match: {macaddress: "`, `client-id` for `<client-id>`. Where no
/// sign stands between a key and its value, all words of the setting: `send dhcp-client-identifier`.
fn key(before: &[u8]) -> &[u8] {
    let end =
        |text: &[u8], is: fn(u8) -> bool| text.iter().rposition(|byte| !is(*byte)).map_or(0, |at| at + 1);
    let is_around = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let (text, around) = before.split_at(end(before, is_around));
    match text.split_last() {
        Some((b'=' | b'>', key)) | Some((b':', key)) if !(text.ends_with(b":") && around.is_empty()) => {
            let key = key.get(..end(key, is_around)).unwrap_or_default();
            key.get(end(key, is_word)..).unwrap_or_default()
        }
        _ => {
            let start = text.iter().rposition(|byte| b",;{}[]<>".contains(byte)).map_or(0, |at| at + 1);
            text.get(start..).unwrap_or_default()
        }
    }
}

/// A file that is named by the address: SUSE's up to SLES 9. Gives both names.
fn rename(draft: &mut Draft<'_>, renewal: &Renewal, path: &str) -> Result<Vec<String>> {
    let Some((folder, name)) = path.rsplit_once('/') else { return Ok(Vec::new()) };
    // What stands before the address is no part of it.
    let Some((start, address)) = name.split_once("-id-") else { return Ok(Vec::new()) };
    let Some(new) = renewal.changes.line(address.as_bytes(), Language::Plain) else { return Ok(Vec::new()) };
    let new = format!("{folder}/{start}-id-{}", String::from_utf8_lossy(&new));
    let Some(contents) = draft.read(path)? else { return Ok(Vec::new()) };
    let mode = draft.scene.tree.metadata(path)?.map_or(0o644, |meta| meta.mode);
    draft.forget(|edited| edited == path);
    draft.write_mode(&new, contents, mode, WHY)?;
    draft.remove(path, "The file has the card's new hardware address in its name.")?;
    Ok(vec![path.to_owned(), new])
}

/// Kernel parameters, of the entries that are there and of those that will be made. Gives the files.
fn parameters(draft: &mut Draft<'_>, renewal: &Renewal) -> Result<Vec<String>> {
    // update-grub of GRUB legacy keeps its defaults in comments.
    let is_magic = |body: &[u8]| [&b"# kopt="[..], b"# xenkopt="].iter().any(|magic| body.starts_with(magic));
    let files = loader::files(draft)?;
    let sources = loader::sources(draft)?;
    let blocks: &[String] = &files.environments;
    let all = [files.configs, files.entries, sources, blocks.to_vec()].concat();
    for path in &all {
        let mut long = None;
        draft.edit(path, WHY, |old| {
            let new = text::map_lines(old, |body| match text::is_comment(body) && !is_magic(body) {
                true => None,
                false => renewal.changes.line(body, Language::Plain),
            })?;
            // GRUB writes into the blocks of its environment where they lie.
            long = renewal.changes.find(old).filter(|_| blocks.contains(path) && new.len() != old.len());
            long.is_none().then_some(new)
        })?;
        if let Some(at) = long {
            watch::stranger(draft, renewal.pair(at), path);
        }
    }
    Ok(all)
}

/// Says which unified kernel images have an old address among their own parameters.
pub(in crate::linux) fn built_in(draft: &mut Draft<'_>, request: &Request, copies: &loader::Copies) {
    let renewal = Renewal::of(request);
    for (path, parameters) in copies.built_in() {
        if let Some(at) = renewal.changes.find(parameters) {
            let (old, new) = renewal.pair(at);
            draft.find(
                "linux-nic-old-address",
                format!("The unified kernel image {path} has the hardware address {old} built in, and the card has {new} at the target."),
                "Write the new address into /etc/kernel/cmdline in the guest and build the image anew, then convert again.",
            );
        }
    }
}

/// Interfaces that ask for their address by DHCP, on cards that a server will not know.
fn leases(
    draft: &mut Draft<'_>,
    renewal: &Renewal,
    network: &Network,
    assigned: &Assigned,
    request: &Request,
) {
    let cards = readdress::cards(network, assigned, request);
    let mut told = BTreeSet::new();
    for one in network.configured.iter().filter(|one| one.addresses.iter().any(|address| address == "dhcp")) {
        let below = cards.get(&one.name).into_iter().flatten();
        let macs: Vec<&str> = below.filter_map(|card| request.nics.get(*card)?.mac.as_deref()).collect();
        let renewed: Vec<&str> = macs.into_iter().filter(|mac| renewal.at_target(mac) != *mac).collect();
        if renewed.is_empty() || !told.insert(&one.name) {
            continue;
        }
        let pairs: Vec<String> =
            renewed.iter().map(|mac| format!("{} instead of {mac}", renewal.at_target(mac))).collect();
        draft.find(
            "linux-nic-lease",
            format!(
                "{} asks for its address by DHCP ({}), and its card has the hardware address {}.",
                one.name,
                one.proof,
                pairs.join(", ")
            ),
            "Where the DHCP server reserves an address for the machine, let it do so for the new hardware address.",
        );
    }
}

#[cfg(test)]
mod tests;
