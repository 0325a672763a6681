//! Boot loaders: kernel parameters that name devices, in the configuration that is used now and in the one that the
//! next update generates from. GRUB 2 first; GRUB legacy and extlinux have the same parameters in other commands.
//!
//! Generated files are edited as text and never generated anew: that needs guest code, and under another firmware mode
//! it breaks guests. Deliberately absent: systemd-boot and unified kernel images, whose initramfs copies lie elsewhere.

use super::device::{Devices, Meaning, Want};
use super::dpkg::Packages;
use super::draft::Draft;
use super::facts;
use super::text;
use crate::Result;
use crate::guest::Guest;
use crate::target::{Firmware, Request};
use crate::tree::GuestTreeExt;
use crate::volume::device_name::{Name, classify};
use landfall_image::Bytes;

const GRUB_CFG: &str = "/boot/grub/grub.cfg";
const DEFAULT_GRUB: &str = "/etc/default/grub";

/// Configurations whose kernel commands carry parameters, with what reads them.
const CONFIGS: &[(&str, &str)] = &[
    (GRUB_CFG, "GRUB"),
    ("/boot/grub/custom.cfg", "GRUB"),
    ("/boot/grub/menu.lst", "GRUB legacy"),
    ("/boot/extlinux/extlinux.conf", "extlinux"),
    ("/boot/extlinux/linux.cfg", "extlinux"),
    ("/boot/syslinux/syslinux.cfg", "syslinux"),
];

/// debconf's database; a few MiB on a large system.
const DEBCONF_AT_MOST: Bytes = Bytes::mib(64);

/// Plans all that concerns BIOS and UEFI alike.
pub fn plan(draft: &mut Draft<'_>, guest: &Guest, request: &Request, packages: &Packages) -> Result<()> {
    let devices = Devices::new(draft.scene.volumes, draft.scene.mounts);
    firmware(draft, guest, request);
    let mut found = Vec::new();
    for (path, loader) in CONFIGS {
        if draft.scene.tree.exists(path)? {
            found.push(*loader);
            kernel_lines(draft, &devices, path)?;
        }
    }
    other_loaders(draft, guest, !found.is_empty())?;
    if found.contains(&"GRUB") {
        defaults(draft, &devices)?;
        grub_searches(draft, &devices)?;
        device_map(draft)?;
        if packages.has("grub-pc") {
            debconf(draft)?;
        }
        serial_console(draft)?;
    }
    Ok(())
}

/// The kernel that starts without a choice being made, where the configuration says so plainly.
pub fn default_kernel(draft: &mut Draft<'_>) -> Result<Option<String>> {
    let defaults = draft.read(DEFAULT_GRUB)?.unwrap_or_default();
    if !matches!(text::assignment(&defaults, "GRUB_DEFAULT"), None | Some("0")) {
        return Ok(None);
    }
    let Some(config) = draft.read(GRUB_CFG)? else { return Ok(None) };
    let image = text::lines(&config).find_map(|(body, _)| {
        let command = text::word(body, 0)?;
        matches!(command, "linux" | "linux16" | "linuxefi").then(|| text::word(body, 1)).flatten()
    });
    Ok(image.and_then(|image| image.rsplit('/').next()?.strip_prefix("vmlinuz-")).map(str::to_owned))
}

fn firmware(draft: &mut Draft<'_>, guest: &Guest, request: &Request) {
    let (wanted, other) = match request.firmware {
        Firmware::Bios => ("bios", "uefi"),
        Firmware::Uefi => ("uefi", "bios"),
    };
    if facts::can_start(guest, wanted) {
        return;
    }
    if facts::can_start(guest, other) {
        let (wanted, other) = (wanted.to_uppercase(), other.to_uppercase());
        draft.find(
            "linux-firmware-mismatch",
            format!("The guest's boot loader starts from {other} only, and {wanted} firmware is asked for."),
            format!("Set {other} as the firmware in a copy of the machine's definition, or install a {wanted} boot loader in the guest first."),
        );
    } else {
        draft.find(
            "linux-no-loader",
            "No boot loader was found in the guest, neither for BIOS nor for UEFI.",
            "Check that the disk with /boot (and the EFI system partition) was given.",
        );
    }
}

