//! Drivers: what each kernel has for the target's disks and cards, what goes into each initramfs, and what keeps it there
//! when the next one is built.

use super::device::Devices;
use super::draft::Draft;
use super::facts::{self, Kernels, Modules};
use super::{hardware, text};
use crate::Result;
use crate::patch::{Action, InitramfsEdit, InitramfsFile};
use crate::target::{EVERY_TARGET, LinuxDrivers, Request, loads_on, loads_only_at_home};
use crate::tree::GuestTreeExt;
use std::collections::BTreeSet;

/// What is known of the kernels together.
pub struct Drivers {
    /// Modules for the initramfs that at least one kernel has as a file.
    for_initramfs: Vec<&'static str>,
    /// The same of the newest kernel alone.
    of_newest: Vec<&'static str>,
}

impl Drivers {
    /// Modules for the initramfs that at least one kernel has as a file, the target's first.
    pub fn names(&self) -> &[&'static str] {
        &self.for_initramfs
    }
}

/// Checks every kernel, and gives each initramfs the drivers and the files of `inside`.
pub fn plan(
    draft: &mut Draft<'_>,
    kernels: &Kernels,
    default: Option<&str>,
    request: &Request,
    inside: &[InitramfsFile],
) -> Result<Drivers> {
    let row = request.platform.linux_drivers();
    survey(draft, kernels);
    let mut known = Vec::new();
    for kernel in &kernels.found {
        let mut modules = match Modules::read(draft.scene.tree, &kernel.modules)? {
            Some(modules) => Some(modules),
            None => hardware::without_modules(draft, kernel)?,
        };
        if let Some(modules) = &mut modules {
            hardware::builtin_by_configuration(draft, kernel, modules)?;
        }
        known.push((kernel, modules));
    }
    // The newest, where the loader's choice is not known or not there.
    let default = known.iter().position(|(kernel, _)| Some(kernel.version.as_str()) == default).unwrap_or(0);
    if let Some((kernel, modules)) = known.get(default) {
        hardware::is_for_xen_only(draft, kernel, request, true)?;
        hardware::of_default(draft, kernel, modules.as_ref(), request);
    }
    let by_name = loaded_by_name(draft, request);
    let devices = Devices::new(draft.scene.volumes, draft.scene.mounts).renames();
    let mut all = BTreeSet::new();
    let mut done = BTreeSet::new();
    for (at, (kernel, modules)) in known.iter().enumerate() {
        if at != default && !hardware::is_for_xen_only(draft, kernel, request, false)? {
            hardware::of_other(draft, kernel, modules.as_ref(), request);
        }
        let Some(modules) = modules else { continue };
        let drivers = for_initramfs(row, modules);
        all.extend(drivers.iter().copied());
        let load: Vec<String> =
            by_name.iter().filter(|name| drivers.contains(name)).map(|name| (*name).to_owned()).collect();
        for path in kernel.initramfs.iter().chain(&kernel.more_initramfs) {
            if !done.insert(path) {
                continue;
            }
            draft.push(
                path,
                Action::Initramfs(InitramfsEdit {
                    kernel: kernel.version.clone(),
                    starts_by_default: at == default,
                    modules: kernel.modules.clone(),
                    drivers: drivers.iter().map(|name| (*name).to_owned()).collect(),
                    load: load.clone(),
                    files: inside.to_vec(),
                    remove: draft.gone_inside.iter().cloned().collect(),
                    renames: draft.renamed_inside.clone(),
                    devices: devices.clone(),
                    addresses: draft.addresses_inside.clone(),
                }),
                "It gets the drivers of the target's disks, and those of every other platform for the way back.",
            );
        }
    }
    blacklists(draft, request)?;
    let for_initramfs: Vec<_> = order(row).filter(|name| all.contains(name)).collect();
    let newest = known.first().and_then(|(_, modules)| modules.as_ref());
    let of_newest = newest.map_or_else(|| for_initramfs.clone(), |modules| self::for_initramfs(row, modules));
    Ok(Drivers { for_initramfs, of_newest })
}

