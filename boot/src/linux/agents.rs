//! Agents of the platforms that a guest leaves and comes to, and of the cloud that it no longer lives in. Nothing is
//! uninstalled: that needs guest code. What is harmless elsewhere stays, what is not is switched off where its
//! hypervisor is absent (see [`services`]), and the target's own agent is seen to start.

use super::draft::Draft;
use super::fstab::Fstab;
use super::packages::Packages;
use super::services::{self, NEVER, On};
use super::text;
use crate::Result;
use crate::guest::{Fact, Guest};
use crate::target::{Platform, Request};
use crate::tree::{GuestTree, GuestTreeExt};

/// One agent.
struct Agent {
    /// After `--keep` and `--drop`, and in findings.
    name: &'static str,
    packages: &'static [&'static str],
    /// Files that prove it where no package does. Its services do so, too.
    files: &'static [&'static str],
    /// Units or init scripts, without `.service`, of all distributions.
    services: &'static [&'static str],
    /// Where it belongs.
    platforms: &'static [Platform],
    /// The condition that holds at home.
    home: &'static str,
    /// Its init scripts and programs look for their hypervisor themselves.
    checks_itself: bool,
    /// A file that shows that it has work to do anywhere.
    serves_anywhere: &'static [&'static str],
}

const NOWHERE: Agent = Agent {
    name: "",
    packages: &[],
    files: &[],
    services: &[],
    platforms: &[],
    home: NEVER,
    checks_itself: false,
    serves_anywhere: &[],
};

const TABLE: &[Agent] = &[
    Agent {
        name: "open-vm-tools",
        packages: &["open-vm-tools"],
        services: &["open-vm-tools", "vmtoolsd", "vgauth", "vgauthd"],
        platforms: &[Platform::Esxi],
        home: "ConditionVirtualization=vmware",
        checks_itself: true,
        ..NOWHERE
    },
    // VMware's own from a tarball.
    Agent {
        name: "vmware-tools",
        files: &["/etc/vmware-tools/services.sh", "/usr/bin/vmware-config-tools.pl"],
        services: &["vmware-tools", "vmware-tools-thinprint"],
        platforms: &[Platform::Esxi],
        home: "ConditionVirtualization=vmware",
        ..NOWHERE
    },
    Agent {
        name: "virtualbox-guest-additions",
        packages: &["virtualbox-guest-utils"],
        files: &["/usr/sbin/VBoxService", "/sbin/rcvboxadd"],
        services: &["vboxadd", "vboxadd-service", "virtualbox-guest-utils", "vboxservice"],
        home: "ConditionVirtualization=oracle",
        ..NOWHERE
    },
    Agent {
        name: "parallels-tools",
        files: &["/usr/bin/prltoolsd", "/usr/sbin/prltoolsd"],
        services: &["prltoolsd"],
        home: "ConditionVirtualization=parallels",
        ..NOWHERE
    },
    Agent {
        name: "walinuxagent",
        packages: &["waagent", "walinuxagent", "WALinuxAgent", "python-azure-agent"],
        files: &["/usr/sbin/waagent"],
        services: &["walinuxagent", "waagent"],
        platforms: &[Platform::Azure],
        ..NOWHERE
    },
    Agent {
        name: "hyperv-daemons",
        packages: &["hyperv-daemons", "hyper-v", "hypervkvpd", "linux-cloud-tools-common", "hvtools"],
        services: &[
            "hv-kvp-daemon",
            "hv-vss-daemon",
            "hv-fcopy-daemon",
            "hyperv-daemons.hv-kvp-daemon",
            "hyperv-daemons.hv-vss-daemon",
            "hyperv-daemons.hv-fcopy-daemon",
            "hv_kvp_daemon",
            "hv_vss_daemon",
            "hv_fcopy_daemon",
            "hypervkvpd",
            "hypervvssd",
            "hypervfcopyd",
        ],
        platforms: &[Platform::Hyperv, Platform::Azure],
        home: "ConditionVirtualization=microsoft",
        checks_itself: true,
        ..NOWHERE
    },
    Agent {
        name: "xe-guest-utilities",
        packages: &["xe-guest-utilities", "xe-guest-utilities-latest", "xen-guest-agent"],
        files: &["/usr/sbin/xe-daemon"],
        services: &["xe-linux-distribution", "xe-daemon", "xen-guest-agent"],
        platforms: &[Platform::Xen],
        home: "ConditionVirtualization=xen",
        checks_itself: true,
        ..NOWHERE
    },
    Agent {
        name: "qemu-guest-agent",
        packages: &["qemu-guest-agent"],
        files: &["/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"],
        services: &["qemu-guest-agent", "qemu-ga"],
        platforms: &[Platform::Kvm],
        home: "ConditionPathExists=/dev/virtio-ports/org.qemu.guest_agent.0",
        checks_itself: true,
        ..NOWHERE
    },
    Agent {
        name: "nutanix-guest-tools",
        files: &["/usr/local/nutanix/ngt"],
        services: &["ngt_guest_agent", "ngt_self_service_restore"],
        platforms: &[Platform::Ahv],
        ..NOWHERE
    },
    Agent {
        name: "google-guest-agent",
        packages: &["google-guest-agent", "google-compute-engine", "google-osconfig-agent"],
        files: &["/usr/bin/google_guest_agent", "/usr/bin/google_metadata_script_runner"],
        services: &[
            "google-guest-agent",
            "google-guest-agent-manager",
            "google-startup-scripts",
            "google-shutdown-scripts",
            "google-osconfig-agent",
            "google-instance-setup",
            "google-accounts-daemon",
            "google-clock-skew-daemon",
            "google-network-daemon",
        ],
        ..NOWHERE
    },
    Agent {
        name: "amazon-ssm-agent",
        packages: &["amazon-ssm-agent"],
        files: &["/usr/bin/amazon-ssm-agent", "/snap/bin/amazon-ssm-agent.ssm-cli"],
        services: &["amazon-ssm-agent", "snap.amazon-ssm-agent.amazon-ssm-agent"],
        // Registered for machines outside of Amazon's cloud.
        serves_anywhere: &[
            "/var/lib/amazon/ssm/registration",
            "/var/lib/amazon/ssm/Vault/Store/RegistrationKey",
        ],
        ..NOWHERE
    },
];

