use super::*;
use crate::apply::Change;
use crate::family::Scene;
use crate::patch::{Action, PatchPlan};
use crate::target::Services;
use crate::tree::mem::MemTree;

fn guest(family: &str, distribution: &str) -> Guest {
    Guest {
        family: family.into(),
        distribution: Fact::new(distribution, ""),
        version: Fact::new("", ""),
        name: Fact::new("", ""),
        architecture: Fact::new("x86_64", ""),
        host_name: None,
        kernels: Vec::new(),
        mounts: Vec::new(),
        init: None,
        boot_modes: Vec::new(),
        interfaces: Vec::new(),
        agents: Vec::new(),
        windows: None,
    }
}

fn run_for(tree: &MemTree, packages: &[&str], request: &Request) -> PatchPlan {
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let mut draft = Draft::new(&scene);
    let status: String =
        packages.iter().map(|name| format!("Package: {name}\nStatus: install ok installed\n\n")).collect();
    plan(&mut draft, &Packages::parse(status.as_bytes()), request, &guest("debian", "debian")).unwrap();
    draft.finish()
}

fn run(tree: &MemTree, packages: &[&str]) -> PatchPlan {
    run_for(tree, packages, &Request::default())
}

fn to(platform: Platform) -> Request {
    Request { platform, ..Request::default() }
}

fn apply(tree: &mut MemTree, plan: &PatchPlan) {
    let changes: Vec<Change> = plan
        .edits
        .iter()
        .map(|edit| {
            let path = edit.path.clone();
            match &edit.action {
                Action::Write { contents, mode } => {
                    Change::Put { path, bytes: contents.0.clone(), mode: *mode }
                }
                Action::Symlink { target } => Change::Symlink { path, target: target.clone() },
                Action::Remove => Change::Remove { path },
                other => panic!("{other:?}"),
            }
        })
        .collect();
    tree.apply(&changes).unwrap();
}

fn ids(plan: &PatchPlan) -> Vec<&str> {
    plan.findings.iter().map(|finding| finding.id).collect()
}

/// Units as Debian 12 and RHEL 9 ship them, shortened.
const VMTOOLSD: &str = "[Unit]\nConditionVirtualization=vmware\n[Service]\nExecStart=/usr/bin/vmtoolsd\n[Install]\nWantedBy=multi-user.target\n";
const WAAGENT: &str = "[Unit]\nAfter=network-online.target\n[Service]\nExecStart=/usr/sbin/waagent -daemon\n[Install]\nWantedBy=multi-user.target\n";
const KVP: &str = "[Unit]\nConditionVirtualization=microsoft\n[Service]\nExecStart=/usr/sbin/hypervkvpd\n[Install]\nWantedBy=multi-user.target\n";

/// What is to be installed has the name that the guest's distribution has for it, or comes from elsewhere.
#[test]
fn missing_agents_are_named_as_they_are_called_there() {
    let tree = MemTree::new();
    let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
    for (platform, family, distribution, expected) in [
        (Platform::Kvm, "debian", "debian", "Install qemu-guest-agent on the target"),
        (Platform::Hyperv, "debian", "debian", "Install hyperv-daemons on"),
        (Platform::Hyperv, "debian", "ubuntu", "Install the package linux-cloud-tools-virtual on"),
        (Platform::Hyperv, "redhat", "rhel", "Install hyperv-daemons on"),
        (Platform::Hyperv, "suse", "sles", "Install the package hyper-v on"),
        (Platform::Hyperv, "alpine", "alpine", "Install the package hvtools on"),
        (Platform::Azure, "debian", "debian", "Install the package waagent on"),
        (Platform::Azure, "debian", "ubuntu", "Install the package walinuxagent on"),
        (Platform::Azure, "redhat", "centos", "Install the package WALinuxAgent on"),
        (Platform::Azure, "suse", "opensuse-leap", "Install the package python-azure-agent on"),
        (Platform::Azure, "arch", "arch", "Install Azure's Linux agent (waagent) on"),
        (
            Platform::Ahv,
            "debian",
            "ubuntu",
            "Mount Nutanix Guest Tools from Prism and install them from there",
        ),
        (Platform::Xen, "debian", "debian", "Install the guest tools from the CD"),
        (Platform::Xen, "alpine", "alpine", "Install the package xe-guest-utilities on"),
    ] {
        let mut draft = Draft::new(&scene);
        let packages = Packages::parse(b"");
        plan(&mut draft, &packages, &to(platform), &guest(family, distribution)).unwrap();
        let remedy = &draft.finish().findings[0].remedy;
        assert!(remedy.starts_with(expected), "{platform:?} {distribution}: {remedy}");
    }
}