fn other_loaders(draft: &mut Draft<'_>, guest: &Guest, has_known: bool) -> Result<()> {
    let tree = draft.scene.tree;
    let mut others = Vec::new();
    if let Some(esp) = facts::esp_folder(tree, draft.scene.mounts)? {
        for names in
            [&["loader", "loader.conf"][..], &["EFI", "systemd"], &["EFI", "Linux"], &["EFI", "refind"]]
        {
            if let Some(path) = facts::find_path(tree, &esp, names)? {
                others.push(path);
            }
        }
    }
    for path in ["/etc/lilo.conf", "/boot/refind_linux.conf"] {
        if tree.exists(path)? {
            others.push(path.to_owned());
        }
    }
    if !has_known && (!others.is_empty() || !guest.boot_modes.is_empty()) {
        let what = others.first().map_or("a loader without a known configuration".into(), Clone::clone);
        draft.find(
            "linux-loader-unsupported",
            format!("The guest starts by {what}, whose configuration and initramfs copies landfall does not edit."),
            "Install GRUB in the guest before the move, or rebuild its boot entries on the target from a rescue system.",
        );
    } else if let Some(path) = others.first() {
        draft.find(
            "linux-second-loader",
            format!("Besides GRUB there is another boot loader ({path}), which was left as it is."),
            "Start the guest by GRUB, or check that the other loader's entries name no devices.",
        );
    }
    Ok(())
}

/// The names that a fleeting `root=` or `resume=` gets.
struct Parameters<'d, 'v> {
    devices: &'d Devices<'v>,
    lost: Vec<(String, String)>,
}

impl Parameters<'_, '_> {
    /// `has_initramfs`: without one the kernel itself looks for the root, and it knows no file-system UUIDs.
    fn change(&mut self, key: &str, spec: &str, has_initramfs: bool, is_own: bool) -> Option<String> {
        if !matches!(classify(spec), Name::Disk { .. } | Name::Path { .. } | Name::Mapper) {
            return None;
        }
        let want = if key == "resume" { Want::Swap } else { Want::FileSystem("auto") };
        let volume = match self.devices.resolve(spec, want) {
            Meaning::Keep => return None,
            Meaning::Volume(volume) => Some(volume),
            // A guest's own entries start the guest: its root is known, whatever it used to be called.
            Meaning::Lost(_) if key == "root" && is_own => self.devices.mounted_at("/"),
            Meaning::Lost(_) => None,
        };
        let name = volume.and_then(|volume| match has_initramfs {
            true => self.devices.stable_name(volume),
            false => self.devices.part_uuid(volume),
        });
        if name.is_none() && is_own {
            self.lost.push((key.to_owned(), spec.to_owned()));
        }
        name
    }

    fn report(self, draft: &mut Draft<'_>, path: &str) {
        for (key, spec) in self.lost {
            let id = if key == "root" { "linux-root-lost" } else { "linux-resume-lost" };
            draft.find(
                id,
                format!("{path} says {key}={spec}, a name that this move changes, and no volume with a UUID fits it."),
                format!("Write {key}=UUID=… into {path} in the guest, and convert again."),
            );
        }
    }
}

const KEYS: &[&str] = &["root", "resume"];

fn kernel_lines(draft: &mut Draft<'_>, devices: &Devices<'_>, path: &str) -> Result<()> {
    let mut parameters = Parameters { devices, lost: Vec::new() };
    draft.edit(path, "Every boot entry finds root and resume device by UUID.", |old| {
        edit_kernel_lines(old, |key, spec, has_initramfs, is_own| {
            parameters.change(key, spec, has_initramfs, is_own)
        })
    })?;
    parameters.report(draft, path);
    Ok(())
}

/// Hands every `root=` and `resume=` of every boot entry to `change`: key, value, whether the entry has an initramfs, and
/// whether it is the guest's own (not another system's that os-prober found).
fn edit_kernel_lines(
    file: &[u8],
    mut change: impl FnMut(&str, &str, bool, bool) -> Option<String>,
) -> Option<Vec<u8>> {
    let bodies: Vec<&[u8]> = text::lines(file).map(|(body, _)| body).collect();
    let with_initramfs = entries_with_initramfs(&bodies);
    let mut foreign = false;
    let mut at = 0;
    text::map_lines(file, |body| {
        let has_initramfs = with_initramfs.get(at).copied().unwrap_or(true);
        at += 1;
        let is = |start: &[u8]| body.trim_ascii_start().starts_with(start);
        if is(b"### BEGIN /etc/grub.d/30_os-prober") {
            foreign = true;
        } else if is(b"### END ") {
            foreign = false;
        }
        // update-grub of GRUB legacy keeps its defaults in comments.
        let is_magic = is(b"# kopt=") || is(b"# xenkopt=");
        let is_kernel = is_magic || text::word(body, 0).is_some_and(is_kernel_command);
        if !is_kernel {
            return None;
        }
        text::change_values(body, KEYS, |key, spec| change(key, spec, has_initramfs, !foreign))
    })
}

