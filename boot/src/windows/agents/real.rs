//! Agents in hives of real machines: two with VMware Tools, one with VirtualBox additions; there and back.

use super::*;
use crate::family::Scene;
use crate::patch::{Action, PatchPlan, RegistryEdits};
use crate::target::{Platform, Request, Services};
use crate::testing::{corpus, unpack};
use crate::tree::mem::MemTree;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::hive::Hive;
use crate::windows::registry::tests::MemKeys;
use crate::windows::registry::{Keys, Registry, apply};
use std::collections::BTreeMap;

/// One pass over copies of the hives: what is planned, and the hives with it.
fn pass(system: &[u8], software: &MemKeys, request: &Request) -> (PatchPlan, Vec<u8>, MemKeys) {
    let tree = MemTree::new();
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let mut draft = draft(&scene, request, ten(), &[], &[]);
    let open = || Hive::open_stale(system.to_vec()).unwrap();
    draft.registry = Registry::new(Box::new(open()));
    draft.software = Registry::new(Box::new(software.clone()));
    plan(&mut draft).unwrap();
    let plan = draft.finish();
    let (mut hive, mut software) = (open(), software.clone());
    for edit in &plan.edits {
        let Action::Registry(RegistryEdits(edits)) = &edit.action else { panic!("{edit:?}") };
        for edit in edits {
            match edit.key.starts_with("ControlSet001") {
                true => apply(&mut hive, edit).unwrap(),
                false => apply(&mut software, edit).unwrap(),
            }
        }
    }
    let system = match plan.edits.is_empty() {
        true => system.to_vec(),
        false => hive.finish().unwrap(),
    };
    (plan, system, software)
}

/// Start types and filters: all that is changed, and all that must not be.
fn state(system: &[u8]) -> BTreeMap<String, Data> {
    let hive = Hive::open_stale(system.to_vec()).unwrap();
    let mut all = BTreeMap::new();
    let mut note = |key: String, name: &str| {
        if let Some(data) = Keys::value(&hive, &key, name).unwrap() {
            all.insert(format!("{key} {name}"), data);
        }
    };
    let below = |key: &str| -> Vec<String> {
        let names = Keys::subkeys(&hive, key).unwrap();
        names.into_iter().map(|name| format!("{key}\\{name}")).collect()
    };
    below("ControlSet001\\Services").into_iter().for_each(|key| note(key, "Start"));
    let devices = below("ControlSet001\\Enum");
    let devices = devices.iter().flat_map(|bus| below(bus)).collect::<Vec<_>>();
    let devices = devices.iter().flat_map(|device| below(device));
    for key in below("ControlSet001\\Control\\Class").into_iter().chain(devices) {
        note(key.clone(), "UpperFilters");
        note(key, "LowerFilters");
    }
    all
}

#[test]
fn agents_of_real_guests_go_and_come_back() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["SYSTEM", "SYSTEM_2", "SYSTEM_WIN_10_1709"] {
        let bytes = std::fs::read(unpack(&corpus.join("hives/regipy"), name, folder.path())).unwrap();
        let to = |platform| Request { platform, ..Request::default() };
        let (plan, there, kept) = pass(&bytes, &MemKeys::default(), &to(Platform::Kvm));
        let changed: Vec<_> = plan.edits.iter().filter(|edit| edit.path.ends_with("SYSTEM")).collect();
        insta::assert_json_snapshot!(format!("real_{name}"), (changed, &plan.findings));
        let (again, ..) = pass(&there, &kept, &to(Platform::Kvm));
        assert_eq!(again.edits, [], "{name}");
        // VirtualBox is no target: its additions come back when they are kept.
        let services = Services { keep: vec!["virtualbox-guest-additions".into()], drop: Vec::new() };
        let home = Request { services, ..to(Platform::Esxi) };
        let (_, back, kept) = pass(&there, &kept, &home);
        assert_eq!(state(&back), state(&bytes), "{name}");
        assert_ne!(state(&there), state(&bytes), "{name}");
        assert_eq!(kept, MemKeys::default(), "{name}");
    }
}
