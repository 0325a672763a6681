use super::*;
use crate::family::Scene;
use crate::network_map::Host;
use crate::patch::{Action, PatchPlan};
use crate::target::Request;
use crate::tree::mem::MemTree;
use crate::windows::draft::tests::{draft, ten};
use crate::windows::draft::{System, Version};
use crate::windows::network::settings::Address;

fn host(text: &str) -> Host {
    let (ip, prefix) = text.split_once('/').unwrap();
    Host { ip: ip.parse().unwrap(), prefix: Some(prefix.parse().unwrap()) }
}

fn address(text: &str) -> Address {
    Address { host: host(text), is_skipped_as_source: false }
}

/// Two adapters, a driver package, an agent.
pub(super) fn steps() -> Steps {
    let first = Settings {
        addresses: vec![
            address("10.2.0.5/24"),
            Address { host: host("10.2.0.6/24"), is_skipped_as_source: true },
        ],
        gateways: vec![("10.2.0.1".parse().unwrap(), None), ("10.2.0.2".parse().unwrap(), Some(20))],
        addresses_v6: vec![host("2001:db8:2::5/64")],
        routes: vec![("::/0".parse().unwrap(), "2001:db8:2::1".parse().unwrap(), None)],
        servers: vec!["10.2.0.53".parse().unwrap(), "8.8.8.8".parse().unwrap()],
        servers_v6: vec!["2001:db8:2::53".parse().unwrap()],
        wins: vec!["10.2.0.54".parse().unwrap()],
        register: Some("both"),
        suffix: Some("corp.example".into()),
        netbios: Some(2),
        metric: Some(15),
        mtu: Some(9000),
        ..Settings::default()
    };
    let second = Settings { addresses: vec![address("192.168.7.5/25")], ..Settings::default() };
    let (a, b) = ("52:54:00:00:00:01", "52:54:00:00:00:0b");
    Steps {
        adapters: vec![
            Adapter { mac: a.into(), name: Some("Ethernet0".into()), settings: first },
            Adapter { mac: b.into(), name: None, settings: second },
        ],
        cards: vec![Some(a.into()), Some(b.into())],
        routes: vec![
            Route {
                old: ("10.9.0.0/16".parse().unwrap(), "10.1.0.254".parse().unwrap(), Some(5)),
                new: Some(("10.9.0.0/16".parse().unwrap(), "10.2.0.254".parse().unwrap(), Some(5))),
            },
            Route { old: ("0.0.0.0/0".parse().unwrap(), "10.1.0.1".parse().unwrap(), None), new: None },
        ],
        ghosts: vec![Ghost {
            guid: "{11111111-0000-4000-8000-000000000001}".into(),
            device: Some("PCI\\VEN_15AD&DEV_07B0\\FF565000&0".into()),
        }],
        commands: vec![
            Command {
                name: "drivers of the target".into(),
                line: "%SystemRoot%\\System32\\pnputil.exe -i -a %SystemRoot%\\landfall\\netkvm.inf".into(),
                seconds: 600,
                when: When::First,
                installer: None,
            },
            Command {
                name: "agent".into(),
                line:
                    "%SystemRoot%\\System32\\msiexec.exe /i \"%SystemRoot%\\landfall\\agents\\a b.msi\" /qn"
                        .into(),
                seconds: 20,
                when: When::Last,
                installer: Some("a b.msi".into()),
            },
        ],
    }
}

fn run(tree: &MemTree, steps: &Steps, system: System, registry: &[(&str, &str, Data)]) -> PatchPlan {
    let request = Request::default();
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let mut draft =
        draft(&scene, &request, system, registry, &[("landfall", "FirstStart", Data::text("done"))]);
    plan(&mut draft, steps).unwrap();
    draft.finish()
}

#[test]
fn the_plan_is_a_service_and_its_script() {
    let plan = run(&MemTree::new().dir("/Windows"), &steps(), ten(), &[]);
    insta::assert_json_snapshot!(plan.edits.iter().map(|edit| (&edit.path, &edit.why)).collect::<Vec<_>>());
    insta::assert_json_snapshot!(plan.edits.last().unwrap());
    let text = |path: &str| crate::testing::written(&plan, path).unwrap();
    insta::assert_snapshot!(text("/Windows/landfall/firstboot.cmd").replace("\r\n", "\n"));
    insta::assert_snapshot!(text("/Windows/landfall/step2.cmd").replace("\r\n", "\n"));
    for path in ["firstboot", "step1", "step2"] {
        let text = text(&format!("/Windows/landfall/{path}.cmd"));
        assert!(text.is_ascii() && text.lines().all(|line| line.len() < 8191));
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    }
}

