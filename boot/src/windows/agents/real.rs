//! Agents in hives of real machines: two with VMware Tools, one with VirtualBox additions; there and back.

use super::tests::{Hives, pass, to};
use crate::target::{Platform, Request, Services};
use crate::testing::{corpus, unpack};
use crate::windows::hive::Hive;
use crate::windows::registry::Keys;
use crate::windows::registry::tests::MemKeys;

/// What matters of a hive, which need not be clean: start types, what waits for what, filters.
fn excerpt(hive: &Hive) -> MemKeys {
    let below = |key: &str| -> Vec<String> {
        let names = Keys::subkeys(hive, key).unwrap();
        names.into_iter().map(|name| format!("{key}\\{name}")).collect()
    };
    let mut all = MemKeys::default();
    let mut copy = |key: &str, names: &[&str]| {
        for name in names {
            if let Some(data) = Keys::value(hive, key, name).unwrap() {
                all.set(key, name, &data).unwrap();
            }
        }
    };
    below("ControlSet001\\Services").iter().for_each(|key| copy(key, &["Start", "DependOnService"]));
    let buses = below("ControlSet001\\Enum");
    let devices: Vec<_> = buses.iter().flat_map(|bus| below(bus)).collect();
    let instances = devices.iter().flat_map(|device| below(device));
    for key in below("ControlSet001\\Control\\Class").into_iter().chain(instances) {
        copy(&key, &["UpperFilters", "LowerFilters"]);
    }
    all
}

#[test]
fn agents_of_real_guests_go_and_come_back() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["SYSTEM", "SYSTEM_2", "SYSTEM_WIN_10_1709"] {
        let bytes = std::fs::read(unpack(&corpus.join("hives/regipy"), name, folder.path())).unwrap();
        let system = excerpt(&Hive::open_stale(bytes).unwrap());
        let old = Hives { system, software: MemKeys::default() };
        let (plan, there) = pass(&old, &to(Platform::Kvm));
        let changed: Vec<_> = plan.edits.iter().filter(|edit| edit.path.ends_with("SYSTEM")).collect();
        insta::assert_json_snapshot!(format!("real_{name}"), (changed, &plan.findings));
        assert_ne!(there.system, old.system, "{name}");
        assert_eq!(pass(&there, &to(Platform::Kvm)).0.edits, [], "{name}");
        // VirtualBox is no target: its additions come back when they are kept.
        let services = Services { keep: vec!["virtualbox-guest-additions".into()], drop: Vec::new() };
        let (_, back) = pass(&there, &Request { services, ..to(Platform::Esxi) });
        assert_eq!(back, old, "{name}");
    }
}
