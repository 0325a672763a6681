//! Agents of the platform that the guest leaves, and of the cloud that it no longer lives in. Nothing is uninstalled:
//! that needs guest code. What is harmless elsewhere stays, what is not gets masked.

use super::dpkg::Packages;
use super::draft::Draft;
use crate::Result;
use crate::guest::Fact;
use crate::target::Request;
use crate::tree::{GuestTree, GuestTreeExt};

/// One agent.
struct Agent {
    name: &'static str,
    packages: &'static [&'static str],
    /// Files that prove it where no package does.
    files: &'static [&'static str],
    /// Units or init scripts, without `.service`.
    services: &'static [&'static str],
    /// Its units ask for their hypervisor (`ConditionVirtualization=`) and do nothing elsewhere.
    is_inert: bool,
}

const TABLE: &[Agent] = &[
    Agent {
        name: "open-vm-tools",
        packages: &["open-vm-tools"],
        files: &[],
        services: &["open-vm-tools", "vgauth"],
        is_inert: true,
    },
    Agent {
        name: "VMware Tools (tarball)",
        packages: &[],
        files: &["/etc/vmware-tools/services.sh", "/usr/bin/vmware-config-tools.pl"],
        services: &["vmware-tools", "vmware-tools-thinprint"],
        is_inert: false,
    },
    Agent {
        name: "VirtualBox Guest Additions",
        packages: &["virtualbox-guest-utils"],
        files: &["/usr/sbin/VBoxService", "/sbin/rcvboxadd", "/etc/init.d/vboxadd"],
        services: &["vboxadd", "vboxadd-service", "virtualbox-guest-utils"],
        is_inert: false,
    },
    Agent {
        name: "Parallels Tools",
        packages: &[],
        files: &["/usr/bin/prltoolsd", "/usr/sbin/prltoolsd"],
        services: &["prltoolsd"],
        is_inert: false,
    },
    Agent {
        name: "Azure Linux Agent",
        packages: &["waagent", "walinuxagent"],
        files: &["/usr/sbin/waagent"],
        services: &["walinuxagent", "waagent"],
        is_inert: false,
    },
    Agent {
        name: "Hyper-V daemons",
        packages: &["hyperv-daemons", "linux-cloud-tools-common"],
        files: &[],
        services: &["hv-kvp-daemon", "hv-vss-daemon"],
        is_inert: true,
    },
    Agent {
        name: "Xen guest utilities",
        packages: &["xe-guest-utilities", "xen-guest-agent"],
        files: &["/usr/sbin/xe-daemon"],
        services: &["xe-linux-distribution", "xe-daemon"],
        is_inert: true,
    },
    Agent {
        name: "qemu-guest-agent",
        packages: &["qemu-guest-agent"],
        files: &["/usr/sbin/qemu-ga"],
        services: &[],
        is_inert: true,
    },
    Agent {
        name: "cloud-init",
        packages: &["cloud-init"],
        files: &["/usr/bin/cloud-init"],
        services: &[],
        is_inert: true,
    },
];

fn proof(tree: &dyn GuestTree, packages: &Packages, agent: &Agent) -> Result<Option<String>> {
    if let Some(package) = agent.packages.iter().find(|name| packages.has(name)) {
        return Ok(Some(format!("{} ({package})", super::dpkg::STATUS)));
    }
    for file in agent.files {
        if tree.exists(file)? {
            return Ok(Some((*file).to_owned()));
        }
    }
    Ok(None)
}

/// The facts.
pub fn agents(tree: &dyn GuestTree, packages: &Packages) -> Result<Vec<Fact<String>>> {
    let mut found = Vec::new();
    for agent in TABLE {
        if let Some(proof) = proof(tree, packages, agent)? {
            found.push(Fact::new(agent.name, proof));
        }
    }
    Ok(found)
}

/// Masks what is not inert, tells of the rest.
pub fn plan(draft: &mut Draft<'_>, packages: &Packages, request: &Request) -> Result<()> {
    let tree = draft.scene.tree;
    let wanted = request.platform.linux_drivers().agent;
    let mut has_wanted = false;
    for agent in TABLE {
        let Some(proof) = proof(tree, packages, agent)? else { continue };
        has_wanted |= agent.name == wanted;
        if agent.name == wanted || agent.services.is_empty() {
            continue;
        }
        if agent.is_inert {
            draft.find(
                "linux-agent-inert",
                format!(
                    "{} is installed ({proof}); its services start on its own hypervisor only.",
                    agent.name
                ),
                "Remove the package when the machine will not move back.",
            );
            continue;
        }
        let mut masked = Vec::new();
        for service in agent.services {
            if mask(draft, service)? {
                masked.push(*service);
            }
        }
        draft.find(
            "linux-agent-masked",
            match masked.is_empty() {
                true => format!("{} is installed ({proof}).", agent.name),
                false => format!(
                    "{} is installed ({proof}); its services were switched off: {}.",
                    agent.name,
                    masked.join(", ")
                ),
            },
            "Uninstall it on the target when the machine will not move back.",
        );
    }
    if !has_wanted {
        draft.find(
            "linux-agent-missing",
            format!("The target's guest agent ({wanted}) is not installed; the machine runs without it."),
            format!("Install {wanted} on the target for clean shutdowns and consistent snapshots."),
        );
    }
    cloud_init(draft, packages)
}