/// `/etc/initramfs-tools/modules`: the next update-initramfs packs these under any `MODULES=` policy (`most` has them
/// anyway; `dep` and `list` would leave them out), so the policy itself is left as the administrator has it.
///
/// Those that load at home only are loaded by name nowhere else, and packed by a hook.
pub fn keep_for_initramfs_tools(draft: &mut Draft<'_>, drivers: &Drivers, request: &Request) -> Result<()> {
    hook(draft, drivers)?;
    let path = "/etc/initramfs-tools/modules";
    let old = draft.read(path)?;
    let listed: BTreeSet<String> = text::lines(old.as_deref().unwrap_or_default())
        .filter(|(body, _)| !text::is_comment(body))
        .filter_map(|(body, _)| Some(text::word(body, 0)?.replace('-', "_")))
        .collect();
    let mut lines: Vec<&str> = drivers
        .for_initramfs
        .iter()
        .copied()
        .filter(|name| loads_on(name, request.platform) && !listed.contains(*name))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    lines.insert(0, "# Added by landfall: disk drivers of other hypervisors, whatever MODULES= says.");
    let Some(new) = text::append_lines(old.as_deref().unwrap_or_default(), &lines) else { return Ok(()) };
    draft.write(path, new, "The next kernel's initramfs gets the drivers, too, under any MODULES= policy.")
}

const HOOK: &str = "/etc/initramfs-tools/hooks/landfall";

/// Packs drivers without loading them: udev does that where their hypervisor is. A kernel that lacks one is no error, and
/// nothing that goes wrong here may keep the guest from its next initramfs.
fn hook(draft: &mut Draft<'_>, drivers: &Drivers) -> Result<()> {
    let names: Vec<&str> =
        drivers.for_initramfs.iter().copied().filter(|name| loads_only_at_home(name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let contents = format!(
        "#!/bin/sh\n\
         # Written by landfall: drivers of other hypervisors. They are packed, and loaded only where there is a device for them.\n\
         PREREQ=\"\"\n\
         case \"$1\" in\n\
         prereqs)\n    echo \"$PREREQ\"\n    exit 0\n    ;;\n\
         esac\n\
         . /usr/share/initramfs-tools/hook-functions\n\
         for module in {}; do\n    manual_add_modules \"$module\" || true\ndone\n\
         exit 0\n",
        names.join(" ")
    );
    draft.write_mode(
        HOOK,
        contents,
        0o755,
        "The next kernel's initramfs gets the drivers that load on their own hypervisor only, too.",
    )
}

/// The same for dracut, which leaves out all that stands behind the first name that a kernel does not have (dracut-install
/// ends there): so only what the newest kernel has as a module is named. The next one has it, too.
pub fn keep_for_dracut(draft: &mut Draft<'_>, drivers: &Drivers) -> Result<()> {
    if drivers.of_newest.is_empty() {
        return Ok(());
    }
    let contents = format!(
        "# Written by landfall: disk drivers of other hypervisors.\nadd_drivers+=\" {} \"\n",
        drivers.of_newest.join(" ")
    );
    draft.write(
        "/etc/dracut.conf.d/90-landfall.conf",
        contents,
        "The next kernel's initramfs gets the drivers, too.",
    )
}

fn survey(draft: &mut Draft<'_>, kernels: &Kernels) {
    if kernels.found.is_empty() {
        draft.find(
            "linux-no-kernel",
            "There is no kernel in the guest's /boot.",
            "Check that the disk or partition with /boot was given.",
        );
    }
    if kernels.cut_off {
        draft.find(
            "linux-too-many-kernels",
            format!(
                "More than {} kernels lie in /boot; only the newest were patched.",
                facts::KERNELS_AT_MOST
            ),
            "Remove the kernels that are not needed.",
        );
    }
    if !kernels.leftovers.is_empty() {
        let mut names: Vec<_> = kernels.leftovers.iter().take(5).map(String::as_str).collect();
        if kernels.leftovers.len() > names.len() {
            names.push("…");
        }
        draft.find(
            "linux-module-leftovers",
            format!("Modules without a kernel image in /boot were left alone: {}.", names.join(", ")),
            "Remove the folders if no kernel uses them.",
        );
    }
}

/// What the row of the target wants first, then every other target's.
fn order(row: &LinuxDrivers) -> impl Iterator<Item = &'static str> {
    let mut seen = BTreeSet::new();
    let of_row: Vec<&'static str> = row.disks.iter().flat_map(|way| way.drivers.iter().copied()).collect();
    of_row.into_iter().chain(EVERY_TARGET.iter().copied()).filter(move |name| seen.insert(*name))
}

fn for_initramfs(row: &LinuxDrivers, modules: &Modules) -> Vec<&'static str> {
    order(row).filter(|name| modules.loadable.contains(*name) && !modules.builtin.contains(*name)).collect()
}