fn is_kernel_command(word: &str) -> bool {
    ["linux", "linux16", "linuxefi", "kernel", "module", "module2", "append"]
        .iter()
        .any(|command| word.eq_ignore_ascii_case(command))
}

/// For each line, whether an `initrd` command follows in the same entry (true for lines that start no kernel).
fn entries_with_initramfs(bodies: &[&[u8]]) -> Vec<bool> {
    let mut result = vec![true; bodies.len()];
    // Backwards: what the nearest deciding line below says.
    let mut follows = false;
    for (body, has) in bodies.iter().zip(result.iter_mut()).rev() {
        let Some(word) = text::word(body, 0) else { continue };
        let word = word.to_ascii_lowercase();
        match word.as_str() {
            "initrd" | "initrd16" | "initrdefi" => follows = true,
            "linux" | "linux16" | "linuxefi" | "kernel" => {
                *has = follows;
                follows = false;
            }
            "append" => *has = follows || !text::values(body, &["initrd"]).is_empty(),
            "}" | "menuentry" | "submenu" | "title" | "label" | "else" | "fi" => follows = false,
            _ => {}
        }
    }
    result
}

/// What the next update-grub generates from.
fn defaults(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
    let mut paths = vec![DEFAULT_GRUB.to_owned()];
    let more = draft.scene.tree.names("/etc/default/grub.d")?;
    paths.extend(
        more.iter().filter(|name| name.ends_with(".cfg")).map(|name| format!("/etc/default/grub.d/{name}")),
    );
    for path in paths {
        let mut parameters = Parameters { devices, lost: Vec::new() };
        let why = "The next update-grub keeps naming devices by UUID.";
        draft.edit(&path, why, |old| {
            text::map_lines(old, |body| {
                if text::is_comment(body) {
                    return None;
                }
                let disables = ["GRUB_DISABLE_LINUX_UUID", "GRUB_DISABLE_UUID"];
                let by_name = text::change_values(body, &disables, |_, value| {
                    (value == "true").then(|| "false".to_owned())
                });
                by_name.or_else(|| {
                    text::change_values(body, KEYS, |key, spec| parameters.change(key, spec, true, true))
                })
            })
        })?;
        parameters.report(draft, &path);
    }
    Ok(())
}

/// GRUB's own look for its files: by UUID it finds them on any disk, by number only where the order stays.
fn grub_searches(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
    let config = draft.read_text(GRUB_CFG)?.unwrap_or_default();
    let lines: Vec<&str> = config.lines().map(str::trim).collect();
    let mut unknown = None;
    let mut by_order = false;
    for (at, line) in lines.iter().enumerate() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("search") if line.contains("--fs-uuid") => {
                let uuid = words.next_back().unwrap_or("");
                if devices.has_tag(&format!("UUID={uuid}")) == Some(false) {
                    unknown.get_or_insert(uuid);
                }
            }
            Some("set")
                if words
                    .next()
                    .is_some_and(|word| word.starts_with("root='hd") || word.starts_with("root=(hd")) =>
            {
                let near = lines.iter().skip(at).take(6);
                by_order |= !near.clone().any(|line| line.starts_with("search"));
            }
            _ => {}
        }
    }
    if let Some(uuid) = unknown.filter(|_| !devices.something_is_hidden()) {
        draft.find(
            "linux-grub-uuid-unknown",
            format!("{GRUB_CFG} searches the file system {uuid}, which is on none of the given disks."),
            "Check that every disk of the machine was given.",
        );
    }
    let disks = draft.scene.volumes.iter().map(|volume| volume.disk).max().unwrap_or(0);
    if by_order && disks > 0 {
        draft.find(
            "linux-grub-by-disk-order",
            format!("{GRUB_CFG} finds its files by the number of the disk, and the machine has several."),
            "Keep the disks in the order of the source.",
        );
    }
    Ok(())
}

/// A device map is optional, and a stale one makes grub-install fail: it goes.
fn device_map(draft: &mut Draft<'_>) -> Result<()> {
    let path = "/boot/grub/device.map";
    let map = draft.read_text(path)?.unwrap_or_default();
    let stale = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .any(|spec| matches!(classify(spec), Name::Disk { .. } | Name::Path { .. } | Name::Mapper));
    if stale {
        draft
            .remove(path, "It names disks that will be called otherwise; GRUB's tools need no device map.")?;
    }
    Ok(())
}

