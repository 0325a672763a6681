//! Old-style snapshots of a volume group: which volumes they are of, and which volumes cannot be opened because of them.

use super::assembly::NotOpened;
use super::text::{self, Section};
use std::collections::{BTreeMap, BTreeSet};

/// Old-style snapshots of a group: a hidden volume ties the origin to the store of what was overwritten.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Origin to its snapshots.
    pub(super) origins: BTreeMap<String, Vec<String>>,
    /// Store to its origin.
    stores: BTreeMap<String, String>,
    /// Origins that a snapshot is being merged into.
    merging: BTreeMap<String, String>,
    /// What those merge from.
    merged: BTreeSet<String>,
    /// The hidden volumes.
    ties: BTreeSet<String>,
}

impl Snapshots {
    pub(super) fn of(volumes: &Section) -> Snapshots {
        let mut out = Snapshots::default();
        let pieces = volumes
            .iter()
            .filter_map(|(name, volume)| Some((name, volume.section()?)))
            .flat_map(|(name, volume)| volume.values().map(move |piece| (name, piece)));
        for (name, piece) in pieces.filter_map(|(name, piece)| Some((name, piece.section()?))) {
            let field = |name: &str| piece.get(name).and_then(text::Value::text).map(str::to_owned);
            if field("type").as_deref() != Some("snapshot") {
                continue;
            }
            out.ties.insert(name.clone());
            let Some(origin) = field("origin") else { continue };
            if let Some(store) = field("cow_store") {
                out.origins.entry(origin.clone()).or_default().push(store.clone());
                out.stores.insert(store, origin);
            } else if let Some(store) = field("merging_store") {
                out.stores.insert(store.clone(), origin.clone());
                out.merged.insert(store.clone());
                out.merging.insert(origin, store);
            }
        }
        out
    }

    /// What a user sees: a snapshot goes by the name of its store, which has no flag of its own.
    pub(super) fn is_visible(&self, name: &str, has_flag: bool) -> bool {
        (has_flag || self.stores.contains_key(name))
            && !self.merged.contains(name)
            && !self.ties.contains(name)
    }

    pub(super) fn objection(&self, name: &str) -> Option<NotOpened> {
        if let Some(origin) = self.stores.get(name) {
            return Some(("lvm-snapshot".into(), format!("it is a snapshot of {origin}")).into());
        }
        let store = self.merging.get(name)?;
        Some(("lvm-merging".into(), format!("the snapshot {store} is being merged into it")).into())
    }
}