/// What is loaded by name: the target's own disks, without the last resorts that are not needed.
fn loaded_by_name(draft: &Draft<'_>, request: &Request) -> Vec<&'static str> {
    let mut seen = BTreeSet::new();
    let chosen = draft.devices.disks.first();
    let ways = request.platform.linux_drivers().disks_for(request.firmware);
    ways.filter(|way| !way.fallback || Some(&way.model) == chosen)
        .flat_map(|way| way.drivers.iter().copied())
        .filter(|name| !loads_only_at_home(name) && seen.insert(*name))
        .collect()
}

/// The drivers of the devices that the machine gets.
pub(super) fn needed(draft: &Draft<'_>, request: &Request) -> Vec<&'static str> {
    let row = request.platform.linux_drivers();
    let (disk, card) = (draft.devices.disks.first(), draft.devices.cards.first());
    let way = row.disks_for(request.firmware).find(|way| disk.is_none_or(|disk| *disk == way.model));
    let card = row.cards_for(request.firmware).find(|row| card.is_none_or(|card| *card == row.model));
    let disk_drivers = way.map_or(&[][..], |way| way.drivers);
    disk_drivers.iter().copied().chain(card.map(|card| card.driver)).collect()
}

/// A hardened guest may forbid the very drivers that it needs now.
fn blacklists(draft: &mut Draft<'_>, request: &Request) -> Result<()> {
    let needed = needed(draft, request);
    for folder in ["/etc/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"] {
        for name in draft.scene.tree.names(folder)? {
            if !name.ends_with(".conf") {
                continue;
            }
            let path = format!("{folder}/{name}");
            let text = draft.read_text(&path)?.unwrap_or_default();
            for line in text.lines() {
                let mut words = line.split_whitespace();
                let (keyword, module) = (words.next(), words.next().unwrap_or("").replace('-', "_"));
                let forbids = match keyword {
                    Some("blacklist") => true,
                    Some("install") => words.next().is_some_and(|command| {
                        ["true", "false", ":"].contains(&command.rsplit('/').next().unwrap_or(""))
                    }),
                    _ => false,
                };
                if forbids && needed.contains(&module.as_str()) {
                    let rebuild = draft.builder.rebuild();
                    draft.find(
                        "linux-driver-forbidden",
                        format!(
                            "{path} keeps the driver {module} from being loaded, and the target needs it."
                        ),
                        format!("Remove the line `{}` in the guest and {rebuild}.", line.trim()),
                    );
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::linux::dpkg;
    use crate::patch::PatchPlan;
    use crate::target::{DiskModel, NicModel, Platform};
    use crate::tree::mem::MemTree;

    fn kernel(tree: MemTree, version: &str, initramfs: bool, modules: &[&str], builtin: &[&str]) -> MemTree {
        let list =
            |names: &[&str]| names.iter().map(|name| format!("kernel/x/{name}.ko:\n")).collect::<String>();
        let tree = tree
            .file(&format!("/boot/vmlinuz-{version}"), "")
            .file(&format!("/lib/modules/{version}/modules.dep"), list(modules))
            .file(&format!("/lib/modules/{version}/modules.builtin"), list(builtin));
        if initramfs { tree.file(&format!("/boot/initrd.img-{version}"), "") } else { tree }
    }

    fn run(tree: &MemTree, default: Option<&str>) -> PatchPlan {
        run_for(tree, default, Request::default())
    }

    fn run_for(tree: &MemTree, default: Option<&str>, request: Request) -> PatchPlan {
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let kernels = facts::kernels(tree, &[], dpkg::compare_part).unwrap();
        let drivers = plan(&mut draft, &kernels, default, &request, &[]).unwrap();
        keep_for_initramfs_tools(&mut draft, &drivers, &request).unwrap();
        draft.finish()
    }

    const ALL: &[&str] = &[
        "virtio_pci",
        "virtio-blk",
        "virtio_scsi",
        "virtio_net",
        "ahci",
        "ata_piix",
        "hv_vmbus",
        "vmw_pvscsi",
    ];

    #[test]
    fn every_kernel_gets_what_it_has() {
        let tree = kernel(MemTree::new(), "6.1-9", true, ALL, &["sd_mod"]);
        let tree = kernel(tree, "6.1-10", true, &["virtio_blk", "virtio_net"], &["virtio_pci", "sd_mod"])
            .file("/lib/modules/5.0/modules.dep", "")
            .file("/etc/initramfs-tools/modules", "# comment\n#\nvirtio-blk\nloop");
        insta::assert_json_snapshot!(run(&tree, None));
    }

    #[test]
    fn a_default_kernel_without_drivers_blocks_and_an_old_one_warns() {
        let ids = |plan: &PatchPlan| plan.findings.iter().map(|finding| finding.id).collect::<Vec<_>>();
        let tree = kernel(MemTree::new(), "5", true, &["vmw_pvscsi", "virtio_net"], &["sd_mod"]);
        assert_eq!(ids(&run(&tree, None)), ["linux-kernel-no-disk-driver"]);
        let both = kernel(tree, "6", true, ALL, &["sd_mod"]);
        assert_eq!(ids(&run(&both, None)), ["linux-old-kernel-no-disk-driver"]);
        assert_eq!(ids(&run(&both, Some("5"))), ["linux-kernel-no-disk-driver"]);
        assert_eq!(ids(&run(&both, Some("absent"))), ["linux-old-kernel-no-disk-driver"]);
        assert_eq!(ids(&run(&MemTree::new(), None)), ["linux-no-kernel"]);
    }

    /// A last resort that was chosen is loaded by name like a first choice.
    #[test]
    fn a_kernel_without_virtio_gets_sata() {
        let tree = kernel(MemTree::new(), "5", true, &["ahci", "ata_piix", "e1000"], &["sd_mod"]);
        let plan = run(&tree, None);
        assert_eq!(plan.devices.disks, [DiskModel::Sata, DiskModel::Ide]);
        assert_eq!(plan.devices.cards, [NicModel::E1000]);
        let Action::Initramfs(edit) = &plan.edits[0].action else { panic!("{:?}", plan.edits) };
        assert_eq!(edit.load, ["ahci"]);
    }

    #[test]
    fn without_an_initramfs_only_built_in_drivers_count() {
        let tree = kernel(MemTree::new(), "6", false, ALL, &["sd_mod"]);
        assert_eq!(run(&tree, None).findings[0].id, "linux-kernel-without-initramfs");
        let tree = kernel(MemTree::new(), "6", false, &[], &["virtio_pci", "virtio_blk", "virtio_net"]);
        assert_eq!(run(&tree, None).findings, []);
    }

    fn written<'p>(plan: &'p PatchPlan, path: &str) -> (&'p str, u32) {
        let edit = plan.edits.iter().find(|edit| edit.path == path).unwrap();
        let Action::Write { contents, mode } = &edit.action else { panic!("{edit:?}") };
        (std::str::from_utf8(&contents.0).unwrap(), *mode)
    }

    /// Packed everywhere by the hook; loaded by name at home.
    #[test]
    fn drivers_that_load_at_home_only_stay_in_the_next_initramfs() {
        let modules = [ALL, &["hv_storvsc", "xen_blkfront"]].concat();
        let tree = kernel(MemTree::new(), "6", true, &modules, &["sd_mod"]);
        for (platform, named) in [
            (Platform::Kvm, &[][..]),
            (Platform::Hyperv, &["hv_vmbus", "hv_storvsc"]),
            (Platform::Azure, &["hv_vmbus", "hv_storvsc"]),
            (Platform::Xen, &["xen_blkfront"]),
        ] {
            let plan = run_for(&tree, None, Request { platform, ..Request::default() });
            let (list, _) = written(&plan, "/etc/initramfs-tools/modules");
            for name in ["hv_vmbus", "hv_storvsc", "xen_blkfront"] {
                assert_eq!(
                    list.lines().any(|line| line == name),
                    named.contains(&name),
                    "{platform:?} {name}"
                );
            }
            let (hook, mode) = written(&plan, HOOK);
            assert_eq!(mode, 0o755);
            for name in ["hv_vmbus", "hv_storvsc", "xen_blkfront"] {
                assert!(hook.contains(name), "{hook}");
            }
            let again =
                run_for(&tree.clone().file(HOOK, hook), None, Request { platform, ..Request::default() });
            assert!(again.edits.iter().all(|edit| edit.path != HOOK), "once is enough");
        }
    }

    /// With the functions of Debian's own initramfs-tools, as update-initramfs calls hooks.
    #[test]
    fn the_hook_packs_what_it_names() {
        let modules = [ALL, &["hv_storvsc", "xen_blkfront", "not_there"]].concat();
        let plan = run(&kernel(MemTree::new(), "6", true, &modules, &["sd_mod"]), None);
        let (hook, _) = written(&plan, HOOK);
        let run = |script: &std::path::Path, arguments: &[&str], folder: &std::path::Path, version: &str| {
            let out = std::process::Command::new("sh")
                .arg(script)
                .args(arguments)
                .env("DESTDIR", folder.join("image"))
                .env("CONFDIR", folder)
                .env("__MODULES_TO_ADD", folder.join("names"))
                .env("version", version)
                .env("verbose", "n")
                .output()
                .unwrap();
            assert!(out.status.success(), "{out:?}");
            String::from_utf8(out.stdout).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("hook");
        std::fs::write(&script, hook).unwrap();
        assert_eq!(run(&script, &["prereqs"], folder.path(), ""), "\n");
        for suite in ["bookworm", "trixie"] {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("../target/guests/initramfs-{suite}"));
            let names = std::fs::read_dir(root.join("lib/modules")).into_iter().flatten();
            let version = names.flatten().map(|entry| entry.file_name().into_string().unwrap()).next();
            let functions = std::fs::read_to_string(root.join("usr/share/initramfs-tools/hook-functions"));
            let (Some(version), Ok(functions), Some(_)) =
                (version, functions, crate::testing::tool("modprobe"))
            else {
                eprintln!("SKIPPED: no guest {} (make it with tools/make-trees.sh)", root.display());
                continue;
            };
            let root = root.canonicalize().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("functions");
            let modprobe = format!("modprobe -d {}", root.display());
            std::fs::write(&path, functions.replace("/sbin/modprobe", &modprobe)).unwrap();
            let script = folder.path().join("hook");
            let here = path.display().to_string();
            std::fs::write(&script, hook.replace("/usr/share/initramfs-tools/hook-functions", &here))
                .unwrap();
            std::fs::create_dir(folder.path().join("image")).unwrap();
            std::fs::write(folder.path().join("modules"), "").unwrap();
            run(&script, &[], folder.path(), &version);
            // Since 0.143 the functions collect names, and pack all of them at the end.
            let mut packed = std::fs::read_to_string(folder.path().join("names")).unwrap_or_default();
            let found = std::process::Command::new("find").arg(folder.path().join("image")).output().unwrap();
            packed += &String::from_utf8_lossy(&found.stdout);
            for name in ["hv_vmbus", "hv_storvsc", "xen-blkfront"] {
                let other = name.replace('-', "_");
                assert!(packed.contains(name) || packed.contains(&other), "{suite} {name}: {packed}");
            }
        }
    }

    /// RHEL 5 and SLES 11: it has every driver, and starts on Xen's own machines only.
    #[test]
    fn kernels_for_xen_alone() {
        let ids = |plan: &PatchPlan| plan.findings.iter().map(|finding| finding.id).collect::<Vec<_>>();
        let tree = kernel(MemTree::new(), "2.6.18-419.el5", true, ALL, &["sd_mod"]);
        let tree = kernel(tree, "2.6.18-419.el5xen", true, ALL, &["sd_mod"])
            .file("/boot/config-2.6.18-419.el5", "CONFIG_X86_64=y\n# CONFIG_X86_64_XEN is not set\n")
            .file("/boot/config-2.6.18-419.el5xen", "CONFIG_X86_64=y\nCONFIG_X86_64_XEN=y\n");
        assert_eq!(ids(&run(&tree, Some("2.6.18-419.el5"))), ["linux-old-kernel-xen-only"]);
        let plan = run(&tree, Some("2.6.18-419.el5xen"));
        assert_eq!(ids(&plan), ["linux-kernel-xen-only"]);
        assert!(plan.is_blocked());
    }

    /// What is not known of the kernel that starts is no small matter.
    #[test]
    fn kernels_without_a_list_of_modules() {
        let ids = |plan: &PatchPlan| plan.findings.iter().map(|finding| finding.id).collect::<Vec<_>>();
        let tree = kernel(MemTree::new(), "6", true, ALL, &["sd_mod"]).file("/boot/vmlinuz-7", "");
        assert_eq!(ids(&run(&tree, Some("6"))), ["linux-kernel-unchecked"]);
        let plan = run(&tree, Some("7"));
        assert_eq!(ids(&plan), ["linux-default-kernel-unchecked"]);
        assert!(plan.is_blocked());
        // One that was built by hand says in its configuration what it has.
        let config =
            "CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_NET=y\n# CONFIG_MODULES is not set\n";
        let tree = MemTree::new().file("/boot/vmlinuz-7", "").file("/boot/config-7", config);
        assert_eq!(ids(&run(&tree, None)), [""; 0]);
    }

    /// dracut gives up on its list at the first name that a kernel does not have.
    #[test]
    fn dracut_is_told_of_what_the_newest_kernel_has() {
        let tree = kernel(MemTree::new(), "5", true, ALL, &["sd_mod"]);
        let tree = kernel(tree, "6", true, &["virtio_blk", "nvme"], &["virtio_pci", "sd_mod"]);
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let kernels = facts::kernels(&tree, &[], dpkg::compare_part).unwrap();
        let drivers = plan(&mut draft, &kernels, None, &Request::default(), &[]).unwrap();
        keep_for_dracut(&mut draft, &drivers).unwrap();
        let conf = draft.read_text("/etc/dracut.conf.d/90-landfall.conf").unwrap().unwrap();
        assert!(conf.ends_with("add_drivers+=\" virtio_blk nvme \"\n"), "{conf}");
    }

    #[test]
    fn forbidden_drivers_are_seen() {
        let tree = kernel(MemTree::new(), "6", true, ALL, &["sd_mod"])
            .file("/etc/modprobe.d/hardening.conf", "blacklist virtio-net\ninstall virtio_blk /bin/true\n#blacklist virtio_scsi\ninstall virtio_pci /sbin/modprobe x\n");
        let plan = run(&tree, None);
        assert_eq!(plan.findings.iter().filter(|finding| finding.id == "linux-driver-forbidden").count(), 2);
    }
}