/// The name of cloud-init for `--keep` and `--drop`.
const CLOUD_INIT: &str = "cloud-init";

/// What a user can keep or drop by name.
pub fn names() -> Vec<&'static str> {
    TABLE.iter().map(|agent| agent.name).chain([CLOUD_INIT]).collect()
}

fn proof(tree: &dyn GuestTree, packages: &Packages, agent: &Agent) -> Result<Option<String>> {
    if let Some(package) = agent.packages.iter().find(|name| packages.has(name)) {
        return Ok(Some(format!("{} ({package})", packages.world().database())));
    }
    for file in agent.files {
        if tree.exists(file)? {
            return Ok(Some((*file).to_owned()));
        }
    }
    for service in agent.services {
        if services::is_there(tree, service)? {
            return Ok(Some(format!("its service {service}")));
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
    if let Some(proof) = cloud_init_proof(tree, packages)? {
        found.push(Fact::new(CLOUD_INIT, proof));
    }
    Ok(found)
}

/// Switches off what is not inert, sees that the target's own agent starts, tells of the rest.
pub fn plan(draft: &mut Draft<'_>, packages: &Packages, request: &Request, guest: &Guest) -> Result<()> {
    let tree = draft.scene.tree;
    let has = |list: &[String], name: &str| list.iter().any(|other| other == name);
    let mut has_wanted = false;
    for agent in TABLE {
        let Some(proof) = proof(tree, packages, agent)? else { continue };
        let is_home = agent.platforms.contains(&request.platform);
        has_wanted |= is_home;
        if has(&request.services.keep, agent.name) {
            for service in agent.services {
                services::take_back(draft, service, "It is to be kept.")?;
            }
        } else if has(&request.services.drop, agent.name) {
            off(draft, agent, &proof, NEVER, "It is to be switched off.")?;
        } else if is_home {
            on(draft, agent, &proof)?;
        } else {
            leave(draft, agent, &proof)?;
        }
    }
    if !has_wanted {
        let wanted = &request.platform.linux_drivers().agent;
        let of = |whose: &str| wanted.packages.iter().find(|(id, _)| *id == whose);
        let package = of(&guest.distribution.value).or_else(|| of(&guest.family));
        let install = package
            .map_or(wanted.otherwise.to_owned(), |(_, package)| format!("Install the package {package}"));
        draft.find(
            "linux-agent-missing",
            format!(
                "The target's guest agent ({}) is not installed; the machine runs without it.",
                wanted.name
            ),
            format!("{install} on the target for clean shutdowns and consistent snapshots."),
        );
    }
    shared_folders(draft)?;
    cloud_init(draft, packages, request)
}

/// An agent whose hypervisor the guest leaves.
fn leave(draft: &mut Draft<'_>, agent: &Agent, proof: &str) -> Result<()> {
    let tree = draft.scene.tree;
    for file in agent.serves_anywhere {
        if tree.exists(file)? {
            return Ok(());
        }
    }
    let mut asks = Vec::new();
    for service in agent.services {
        match services::asks_for_hardware(draft, service)? {
            Some(by_itself) => asks.push(by_itself),
            None if services::is_there(tree, service)? => asks.push(agent.checks_itself),
            None => {}
        }
    }
    let is_inert = if asks.is_empty() { agent.checks_itself } else { asks.iter().all(|asks| *asks) };
    if is_inert {
        // What an earlier pass switched off altogether (--drop) was not asked for this time.
        for service in agent.services {
            services::take_back(draft, service, "Its own condition is enough.")?;
        }
        draft.find(
            "linux-agent-inert",
            format!("{} is installed ({proof}); its services start on its own hypervisor only.", agent.name),
            "Remove the package when the machine will not move back.",
        );
        return Ok(());
    }
    off(draft, agent, proof, agent.home, "An agent of another platform has nothing to talk to here.")
}

fn off(draft: &mut Draft<'_>, agent: &Agent, proof: &str, condition: &str, why: &str) -> Result<()> {
    let mut off = Vec::new();
    for service in agent.services {
        if services::switch_off(draft, service, condition, why)? {
            off.push(*service);
        }
    }
    let services = match off.is_empty() {
        true => String::new(),
        false => format!("; its services were switched off: {}", off.join(", ")),
    };
    draft.find(
        "linux-agent-off",
        format!("{} is installed ({proof}){services}.", agent.name),
        format!(
            "Uninstall it on the target when the machine will not move back, or convert with --keep {}.",
            agent.name
        ),
    );
    Ok(())
}

/// The target's own agent.
fn on(draft: &mut Draft<'_>, agent: &Agent, proof: &str) -> Result<()> {
    let mut enabled = Vec::new();
    for service in agent.services {
        match services::switch_on(
            draft,
            service,
            "It is the agent of the platform that the machine comes to.",
        )? {
            On::Enabled => enabled.push(*service),
            On::Masked => draft.find(
                "linux-agent-by-owner",
                format!("{} is installed ({proof}), but somebody masked its service {service}.", agent.name),
                format!("Run `systemctl unmask {service}` on the target if it is wanted there."),
            ),
            On::Already | On::Absent => {}
        }
    }
    if !enabled.is_empty() {
        draft.find(
            "linux-agent-enabled",
            format!("{} is installed ({proof}) and was switched on: {}.", agent.name, enabled.join(", ")),
            format!("Convert with --keep {} to leave it as it is.", agent.name),
        );
    }
    Ok(())
}

/// File systems that only the old platform's tools can mount. systemd would wait in the emergency shell.
const SHARED: &[&str] = &["vmhgfs", "fuse.vmhgfs-fuse", "vboxsf", "prl_fs"];

/// The folders that a desktop hypervisor shares with its guests may be absent from now on.
fn shared_folders(draft: &mut Draft<'_>) -> Result<()> {
    let path = "/etc/fstab";
    let Some(old) = draft.read(path)? else { return Ok(()) };
    let table = Fstab::parse(&old);
    let shared: Vec<_> = table
        .entries()
        .iter()
        .filter(|entry| SHARED.contains(&entry.kind.as_str()) && !entry.is_optional())
        .map(|entry| (entry.line, entry.at.clone()))
        .collect();
    if shared.is_empty() {
        return Ok(());
    }
    let mut line = 0;
    let new = text::map_lines(&old, |body| {
        let is_shared = shared.iter().any(|(number, _)| *number == line);
        line += 1;
        let words = text::words(body);
        let end = is_shared.then(|| words.get(3).map_or(body.len(), |options| options.end))?;
        let option: &[u8] = if words.len() > 3 { b",nofail" } else { b" nofail" };
        Some(text::replace(body, end..end, option))
    });
    let Some(new) = new else { return Ok(()) };
    draft.write(
        path,
        new,
        "Folders that the old platform shares are absent here: the boot does not wait for them.",
    )?;
    let at: Vec<_> = shared.into_iter().map(|(_, at)| at).collect();
    draft.find(
        "linux-shared-folder",
        format!("/etc/fstab mounts folders that only the old platform shares: {}.", at.join(", ")),
        "Remove the lines when the machine will not move back.",
    );
    Ok(())
}

const CLOUD_CFG_PATH: &str = "/etc/cloud/cloud.cfg.d/99-landfall.cfg";
const CLOUD_OFF_PATH: &str = "/etc/cloud/cloud-init.disabled";
const CLOUD_CFG: &str = "\
# Written by landfall: the data source of the old platform is gone. What it configured stays as it is.
network: {config: disabled}
preserve_hostname: true
manual_cache_clean: true
";
const CLOUD_OFF: &str =
    "# Written by landfall: switched off. Remove this file to switch cloud-init on again.\n";

fn cloud_init_proof(tree: &dyn GuestTree, packages: &Packages) -> Result<Option<String>> {
    if packages.has(CLOUD_INIT) {
        return Ok(Some(format!("{} ({CLOUD_INIT})", packages.world().database())));
    }
    let file = "/usr/bin/cloud-init";
    Ok(tree.exists(file)?.then(|| file.to_owned()))
}

/// Without its data source cloud-init would take the machine for a new one: other host keys, another network.
fn cloud_init(draft: &mut Draft<'_>, packages: &Packages, request: &Request) -> Result<()> {
    let tree = draft.scene.tree;
    if cloud_init_proof(tree, packages)?.is_none() {
        return Ok(());
    }
    let named = |list: &[String]| list.iter().any(|name| name == CLOUD_INIT);
    let drop = named(&request.services.drop);
    if !drop && draft.read_text(CLOUD_OFF_PATH)?.is_some_and(|text| text == CLOUD_OFF) {
        draft.remove(
            CLOUD_OFF_PATH,
            "An earlier pass switched cloud-init off, and this one was not asked to.",
        )?;
    } else if !drop && tree.exists(CLOUD_OFF_PATH)? {
        return Ok(());
    }
    if named(&request.services.keep) {
        if draft.read_text(CLOUD_CFG_PATH)?.is_some_and(|text| text == CLOUD_CFG) {
            draft.remove(CLOUD_CFG_PATH, "cloud-init is to be kept as it is.")?;
        }
        return Ok(());
    }
    if drop {
        if !tree.exists(CLOUD_OFF_PATH)? {
            draft.write(CLOUD_OFF_PATH, CLOUD_OFF, "cloud-init is to be switched off.")?;
        }
        return Ok(());
    }
    draft.write(
        CLOUD_CFG_PATH,
        CLOUD_CFG,
        "cloud-init must not take the moved machine for a new one: network, host name and keys stay.",
    )?;
    draft.find(
        "linux-cloud-init",
        "cloud-init is installed; it was told to leave network, host name and keys as they are.",
        "Convert with --keep cloud-init if a data source of the target is to configure the machine.",
    );
    Ok(())
}

#[cfg(test)]
mod tests;