/// Switches a service off for systemd (unit or init script) and for sysvinit. True where there was one.
fn mask(draft: &mut Draft<'_>, service: &str) -> Result<bool> {
    let tree = draft.scene.tree;
    let unit = format!("{service}.service");
    let why = "An agent of the old platform has nothing to talk to here.";
    let mut found = false;
    for folder in ["/lib/systemd/system", "/usr/lib/systemd/system"] {
        found |= tree.exists(&format!("{folder}/{unit}"))?;
    }
    let script = tree.exists(&format!("/etc/init.d/{service}"))?;
    let own = format!("/etc/systemd/system/{unit}");
    let is_own_file = tree.link_metadata(&own)?.is_some() && tree.read_link(&own)?.is_none();
    if is_own_file {
        // A unit file of its own in the place of the mask is not overwritten: what starts it goes.
        found = true;
        for target in ["multi-user.target.wants", "graphical.target.wants", "basic.target.wants"] {
            draft.remove(&format!("/etc/systemd/system/{target}/{unit}"), why)?;
        }
    } else if found || script {
        draft.symlink(&own, "/dev/null", why)?;
    }
    if script {
        for level in ["S", "2", "3", "4", "5"] {
            let folder = format!("/etc/rc{level}.d");
            for name in tree.names(&folder)? {
                let is_start = name.strip_prefix('S').is_some_and(|rest| {
                    rest.trim_start_matches(|char: char| char.is_ascii_digit()) == service
                });
                if is_start {
                    draft.remove(&format!("{folder}/{name}"), why)?;
                }
            }
        }
    }
    Ok(found || script)
}

const CLOUD_CFG: &str = "\
# Written by landfall: the data source of the old platform is gone. What it configured stays as it is.
network: {config: disabled}
preserve_hostname: true
manual_cache_clean: true
";

/// Without its data source cloud-init would take the machine for a new one: other host keys, another network.
fn cloud_init(draft: &mut Draft<'_>, packages: &Packages) -> Result<()> {
    let tree = draft.scene.tree;
    let is_installed = packages.has("cloud-init") || tree.exists("/usr/bin/cloud-init")?;
    if !is_installed || tree.exists("/etc/cloud/cloud-init.disabled")? {
        return Ok(());
    }
    draft.write(
        "/etc/cloud/cloud.cfg.d/99-landfall.cfg",
        CLOUD_CFG,
        "cloud-init must not take the moved machine for a new one: network, host name and keys stay.",
    )?;
    draft.find(
        "linux-cloud-init",
        "cloud-init is installed; it was told to leave network, host name and keys as they are.",
        "Remove /etc/cloud/cloud.cfg.d/99-landfall.cfg on the target if a new data source is to configure the machine.",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::patch::{Action, PatchPlan};
    use crate::target::{Firmware, Platform};
    use crate::tree::mem::MemTree;

    fn run(tree: &MemTree, packages: &[&str]) -> PatchPlan {
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let status: String = packages
            .iter()
            .map(|name| format!("Package: {name}\nStatus: install ok installed\n\n"))
            .collect();
        let request = Request {
            platform: Platform::Kvm,
            firmware: Firmware::Bios,
            nics: Vec::new(),
            network_map: None,
        };
        plan(&mut draft, &Packages::parse(status.as_bytes()), &request).unwrap();
        draft.finish()
    }

    #[test]
    fn inert_agents_stay_and_others_are_masked() {
        let plan = run(&MemTree::new(), &["open-vm-tools", "qemu-guest-agent"]);
        assert_eq!(plan.edits, []);
        assert_eq!(plan.findings[0].id, "linux-agent-inert");
        let tree = MemTree::new()
            .file("/etc/vmware-tools/services.sh", "")
            .file("/etc/init.d/vmware-tools", "")
            .symlink("/etc/rc2.d/S03vmware-tools", "../init.d/vmware-tools")
            .symlink("/etc/rc2.d/S03other", "../init.d/other")
            .symlink("/etc/rc0.d/K03vmware-tools", "../init.d/vmware-tools");
        let plan = run(&tree, &[]);
        let edits: Vec<_> = plan.edits.iter().map(|edit| (edit.path.as_str(), &edit.action)).collect();
        assert_eq!(
            edits,
            [
                ("/etc/systemd/system/vmware-tools.service", &Action::Symlink { target: "/dev/null".into() }),
                ("/etc/rc2.d/S03vmware-tools", &Action::Remove),
            ]
        );
    }

    #[test]
    fn a_unit_in_place_of_the_mask_is_not_overwritten() {
        let tree = MemTree::new()
            .file("/usr/bin/prltoolsd", "")
            .file("/etc/systemd/system/prltoolsd.service", "[Service]\n")
            .symlink("/etc/systemd/system/multi-user.target.wants/prltoolsd.service", "../prltoolsd.service");
        let plan = run(&tree, &[]);
        assert_eq!(plan.edits.len(), 1);
        assert_eq!(plan.edits[0].path, "/etc/systemd/system/multi-user.target.wants/prltoolsd.service");
    }

    #[test]
    fn cloud_init_is_told_once() {
        let plan = run(&MemTree::new(), &["cloud-init"]);
        assert_eq!(plan.edits[0].path, "/etc/cloud/cloud.cfg.d/99-landfall.cfg");
        let done = MemTree::new().file("/etc/cloud/cloud.cfg.d/99-landfall.cfg", CLOUD_CFG);
        assert_eq!(run(&done, &["cloud-init"]).edits, []);
        assert_eq!(
            run(&MemTree::new().file("/etc/cloud/cloud-init.disabled", ""), &["cloud-init"]).edits,
            []
        );
        assert_eq!(run(&MemTree::new(), &[]).edits, []);
    }
}
