//! Which adapter of the guest is which card of the machine's definition.
//!
//! Evidence, the strongest first: a hardware address that Windows keeps for the adapter; that the machine has one adapter and
//! one card; what is left over, in the order of the slots. What is not clear is not matched, and a finding says so: an address
//! on the wrong card is worse than none.

use super::settings::{Kind, WindowsInterface};
use crate::target::Nic;

/// Places in the list of adapters and in that of cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Adapter.
    pub interface: usize,
    /// Card.
    pub card: usize,
}

/// The result.
#[derive(Debug, Default)]
pub struct Matched {
    /// In the order of the cards.
    pub pairs: Vec<Match>,
    /// Adapters of cards that the machine does not have any more.
    pub ghosts: Vec<usize>,
    /// Id, sentence, remedy.
    pub findings: Vec<(&'static str, String, &'static str)>,
}

/// Finds them.
pub fn matched(interfaces: &[WindowsInterface], nics: &[Nic]) -> Matched {
    let mut result = Matched::default();
    let cards: Vec<usize> = indices(interfaces, |one| one.kind == Kind::Card);
    let mut open: Vec<usize> = Vec::new();
    let mut unclear: Vec<usize> = Vec::new();
    for (card, nic) in nics.iter().enumerate() {
        let Some(mac) = &nic.mac else {
            open.push(card);
            continue;
        };
        let of_mac: Vec<usize> = cards.iter().copied().filter(|at| has(interfaces.get(*at), mac)).collect();
        match latest(interfaces, &of_mac) {
            Some(interface) => {
                result.ghosts.extend(of_mac.iter().copied().filter(|other| *other != interface));
                result.pairs.push(Match { interface, card });
            }
            None if of_mac.is_empty() => open.push(card),
            None => {
                unclear.extend(of_mac.iter().copied());
                let names: Vec<&str> =
                    of_mac.iter().filter_map(|at| interfaces.get(*at)).map(WindowsInterface::shown).collect();
                result.findings.push((
                    "windows-nic-ambiguous",
                    format!("The card {mac} has been the adapters {}, all with settings.", names.join(", ")),
                    "Remove those that are gone in the source's Device Manager, and convert again; or set the addresses on the target.",
                ));
            }
        }
    }
    let taken: Vec<usize> = result
        .pairs
        .iter()
        .map(|pair| pair.interface)
        .chain(result.ghosts.iter().copied())
        .chain(unclear)
        .collect();
    let left: Vec<usize> = cards.iter().copied().filter(|at| !taken.contains(at)).collect();
    rest(interfaces, nics, &left, &open, cards.len(), &mut result);
    result.pairs.sort_by_key(|pair| pair.card);
    result
}

fn indices(interfaces: &[WindowsInterface], is_meant: impl Fn(&WindowsInterface) -> bool) -> Vec<usize> {
    interfaces.iter().enumerate().filter(|(_, one)| is_meant(one)).map(|(at, _)| at).collect()
}

fn has(interface: Option<&WindowsInterface>, mac: &str) -> bool {
    interface.is_some_and(|one| one.macs.iter().any(|(own, _)| own == mac))
}

/// Of several adapters with one address only one can be there: a card that changes its kind or slot leaves the others behind.
/// The first start that landfall prepares marks those; Windows 8 and later know when each was plugged in last.
fn latest(interfaces: &[WindowsInterface], candidates: &[usize]) -> Option<usize> {
    let known = |at: &usize| interfaces.get(*at);
    let unmarked: Vec<usize> =
        candidates.iter().copied().filter(|at| known(at).is_some_and(|one| !one.is_cleared)).collect();
    if let [only] = unmarked.as_slice() {
        return Some(*only);
    }
    let rest = if unmarked.is_empty() { candidates } else { &unmarked };
    let arrivals: Option<Vec<(u64, usize)>> =
        rest.iter().map(|at| Some((known(at)?.arrived?, *at))).collect();
    if let Some(last) = arrivals.and_then(|arrivals| arrivals.into_iter().max()) {
        return Some(last.1);
    }
    let (first, others) = rest.split_first()?;
    let is_same = |at: &usize| known(at).map(|one| &one.settings) == known(first).map(|one| &one.settings);
    others.iter().all(is_same).then_some(*first)
}

fn rest(
    interfaces: &[WindowsInterface],
    nics: &[Nic],
    left: &[usize],
    open: &[usize],
    cards: usize,
    result: &mut Matched,
) {
    if let ([interface], [card], 1, 1) = (left, open, nics.len(), cards) {
        result.pairs.push(Match { interface: *interface, card: *card });
        return;
    }
    // What Windows has an address for, and the machine no card of it, is of earlier hardware.
    let is_known = |at: &usize| interfaces.get(*at).is_some_and(|one| !one.macs.is_empty());
    let (ghosts, unknown): (Vec<usize>, Vec<usize>) = left.iter().partition(|at| is_known(at));
    let mut by_slot: Vec<usize> = unknown.clone();
    by_slot.sort_by_key(|at| interfaces.get(*at).and_then(|one| one.slot));
    let has_slots = unknown.len() == 1
        || unknown.iter().all(|at| interfaces.get(*at).is_some_and(|one| one.slot.is_some()));
    let is_static = |at: &usize| interfaces.get(*at).is_some_and(|one| one.settings.is_static());
    if !unknown.is_empty() && unknown.len() == open.len() && has_slots {
        let pairs = by_slot.iter().zip(open);
        let pairs: Vec<Match> =
            pairs.map(|(interface, card)| Match { interface: *interface, card: *card }).collect();
        if unknown.iter().any(is_static) {
            let named = pairs.iter().filter_map(|pair| {
                let mac = nics.get(pair.card)?.mac.as_deref().unwrap_or("without an address");
                Some(format!("{} is the card {mac}", interfaces.get(pair.interface)?.shown()))
            });
            result.findings.push((
                "windows-nic-by-order",
                format!("By the order of their slots {}.", named.collect::<Vec<_>>().join(", ")),
                "Compare with `getmac /v` on the source.",
            ));
        }
        result.pairs.extend(pairs);
    } else {
        for at in unknown.iter().filter(|at| is_static(at)) {
            let Some(one) = interfaces.get(*at) else { continue };
            result.findings.push((
                "windows-nic-unmatched",
                format!(
                    "{} ({}) has addresses of its own, and nothing tells which card it is on.",
                    one.shown(),
                    one.description
                ),
                "Set them on the target by hand, or put the cards' hardware addresses into the definition.",
            ));
        }
    }
    for at in ghosts.iter().filter(|at| is_static(at)) {
        let (Some(one), Some((mac, _))) =
            (interfaces.get(*at), interfaces.get(*at).and_then(|one| one.macs.first()))
        else {
            continue;
        };
        result.findings.push((
            "windows-nic-gone",
            format!("{} has addresses of its own, and its card ({mac}) is not in the machine's definition.", one.shown()),
            "Ignore this if the card was removed long ago; else add a card with this address to the definition.",
        ));
    }
    result.ghosts.extend(ghosts);
}
