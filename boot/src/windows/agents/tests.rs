use super::*;
use crate::family::Scene;
use crate::patch::{Action, PatchPlan, RegistryChange, RegistryEdits};
use crate::target::{Platform, Request, Services};
use crate::tree::mem::MemTree;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::first_boot::Command;
use crate::windows::registry::tests::MemKeys;
use crate::windows::registry::{Keys, Registry, apply};

const DISK_CLASS: &str = "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}";
const MOUSE: &str = "ControlSet001\\Enum\\ACPI\\VMW0003\\4&1";

/// A guest's two hives, which stay between passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hives {
    pub system: MemKeys,
    pub software: MemKeys,
}

fn service(name: &str, start: u32) -> (String, &'static str, Data) {
    (format!("ControlSet001\\Services\\{name}"), "Start", Data::dword(start))
}

fn hives(system: &[(String, &'static str, Data)], software: &[(&str, &str, Data)]) -> Hives {
    let system: Vec<_> = system.iter().map(|(key, name, data)| (key.as_str(), *name, data.clone())).collect();
    Hives { system: MemKeys::of(&system), software: MemKeys::of(software) }
}

/// VMware Tools as they lie in a real Windows 10, with filters.
fn vmware() -> Hives {
    hives(
        &[
            service("VMTools", 2),
            service("VGAuthService", 2),
            service("vmvss", 3),
            service("vmci", 0),
            service("vsock", 0),
            service("VMMemCtl", 2),
            service("VMRawDsk", 1),
            service("vmmouse", 3),
            service("vsepflt", 0),
            service("pvscsi", 0),
            service("partmgr", 0),
            service("Other", 2),
            ("ControlSet001\\Services\\Other".into(), "DependOnService", Data::texts(["RPCSS", "vmtools"])),
            service("OnDemand", 3),
            ("ControlSet001\\Services\\OnDemand".into(), "DependOnService", Data::texts(["VMTools"])),
            (DISK_CLASS.into(), "UpperFilters", Data::texts(["first", "vmrawdsk", "PartMgr"])),
            (DISK_CLASS.into(), "LowerFilters", Data::texts(["vsepflt"])),
            (MOUSE.into(), "UpperFilters", Data::texts(["vmmouse"])),
        ],
        &[
            (
                RUN[0],
                "VMware User Process",
                Data::text("\"C:\\Program Files\\VMware\\vmtoolsd.exe\" -n vmusr"),
            ),
            (RUN[0], "Others", Data::text("o.exe")),
            (RUN[1], "VMware Tools", Data::text("\"C:\\Program Files (x86)\\VMware\\VMwareTray.exe\"")),
        ],
    )
}

/// One pass: the plan, and the hives with it.
pub(super) fn pass(hives: &Hives, request: &Request) -> (PatchPlan, Hives) {
    let tree = MemTree::new();
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let mut draft = draft(&scene, request, ten(), &[], &[]);
    draft.registry = Registry::new(Box::new(hives.system.clone()));
    draft.software = Registry::new(Box::new(hives.software.clone()));
    plan(&mut draft, &mut Steps::default()).unwrap();
    let plan = draft.finish();
    let mut after = hives.clone();
    for edit in &plan.edits {
        let Action::Registry(RegistryEdits(edits)) = &edit.action else { panic!("{edit:?}") };
        let keys = if edit.path.ends_with("SYSTEM") { &mut after.system } else { &mut after.software };
        for edit in edits {
            apply(keys, edit).unwrap();
        }
    }
    (plan, after)
}

pub(super) fn to(platform: Platform) -> Request {
    Request { platform, ..Request::default() }
}

fn start_of(hives: &Hives, service: &str) -> Option<u32> {
    let value = hives.system.value(&format!("ControlSet001\\Services\\{service}"), "Start").unwrap();
    value.and_then(|data| data.as_dword())
}

fn filters_of(hives: &Hives, key: &str, value: &str) -> Vec<String> {
    hives.system.value(key, value).unwrap().and_then(|data| data.as_texts()).unwrap_or_default()
}

#[test]
fn what_starts_by_itself_is_switched_off_filters_first() {
    let (plan, after) = pass(&vmware(), &to(Platform::Kvm));
    for (service, start) in [
        ("VMTools", 4),
        ("VGAuthService", 4),
        ("vmvss", 3),
        ("vmci", 4),
        ("vsock", 4),
        ("VMMemCtl", 4),
        ("VMRawDsk", 4),
        ("vmmouse", 3),
        ("vsepflt", 4),
        ("pvscsi", 0),
        ("partmgr", 0),
    ] {
        assert_eq!(start_of(&after, service), Some(start), "{service}");
    }
    assert_eq!(filters_of(&after, DISK_CLASS, "UpperFilters"), ["first", "PartMgr"]);
    assert!(after.system.value(DISK_CLASS, "LowerFilters").unwrap().is_none());
    assert!(after.system.value(MOUSE, "UpperFilters").unwrap().is_none());
    assert!(after.software.value(RUN[0], "VMware User Process").unwrap().is_none());
    assert!(after.software.value(RUN[0], "Others").unwrap().is_some());
    let system = plan.edits.iter().find(|edit| edit.path.ends_with("SYSTEM")).unwrap();
    let Action::Registry(RegistryEdits(edits)) = &system.action else { panic!() };
    let is_start = |edit: &crate::patch::RegistryEdit| matches!(&edit.change, RegistryChange::Set { name, .. } if name == "Start");
    let first = edits.iter().position(is_start).unwrap();
    assert!(edits[first..].iter().all(is_start), "a filter after a service");
    insta::assert_json_snapshot!("vmware_to_kvm", plan);
}

#[test]
fn a_pass_back_gives_back_exactly() {
    let old = vmware();
    let (_, there) = pass(&old, &to(Platform::Kvm));
    let (again, same) = pass(&there, &to(Platform::Kvm));
    assert_eq!((again.edits, &same), (vec![], &there));
    // Over a third platform.
    let (_, third) = pass(&there, &to(Platform::Hyperv));
    assert_eq!(third, there);
    let (plan, back) = pass(&third, &to(Platform::Esxi));
    assert_eq!(back.system, old.system);
    assert!(!back.software.exists("landfall").unwrap());
    assert_eq!([0, 1].map(|at| back.software.values(RUN[at]).unwrap().len()), [2, 1]);
    let ids: Vec<_> = plan.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["windows-agent-enabled"]);
    let (nothing, _) = pass(&back, &to(Platform::Esxi));
    assert_eq!((nothing.edits, nothing.findings), (vec![], vec![]));
}

#[test]
fn what_somebody_changed_since_counts() {
    let (_, mut there) = pass(&vmware(), &to(Platform::Kvm));
    let vmtools = "ControlSet001\\Services\\VMTools";
    there.system.set(vmtools, "Start", &Data::dword(3)).unwrap();
    there.system.set(DISK_CLASS, "UpperFilters", &Data::texts(["first", "new", "PartMgr"])).unwrap();
    let (_, back) = pass(&there, &to(Platform::Esxi));
    assert_eq!(start_of(&back, "VMTools"), Some(3));
    // Behind the one that it stood behind.
    assert_eq!(filters_of(&back, DISK_CLASS, "UpperFilters"), ["first", "vmrawdsk", "new", "PartMgr"]);
    // Uninstalled at the target: a filter without its driver would keep disks from starting.
    let (_, mut there) = pass(&vmware(), &to(Platform::Kvm));
    there.system.delete("ControlSet001\\Services\\vsepflt").unwrap();
    let (_, back) = pass(&there, &to(Platform::Esxi));
    assert!(filters_of(&back, DISK_CLASS, "LowerFilters").is_empty());
    // Disabled by its owner before the first pass: nothing to give back, and said at home. Its filter stays out.
    let mut owner = vmware();
    for service in ["VMTools", "vsepflt"] {
        let key = format!("ControlSet001\\Services\\{service}");
        owner.system.set(&key, "Start", &Data::dword(4)).unwrap();
    }
    let (_, there) = pass(&owner, &to(Platform::Kvm));
    let services = Services { keep: vec!["vmware-tools".into()], drop: vec![] };
    let kept = Request { services, ..to(Platform::Hyperv) };
    for (request, is_told) in [(to(Platform::Esxi), true), (kept, false)] {
        let (plan, back) = pass(&there, &request);
        assert_eq!((start_of(&back, "VMTools"), start_of(&back, "vmci")), (Some(4), Some(0)));
        assert!(filters_of(&back, DISK_CLASS, "LowerFilters").is_empty());
        let told = plan.findings.iter().any(|finding| finding.id == "windows-agent-by-owner");
        assert_eq!(told, is_told);
    }
}

#[test]
fn names_keep_and_drop() {
    let services = |keep: &[&str], drop: &[&str]| Services {
        keep: keep.iter().map(|name| (*name).to_owned()).collect(),
        drop: drop.iter().map(|name| (*name).to_owned()).collect(),
    };
    let keep = Request { services: services(&["vmware-tools"], &[]), ..to(Platform::Kvm) };
    let (plan, after) = pass(&vmware(), &keep);
    assert_eq!((plan.edits.len(), &after), (0, &vmware()));
    // An earlier pass's doing is taken back.
    let (_, there) = pass(&vmware(), &to(Platform::Kvm));
    assert_eq!(pass(&there, &keep).1.system, vmware().system);
    let drop = Request { services: services(&[], &["vmware-tools"]), ..to(Platform::Esxi) };
    let (_, after) = pass(&vmware(), &drop);
    assert_eq!(start_of(&after, "VMTools"), Some(4));
    // It may start from this one.
    assert_eq!(start_of(&after, "pvscsi"), Some(0));
}

#[test]
fn two_agents_share_a_list_of_filters() {
    let old = hives(
        &[
            service("xenfilt", 0),
            service("xenbus", 0),
            service("xenvbd", 0),
            service("VBoxGuest", 0),
            service("VBoxMouse", 3),
            (DISK_CLASS.into(), "UpperFilters", Data::texts(["xenfilt", "VBoxMouse", "PartMgr"])),
        ],
        &[],
    );
    let (_, there) = pass(&old, &to(Platform::Kvm));
    assert_eq!(filters_of(&there, DISK_CLASS, "UpperFilters"), ["PartMgr"]);
    assert_eq!((start_of(&there, "xenbus"), start_of(&there, "xenvbd")), (Some(4), Some(0)));
    let (_, half) = pass(&there, &to(Platform::Xen));
    assert_eq!(filters_of(&half, DISK_CLASS, "UpperFilters"), ["xenfilt", "PartMgr"]);
    // What is still out comes back at its own home, or when it is kept.
    let services = Services { keep: vec!["virtualbox-guest-additions".into()], drop: vec![] };
    let (_, whole) = pass(&half, &Request { services, ..to(Platform::Xen) });
    assert_eq!(whole.system, old.system);
    assert!(!whole.software.exists("landfall").unwrap());
}

/// A filter that came after the first pass gets its place in what is kept, too.
#[test]
fn what_came_between_two_passes_comes_back() {
    let (_, mut there) = pass(&vmware(), &to(Platform::Kvm));
    there.system.set("ControlSet001\\Services\\VBoxGuest", "Start", &Data::dword(1)).unwrap();
    there.system.set("ControlSet001\\Services\\VBoxMouse", "Start", &Data::dword(3)).unwrap();
    there.system.set(DISK_CLASS, "UpperFilters", &Data::texts(["first", "PartMgr", "VBoxMouse"])).unwrap();
    let (_, there) = pass(&there, &to(Platform::Kvm));
    assert_eq!(filters_of(&there, DISK_CLASS, "UpperFilters"), ["first", "PartMgr"]);
    let services = Services { keep: vec!["virtualbox-guest-additions".into()], drop: vec![] };
    let (_, back) = pass(&there, &Request { services, ..to(Platform::Esxi) });
    assert_eq!(filters_of(&back, DISK_CLASS, "UpperFilters"), ["first", "vmrawdsk", "PartMgr", "VBoxMouse"]);
    assert!(!back.software.exists("landfall").unwrap());
}

#[test]
fn a_filter_without_which_there_is_no_network_stays() {
    let needs = |service: &str, others: &[&str]| {
        (format!("ControlSet001\\Services\\{service}"), "DependOnService", Data::texts(others))
    };
    let ndi = |run: Option<u32>| {
        let key = format!("ControlSet001\\{NETWORK_FILTERS}\\{{11111111-0000-0000-0000-000000000000}}\\Ndi");
        let mut values = vec![
            service("VMTools", 2),
            service("vnetflt", 1),
            (key.clone(), "Service", Data::text("VNETFLT")),
            needs("vnetflt", &["TCPIP", "VSEPFLT"]),
            service("vsepflt", 0),
            needs("vsepflt", &["vmci", "vnetflt"]),
            service("vmci", 1),
        ];
        values.extend(run.map(|run| (key, "FilterRunType", Data::dword(run))));
        hives(&values, &[])
    };
    for (run, start) in [(Some(2), 4), (Some(1), 1), (None, 1)] {
        let (plan, after) = pass(&ndi(run), &to(Platform::Kvm));
        assert_eq!(start_of(&after, "vnetflt"), Some(start), "{run:?}");
        // What it waits for stays with it.
        assert_eq!(start_of(&after, "vmci"), Some(start), "{run:?}");
        assert_eq!(start_of(&after, "VMTools"), Some(4));
        let told = plan.findings.iter().any(|finding| finding.id == "windows-agent-network-filter");
        assert_eq!(told, start == 1, "{run:?}");
    }
}

#[test]
fn a_guest_without_agents_is_left_alone() {
    let plain = hives(&[service("disk", 0)], &[]);
    for platform in Platform::ALL {
        let (plan, after) = pass(&plain, &to(*platform));
        assert_eq!((plan.edits.len(), &after), (0, &plain));
        let missing = plan.findings.iter().any(|finding| finding.id == "windows-agent-missing");
        assert_eq!(missing, *platform != Platform::Hyperv, "{platform:?}");
    }
}

/// The step that runs this installer in a Windows 10 at KVM.
pub fn staged_command(installer: AgentInstaller) -> Command {
    let tree = MemTree::new().dir("/Windows");
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    let request = Request { agent_installers: vec![installer], ..to(Platform::Kvm) };
    let mut draft = draft(&scene, &request, ten(), &[], &[]);
    let mut steps = Steps::default();
    plan(&mut draft, &mut steps).unwrap();
    let missing = draft.finish().findings.iter().any(|finding| finding.id == "windows-agent-missing");
    assert!(!missing, "it will be there");
    steps.commands.remove(0)
}

/// Names mean one agent, and nothing that the machine may start from is among what is switched off.
#[test]
fn the_table_is_sound() {
    let mut names: Vec<_> = TABLE.iter().map(|agent| agent.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
    for agent in TABLE {
        for service in agent.services {
            assert!(!DEVICES.iter().any(|device| device.eq_ignore_ascii_case(service)), "{service}");
        }
    }
    for platform in Platform::ALL {
        if let Some((name, _)) = table::wanted(*platform) {
            let agent = TABLE.iter().find(|agent| agent.name == name).unwrap();
            assert!(agent.platforms.contains(platform), "{name}");
        }
    }
}