#[test]
fn inert_agents_stay_and_others_are_switched_off() {
    let tree = MemTree::new().file("/lib/systemd/system/open-vm-tools.service", VMTOOLSD);
    let plan = run(&tree, &["open-vm-tools", "qemu-guest-agent"]);
    assert_eq!(plan.edits, []);
    assert_eq!(ids(&plan), ["linux-agent-inert"]);
    let tree = MemTree::new()
        .file("/etc/vmware-tools/services.sh", "")
        .file("/etc/init.d/vmware-tools", "")
        .symlink("/etc/rc2.d/S03vmware-tools", "../init.d/vmware-tools");
    let plan = run(&tree, &[]);
    assert_eq!(plan.edits.len(), 1, "systemd's own condition is enough: {:?}", plan.edits);
    assert_eq!(plan.edits[0].path, "/etc/systemd/system/vmware-tools.service.d/90-landfall.conf");
    let Action::Write { contents, .. } = &plan.edits[0].action else { panic!() };
    assert!(contents.0.ends_with(b"\n[Unit]\nConditionVirtualization=vmware\n"), "{contents:?}");
    assert_eq!(ids(&plan), ["linux-agent-off", "linux-agent-missing"]);
}

#[test]
fn the_agent_of_the_target_is_enabled_and_never_switched_off() {
    for platform in Platform::ALL {
        for agent in TABLE.iter().filter(|agent| agent.platforms.contains(platform)) {
            let unit = format!("/usr/lib/systemd/system/{}.service", agent.services[0]);
            let tree = MemTree::new().file(&unit, WAAGENT);
            let plan = run_for(&tree, &[], &to(*platform));
            let link = format!("/etc/systemd/system/multi-user.target.wants/{}.service", agent.services[0]);
            assert_eq!(plan.edits.len(), 1, "{platform:?} {}: {:?}", agent.name, plan.edits);
            assert_eq!(plan.edits[0].path, link);
            assert_eq!(plan.edits[0].action, Action::Symlink { target: unit });
            assert!(ids(&plan).contains(&"linux-agent-enabled"), "{platform:?} {}", agent.name);
        }
    }
}

/// There and back again: what one pass did, the next one undoes.
#[test]
fn a_second_pass_to_another_target_starts_from_the_first_ones_result() {
    let mut tree = MemTree::new()
        .file("/lib/systemd/system/walinuxagent.service", WAAGENT)
        .symlink(
            "/etc/systemd/system/multi-user.target.wants/walinuxagent.service",
            "/lib/systemd/system/walinuxagent.service",
        )
        .file("/usr/lib/systemd/system/hypervkvpd.service", KVP)
        .symlink(
            "/etc/systemd/system/multi-user.target.wants/hypervkvpd.service",
            "/usr/lib/systemd/system/hypervkvpd.service",
        )
        .file("/lib/systemd/system/open-vm-tools.service", VMTOOLSD);
    let drop_in = "/etc/systemd/system/walinuxagent.service.d/90-landfall.conf";
    let off = run_for(&tree, &[], &to(Platform::Esxi));
    let paths: Vec<_> = off.edits.iter().map(|edit| edit.path.as_str()).collect();
    assert_eq!(paths, ["/etc/systemd/system/multi-user.target.wants/open-vm-tools.service", drop_in]);
    apply(&mut tree, &off);
    assert_eq!(run_for(&tree, &[], &to(Platform::Esxi)).edits, [], "once is enough");
    assert_eq!(run_for(&tree, &[], &to(Platform::Kvm)).edits, [], "it stays off");
    let back = run_for(&tree, &[], &to(Platform::Azure));
    assert_eq!(back.edits.len(), 1, "{:?}", back.edits);
    assert_eq!((back.edits[0].path.as_str(), &back.edits[0].action), (drop_in, &Action::Remove));
    assert!(ids(&back).contains(&"linux-agent-enabled"));
    apply(&mut tree, &back);
    assert_eq!(run_for(&tree, &[], &to(Platform::Azure)).edits, []);
}