#[test]
fn old_versions_are_not_asked_for_what_they_do_not_know() {
    let seven = System { version: Version::SEVEN, ..ten() };
    let of = |system| {
        let plan = run(&MemTree::new().dir("/Windows"), &steps(), system, &[]);
        crate::testing::written(&plan, "/Windows/landfall/firstboot.cmd").unwrap()
    };
    assert!(!of(seven).contains("pnputil.exe\" /remove-device"));
    assert!(of(ten()).contains("pnputil.exe\" /remove-device \"PCI\\VEN_15AD&DEV_07B0\\FF565000&0\""));
    let vista = System { version: Version::VISTA, ..ten() };
    assert!(!of(vista).contains("validate"));
}

#[test]
fn a_second_pass_changes_nothing_and_another_plan_replaces_the_first() {
    let first = run(&MemTree::new().dir("/Windows"), &steps(), ten(), &[]);
    let mut tree = MemTree::new().dir("/Windows");
    let mut registry = Vec::new();
    for edit in &first.edits {
        match &edit.action {
            Action::Write { contents, .. } => tree = tree.file(&edit.path, &contents.0),
            Action::Registry(edits) => {
                for edit in &edits.0 {
                    if let crate::patch::RegistryChange::Set { name, data, .. } = &edit.change {
                        registry.push((edit.key.as_str(), name.as_str(), data.clone()));
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let again = run(&tree, &steps(), ten(), &registry);
    let paths: Vec<&str> = again.edits.iter().map(|edit| edit.path.as_str()).collect();
    assert_eq!(paths, ["/Windows/System32/config/SOFTWARE"], "the mark of an earlier start");

    let tree = tree.file("/Windows/landfall/done.json", "{}").file("/Windows/landfall/STEP9.rc", "0");
    let tree = tree.file("/Windows/landfall/firstboot.log", "").file("/Windows/landfall/step1.log", "");
    let removed = |plan: &PatchPlan| {
        let gone = plan.edits.iter().filter(|edit| edit.action == Action::Remove);
        gone.map(|edit| edit.path.replace("/Windows/landfall/", "")).collect::<Vec<_>>()
    };
    let tree =
        tree.file("/Windows/landfall/agents/A B.msi", "").file("/Windows/landfall/agents/A B.msi.log", "");
    assert_eq!(removed(&run(&tree, &steps(), ten(), &registry)), ["STEP9.rc", "done.json"]);
    let other = Steps { commands: Vec::new(), ..steps() };
    let plan = run(&tree, &other, ten(), &registry);
    assert_eq!(removed(&plan), ["STEP9.rc", "done.json", "step1.cmd", "step2.cmd", "agents/A B.msi"]);
    let plan = run(&tree, &Steps::default(), ten(), &registry);
    assert!(removed(&plan).contains(&"firstboot.cmd".to_owned()));
    insta::assert_json_snapshot!(plan.edits.last().unwrap());
    assert!(run(&MemTree::new().dir("/Windows"), &Steps::default(), ten(), &[]).edits.is_empty());
}

#[test]
fn a_command_that_is_no_line_is_refused() {
    let request = Request::default();
    let tree = MemTree::new().dir("/Windows");
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    for (line, name, seconds) in [
        ("a\nb", "x", 1),
        ("", "x", 1),
        ("é", "x", 1),
        ("a & b", "x", 1),
        ("a >b", "x", 1),
        ("a", "x & y", 1),
        ("a", "x", 0),
        ("a", "x", 3601),
    ] {
        let mut draft = draft(&scene, &request, ten(), &[], &[]);
        let command =
            Command { name: name.into(), line: line.into(), seconds, when: When::Last, installer: None };
        let steps = Steps { commands: vec![command], ..Steps::default() };
        assert!(plan(&mut draft, &steps).is_err(), "{line:?} {name:?} {seconds}");
    }
}