fn debconf(draft: &mut Draft<'_>) -> Result<()> {
    let Ok(Some(database)) = draft.scene.tree.read("/var/cache/debconf/config.dat", DEBCONF_AT_MOST) else {
        return Ok(());
    };
    let database = String::from_utf8_lossy(&database);
    let stanza = database.split("\n\n").find(|stanza| stanza.starts_with("Name: grub-pc/install_devices\n"));
    let value = stanza.and_then(|stanza| stanza.lines().find_map(|line| line.strip_prefix("Value: ")));
    if let Some(value) = value.filter(|value| value.contains("/dev/")) {
        draft.find(
            "linux-grub-install-devices",
            format!(
                "The package grub-pc is set to install to {}, which will not exist on the target.",
                value.trim()
            ),
            "Run `dpkg-reconfigure grub-pc` on the target before the next upgrade of GRUB.",
        );
    }
    Ok(())
}

fn serial_console(draft: &mut Draft<'_>) -> Result<()> {
    let config = draft.read_text(GRUB_CFG)?.unwrap_or_default();
    if !config.contains("console=ttyS") && !config.contains("console=ttyAMA") {
        draft.find(
            "linux-no-serial-console",
            "The kernel writes to the screen only; a serial console shows nothing of the boot.",
            "Add console=tty0 console=ttyS0 to GRUB_CMDLINE_LINUX if a serial console is wanted.",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::device::tests::{mount, volume};
    use super::*;
    use crate::family::Scene;
    use crate::guest::{Fact, Mount};
    use crate::patch::{Action, PatchPlan};
    use crate::target::Platform;
    use crate::tree::mem::MemTree;
    use proptest::prelude::*;

    fn guest(modes: &[&str], mounts: &[Mount]) -> Guest {
        Guest {
            family: "debian".into(),
            distribution: Fact::new("debian", ""),
            version: Fact::new("12", ""),
            name: Fact::new("", ""),
            architecture: Fact::new("x86_64", ""),
            host_name: None,
            kernels: Vec::new(),
            mounts: mounts.to_vec(),
            init: None,
            boot_modes: modes.iter().map(|mode| Fact::new(*mode, "")).collect(),
            interfaces: Vec::new(),
            agents: Vec::new(),
        }
    }

    fn run(tree: &MemTree, firmware: Firmware, modes: &[&str]) -> PatchPlan {
        let volumes = [volume(0, 1, "ext4", "r00t"), volume(0, 5, "swap", "5wap")];
        let mounts = [mount("/", &volumes[0], "/dev/sda1")];
        let scene = Scene { tree, volumes: &volumes, mounts: &mounts };
        let mut draft = Draft::new(&scene);
        let packages = Packages::parse(b"Package: grub-pc\nStatus: install ok installed\nVersion: 2\n");
        let request = Request { platform: Platform::Kvm, firmware, nics: Vec::new(), network_map: None };
        plan(&mut draft, &guest(modes, &mounts), &request, &packages).unwrap();
        draft.finish()
    }

    const CFG: &str = "### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian {
\tinsmod ext2
\tset root='hd0,msdos1'
\tif [ x$feature_platform_search_hint = xy ]; then
\t  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  r00t
\telse
\t  search --no-floppy --fs-uuid --set=root r00t
\tfi
\techo\t'Loading Linux 6.1.0-43-amd64 ...'
\tlinux\t/boot/vmlinuz-6.1.0-43-amd64 root=/dev/sda1 ro resume=/dev/sda5 quiet
\tinitrd\t/boot/initrd.img-6.1.0-43-amd64
}
submenu 'Advanced options' {
\tmenuentry 'old' {
\t\tlinux\t/boot/vmlinuz-4.19-custom root=/dev/sda1 ro
\t}
\tmenuentry 'gone' {
\t\tlinux\t/boot/vmlinuz-6.1.0-43-amd64 root=/dev/sdb7 ro single
\t\tinitrd\t/boot/initrd.img-6.1.0-43-amd64
\t}
}
### END /etc/grub.d/10_linux ###
### BEGIN /etc/grub.d/30_os-prober ###
menuentry 'Other' {
\tlinux /vmlinuz root=/dev/sdc1
\tinitrd /initrd
}
### END /etc/grub.d/30_os-prober ###
";

    #[test]
    fn every_entry_of_grub_is_done() {
        let tree = MemTree::new()
            .file("/boot/grub/grub.cfg", CFG)
            .file("/boot/grub/device.map", "(hd0)\t/dev/disk/by-id/ata-VMware_1\n")
            .file(
                "/etc/default/grub",
                "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=\"root=/dev/sda1 resume=/dev/sda5\"\n#GRUB_DISABLE_LINUX_UUID=true\nGRUB_DISABLE_LINUX_UUID=true\nGRUB_TERMINAL=\"console serial\"\n",
            )
            .file("/var/cache/debconf/config.dat", "Name: a/b\nValue: /dev/x\n\nName: grub-pc/install_devices\nTemplate: grub-pc/install_devices\nValue: /dev/sda\nOwners: grub-pc\n");
        let plan = run(&tree, Firmware::Bios, &["bios"]);
        insta::assert_json_snapshot!(plan);
        // Nothing is left to do on the result.
        let text =
            |path: &str| match plan.edits.iter().find(|edit| edit.path == path).map(|edit| &edit.action) {
                Some(Action::Write { contents, .. }) => contents.0.clone(),
                other => panic!("{other:?}"),
            };
        let patched = MemTree::new()
            .file("/boot/grub/grub.cfg", text("/boot/grub/grub.cfg"))
            .file("/etc/default/grub", text("/etc/default/grub"));
        assert!(run(&patched, Firmware::Bios, &["bios"]).edits.is_empty());
    }

    #[test]
    fn firmware_that_the_guest_cannot_start_from_blocks() {
        let tree = MemTree::new().file("/boot/grub/grub.cfg", "");
        for (firmware, modes, id) in [
            (Firmware::Uefi, &["bios"][..], Some("linux-firmware-mismatch")),
            (Firmware::Bios, &["uefi"], Some("linux-firmware-mismatch")),
            (Firmware::Bios, &[], Some("linux-no-loader")),
            (Firmware::Bios, &["bios", "uefi"], None),
        ] {
            let plan = run(&tree, firmware, modes);
            assert_eq!(plan.is_blocked(), id.is_some());
            assert!(id.is_none_or(|id| plan.findings.iter().any(|finding| finding.id == id)));
        }
    }

    #[test]
    fn legacy_and_extlinux() {
        let tree = MemTree::new()
            .file("/boot/grub/menu.lst", "# kopt=root=/dev/sda1 ro\r\ntitle Debian\r\nroot (hd0,0)\r\nkernel /vmlinuz-2.6 root=/dev/sda1 ro\r\ninitrd /initrd.img-2.6\r\n")
            .file("/boot/extlinux/extlinux.conf", "label l\n kernel /vmlinuz\n append initrd=/initrd root=/dev/sda1 ro");
        let plan = run(&tree, Firmware::Bios, &["bios"]);
        let texts: Vec<_> = plan.edits.iter().map(|edit| format!("{:?}", edit.action)).collect();
        assert!(
            texts[0].contains("# kopt=root=UUID=r00t ro\\r\\n")
                && texts[0].contains("vmlinuz-2.6 root=UUID=r00t ro\\r\\n"),
            "{texts:?}"
        );
        assert!(texts[1].contains("append initrd=/initrd root=UUID=r00t ro"), "{texts:?}");
    }

    #[test]
    fn systemd_boot_alone_blocks_and_beside_grub_warns() {
        let tree = MemTree::new()
            .file("/boot/efi/loader/loader.conf", "")
            .file("/boot/efi/EFI/systemd/systemd-bootx64.efi", "");
        assert!(run(&tree, Firmware::Uefi, &["uefi"]).is_blocked());
        let plan = run(&tree.file("/boot/grub/grub.cfg", ""), Firmware::Uefi, &["uefi"]);
        assert!(
            !plan.is_blocked() && plan.findings.iter().any(|finding| finding.id == "linux-second-loader")
        );
    }

    proptest! {
        #[test]
        fn no_configuration_panics(file in "(menuentry|linux|initrd|root=/dev/sda1|[{}\n\t '\"=]){0,30}") {
            let once = edit_kernel_lines(file.as_bytes(), |_, _, _, _| Some("UUID=x".into()));
            if let Some(once) = once {
                let twice = edit_kernel_lines(&once, |_, spec, _, _| (spec != "UUID=x").then(|| "UUID=x".into()));
                prop_assert_eq!(twice, None);
            }
        }
    }
}