#[test]
fn a_masked_agent_is_its_owners() {
    let tree = MemTree::new()
        .file("/lib/systemd/system/qemu-guest-agent.service", WAAGENT)
        .symlink("/etc/systemd/system/qemu-guest-agent.service", "/dev/null");
    let plan = run(&tree, &["qemu-guest-agent"]);
    assert_eq!(plan.edits, []);
    assert_eq!(ids(&plan), ["linux-agent-by-owner"]);
}

#[test]
fn the_user_decides_otherwise() {
    let request = |keep: &[&str], drop: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Request { services: Services { keep: list(keep), drop: list(drop) }, ..Request::default() }
    };
    let mut tree = MemTree::new()
        .file("/lib/systemd/system/walinuxagent.service", WAAGENT)
        .file("/lib/systemd/system/open-vm-tools.service", VMTOOLSD);
    assert_eq!(run_for(&tree, &["cloud-init"], &request(&["walinuxagent", "cloud-init"], &[])).edits, []);
    let dropped =
        run_for(&tree, &["cloud-init"], &request(&[], &["open-vm-tools", "cloud-init", "walinuxagent"]));
    let paths: Vec<_> = dropped.edits.iter().map(|edit| edit.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/etc/systemd/system/open-vm-tools.service.d/90-landfall.conf",
            "/etc/systemd/system/walinuxagent.service.d/90-landfall.conf",
            CLOUD_OFF_PATH
        ]
    );
    apply(&mut tree, &dropped);
    let kept =
        run_for(&tree, &["cloud-init"], &request(&["open-vm-tools", "cloud-init", "walinuxagent"], &[]));
    assert!(kept.edits.iter().all(|edit| edit.action == Action::Remove), "{:?}", kept.edits);
    assert_eq!(kept.edits.len(), 3, "what --drop did, --keep undoes: {:?}", kept.edits);
}

#[test]
fn an_amazon_agent_that_is_registered_elsewhere_works_on() {
    let tree = MemTree::new().file("/lib/systemd/system/amazon-ssm-agent.service", WAAGENT);
    assert_eq!(run(&tree, &[]).edits.len(), 1);
    assert_eq!(run(&tree.file("/var/lib/amazon/ssm/registration", "{}"), &[]).edits, []);
}

#[test]
fn shared_folders_do_not_stop_the_boot() {
    let fstab = "UUID=1 / ext4 defaults 0 1\n.host:/ /mnt/hgfs vmhgfs defaults,ttl=5 0 0\nshare /s vboxsf\n.host:/ /x fuse.vmhgfs-fuse nofail 0 0\n";
    let mut tree = MemTree::new().file("/etc/fstab", fstab);
    let plan = run(&tree, &[]);
    let Action::Write { contents, .. } = &plan.edits[0].action else { panic!("{:?}", plan.edits) };
    assert_eq!(
        String::from_utf8_lossy(&contents.0),
        fstab.replace("ttl=5", "ttl=5,nofail").replace("vboxsf", "vboxsf nofail")
    );
    assert!(ids(&plan).contains(&"linux-shared-folder"));
    apply(&mut tree, &plan);
    assert_eq!(run(&tree, &[]).edits, []);
}

#[test]
fn cloud_init_is_told_once() {
    let plan = run(&MemTree::new(), &["cloud-init"]);
    assert_eq!(plan.edits[0].path, CLOUD_CFG_PATH);
    let done = MemTree::new().file(CLOUD_CFG_PATH, CLOUD_CFG);
    assert_eq!(run(&done, &["cloud-init"]).edits, []);
    assert_eq!(run(&MemTree::new().file(CLOUD_OFF_PATH, ""), &["cloud-init"]).edits, []);
    assert_eq!(run(&MemTree::new(), &[]).edits, []);
}

#[test]
fn names_are_words_for_a_command_line() {
    let names = names();
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}
