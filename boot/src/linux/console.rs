//! Consoles: Xen's (`hvc0`, long ago `xvc0`) exists on Xen only, so kernel parameters and logins that name it get the
//! serial line that other platforms have; on Azure the serial line is all that a person sees, so it is added.
//!
//! Deliberately absent: serial consoles where nobody asked for one, and GRUB's own terminal (GRUB falls back by itself).

use super::draft::Draft;
use super::{loader, text};
use crate::Result;
use crate::guest::Guest;
use crate::target::{Platform, Request};
use crate::tree::GuestTreeExt;

const SCREEN: &str = "console=tty0";
const XEN: &[&str] = &["hvc0", "xvc0"];

/// What the next kernel's entry is made of: shell assignments, and the command line itself.
const DEFAULTS: &[(&str, &str)] =
    &[("/etc/default/grub", "GRUB_CMDLINE_LINUX"), ("/etc/update-extlinux.conf", "default_kernel_opts")];
const CMDLINE: &str = "/etc/kernel/cmdline";
/// GRUB's environment block has this length, always.
const ENVIRONMENT_BYTES: usize = 1024;

const WHY: &str = "The console that the target has.";

/// The serial line of the target's machines.
#[derive(Clone, Copy, Debug)]
struct Serial {
    /// PCs have a 16550, machines for aarch64 a PL011.
    name: &'static str,
    /// It is added where there is none.
    add: bool,
}

impl Serial {
    fn parameter(self) -> String {
        format!("console={},115200", self.name)
    }
}

/// Plans it. Before the loaders' own edits, so that what they say of consoles is true.
pub fn plan(draft: &mut Draft<'_>, guest: &Guest, request: &Request) -> Result<()> {
    let serial = Serial {
        name: if guest.architecture.value == "aarch64" { "ttyAMA0" } else { "ttyS0" },
        add: request.platform.linux_drivers().wants_serial_console,
    };
    if request.platform == Platform::Xen {
        return Ok(());
    }
    let mut done = Vec::new();
    let files = loader::files(draft)?;
    for path in files.configs {
        edit(draft, &path, &mut done, |old| kernel_lines(old, serial))?;
    }
    for path in files.entries {
        edit(draft, &path, &mut done, |old| {
            text::map_lines(old, |body| {
                let takes = text::word(body, 0).is_some_and(|word| word.eq_ignore_ascii_case("options"));
                takes.then(|| consoles(body, serial))?
            })
        })?;
    }
    for path in files.environments {
        environment(draft, &path, serial, &mut done)?;
    }
    edit(draft, CMDLINE, &mut done, |old| {
        text::map_lines(old, |body| (!text::is_comment(body)).then(|| consoles(body, serial))?)
    })?;
    defaults(draft, serial, &mut done)?;
    logins(draft, serial.name, &mut done)?;
    if !done.is_empty() {
        draft.find(
            "linux-console",
            format!("The console that the target has ({}) was put into {}.", serial.name, done.join(", ")),
            "Choose another one in these files if the machine is watched otherwise.",
        );
    }
    Ok(())
}

fn edit(
    draft: &mut Draft<'_>,
    path: &str,
    done: &mut Vec<String>,
    change: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<()> {
    if draft.edit(path, WHY, change)? {
        done.push(path.to_owned());
    }
    Ok(())
}

fn kernel_lines(old: &[u8], serial: Serial) -> Option<Vec<u8>> {
    text::map_lines(old, |body| {
        let word = text::word(body, 0)?;
        let is_kernel = ["linux", "linux16", "linuxefi", "kernel", "module", "module2", "append"]
            .iter()
            .any(|command| word.eq_ignore_ascii_case(command));
        // update-grub of GRUB legacy keeps its defaults in comments.
        let is_magic = body.starts_with(b"# kopt=") || body.starts_with(b"# xenkopt=");
        // Without a root it is no Linux, or its parameters are on another line.
        let add = serial.add && !text::values(body, &["root"]).is_empty();
        (is_kernel || is_magic).then(|| consoles(body, Serial { add, ..serial }))?
    })
}

/// The line with the consoles of the target.
fn consoles(body: &[u8], serial: Serial) -> Option<Vec<u8>> {
    let mut passed = 0;
    let found: Vec<(usize, usize, String)> = text::values(body, &["console"])
        .into_iter()
        .filter_map(|(key, range)| {
            let start = range.start.checked_sub(key.len() + 1)?;
            // What stands inside of a console's name is none; between quotes there may be several.
            if start < passed {
                return None;
            }
            passed = if matches!(body.get(range.start - 1), Some(b'"' | b'\'')) { passed } else { range.end };
            let value = std::str::from_utf8(body.get(range.clone())?).ok()?;
            let is_bare = body.get(start..)?.starts_with(key.as_bytes());
            is_bare.then(|| (start, range.end, value.split(',').next().unwrap_or("").to_owned()))
        })
        .collect();
    let has_screen = found.iter().any(|(_, _, name)| {
        name.strip_prefix("tty").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let has_serial = found.iter().any(|(_, _, name)| name == serial.name);
    // The last console is the one that programs write to; the screen is there where the machine has no serial line.
    let both = if has_screen { serial.parameter() } else { format!("{SCREEN} {}", serial.parameter()) };
    let is_xen = |(_, _, name): &&(usize, usize, String)| XEN.contains(&name.as_str());
    let mut new = body.to_vec();
    for (at, (start, end, _)) in found.iter().filter(is_xen).enumerate().collect::<Vec<_>>().into_iter().rev()
    {
        if at > 0 || has_serial {
            let before =
                body.get(..*start).is_some_and(|before| before.ends_with(b" ") || before.ends_with(b"\t"));
            new = text::replace(&new, start - usize::from(before)..*end, b"");
        } else {
            let is_value = body.get(..*start).is_some_and(|before| before.ends_with(b"="));
            let by = if is_value { format!("\"{both}\"") } else { both.clone() };
            new = text::replace(&new, *start..*end, by.as_bytes());
        }
    }
    let from_variable = body.windows(10).any(|part| part == b"kernelopts");
    if serial.add && !has_serial && !found.iter().any(|one| is_xen(&one)) && !from_variable {
        let end = new.trim_ascii_end().len();
        new = text::replace(&new, end..new.len(), format!(" {both}").as_bytes());
    }
    (new != body).then_some(new)
}

/// `kernelopts` of Red Hat 8, in a block whose length must stay.
fn environment(draft: &mut Draft<'_>, path: &str, serial: Serial, done: &mut Vec<String>) -> Result<()> {
    let Some(old) = draft.read(path)? else { return Ok(()) };
    let end = old.iter().rposition(|byte| *byte != b'#').map_or(0, |last| last + 1);
    let Some(text) = old.get(..end).filter(|_| old.len() == ENVIRONMENT_BYTES) else { return Ok(()) };
    let new = text::map_lines(text, |body| {
        (body.starts_with(b"kernelopts=")).then(|| {
            // The key is no word of the line here.
            let (key, options) = body.split_at("kernelopts=".len());
            Some([key, &consoles(options, serial)?].concat())
        })?
    });
    let Some(mut new) = new else { return Ok(()) };
    if new.len() > ENVIRONMENT_BYTES {
        draft.find(
            "linux-console-by-hand",
            format!("{path} has no room for another console among the kernel's parameters."),
            format!(
                "Put {} into the kernel's parameters on the target (grub2-editenv, grubby).",
                serial.parameter()
            ),
        );
        return Ok(());
    }
    new.resize(ENVIRONMENT_BYTES, b'#');
    draft.write(path, new, WHY)?;
    done.push(path.to_owned());
    Ok(())
}

/// What the next update of the loader's configuration generates from.
fn defaults(draft: &mut Draft<'_>, serial: Serial, done: &mut Vec<String>) -> Result<()> {
    let assignments = |old: &[u8]| assignments(old, serial);
    let is_named = format!("console={}", serial.name);
    let mut has_serial = false;
    let more = draft.scene.tree.names("/etc/default/grub.d")?;
    let more =
        more.iter().filter(|name| name.ends_with(".cfg")).map(|name| format!("/etc/default/grub.d/{name}"));
    for path in more {
        edit(draft, &path, done, assignments)?;
        has_serial |= draft.read_text(&path)?.is_some_and(|text| text.contains(&is_named));
    }
    for (path, key) in DEFAULTS {
        edit(draft, path, done, assignments)?;
        let Some(text) = draft.read(path)? else { continue };
        has_serial |= String::from_utf8_lossy(&text)
            .lines()
            .any(|line| !line.trim_start().starts_with('#') && line.contains(&is_named));
        if serial.add && !has_serial {
            edit(draft, path, done, |old| Some(added(old, key, serial)))?;
        }
    }
    Ok(())
}

fn assignments(old: &[u8], serial: Serial) -> Option<Vec<u8>> {
    let serial = Serial { add: false, ..serial };
    text::map_lines(old, |body| (!text::is_comment(body)).then(|| consoles(body, serial))?)
}

/// The file with the serial line in the last assignment of `key`, or in one of its own.
fn added(old: &[u8], key: &str, serial: Serial) -> Vec<u8> {
    let serial = serial.parameter();
    let is_key = |body: &[u8]| {
        body.trim_ascii_start().strip_prefix(key.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    let last = text::lines(old).enumerate().filter(|(_, (body, _))| is_key(body)).map(|(at, _)| at).last();
    let mut at = 0;
    let new = text::map_lines(old, |body| {
        let here = last == Some(at);
        at += 1;
        let (_, range) = here.then(|| text::values(body, &[key]).into_iter().next())??;
        let value = String::from_utf8_lossy(body.get(range.clone())?).into_owned();
        let screen = if value.contains("console=tty") { "" } else { "console=tty0 " };
        let value = format!("{value} {screen}{serial}");
        let is_quoted =
            body.get(..range.start).is_some_and(|before| before.ends_with(b"\"") || before.ends_with(b"'"));
        let value = if is_quoted { value.trim().to_owned() } else { format!("\"{}\"", value.trim()) };
        Some(text::replace(body, range, value.as_bytes()))
    });
    new.or_else(|| text::append_lines(old, &[format!("{key}=\"{SCREEN} {serial}\"")])).unwrap_or_default()
}

/// Logins on Xen's console.
fn logins(draft: &mut Draft<'_>, serial: &str, done: &mut Vec<String>) -> Result<()> {
    let tree = draft.scene.tree;
    // busybox calls a line by its terminal; sysvinit takes four letters.
    let is_busybox = tree.exists("/etc/alpine-release")?;
    edit(draft, "/etc/inittab", done, |old| inittab(old, serial, is_busybox))?;
    let folder = "/etc/systemd/system";
    for target in ["getty.target.wants", "multi-user.target.wants"] {
        for name in tree.names(&format!("{folder}/{target}"))? {
            let is_xen = XEN.iter().any(|xen| name.ends_with(&format!("getty@{xen}.service")));
            if !is_xen {
                continue;
            }
            let template = ["/lib/systemd/system", "/usr/lib/systemd/system"]
                .map(|folder| format!("{folder}/serial-getty@.service"));
            for template in template {
                if tree.exists(&template)? {
                    let counterpart = format!("{folder}/{target}/serial-getty@{serial}.service");
                    draft.symlink(&counterpart, &template, WHY)?;
                    break;
                }
            }
            let path = format!("{folder}/{target}/{name}");
            draft.remove(&path, WHY)?;
            done.push(path);
        }
    }
    for xen in XEN {
        let (job, over) = (format!("/etc/init/{xen}.conf"), format!("/etc/init/{xen}.override"));
        let Some(text) = draft.read_text(&job)? else { continue };
        if tree.exists(&over)? {
            continue;
        }
        let counterpart = format!("/etc/init/{serial}.conf");
        if !tree.exists(&counterpart)? {
            draft.write(&counterpart, text.replace(xen, serial), WHY)?;
        }
        draft.write(&over, "# Written by landfall: there is no such console here.\nmanual\n", WHY)?;
        done.push(job);
    }
    edit(draft, "/etc/securetty", done, |old| {
        let has = |name: &str| text::lines(old).any(|(body, _)| body.trim_ascii() == name.as_bytes());
        let wants = XEN.iter().any(|xen| has(xen)) && !has(serial);
        wants.then(|| text::append_lines(old, &[serial]))?
    })
}

fn inittab(old: &[u8], serial: &str, is_busybox: bool) -> Option<Vec<u8>> {
    let active = |body: &[u8]| !text::is_comment(body);
    let has_serial = text::lines(old).any(|(body, _)| active(body) && contains(body, serial));
    let mut taken = has_serial;
    text::map_lines(old, |body| {
        let xen = XEN.iter().find(|xen| active(body) && contains(body, xen))?;
        if taken {
            return Some([b"#", body].concat());
        }
        taken = true;
        let line = String::from_utf8(body.to_vec()).ok()?;
        let (id, rest) = line.split_once(':')?;
        let id = match (id == *xen, is_busybox) {
            (true, true) => serial,
            // Four letters at most: `S0`.
            (true, false) => serial.trim_start_matches("tty"),
            (false, _) => id,
        };
        Some(format!("{id}:{}", rest.replace(xen, serial)).into_bytes())
    })
}

fn contains(body: &[u8], piece: &str) -> bool {
    body.windows(piece.len()).any(|part| part == piece.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::guest::Fact;
    use crate::patch::{Action, PatchPlan};
    use crate::tree::mem::MemTree;
    use proptest::prelude::*;

    fn run(tree: &MemTree, platform: Platform) -> PatchPlan {
        run_on(tree, platform, "x86_64")
    }

    fn run_on(tree: &MemTree, platform: Platform, architecture: &str) -> PatchPlan {
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let guest = Guest { architecture: Fact::new(architecture, ""), ..loader::tests::guest(&[], &[]) };
        plan(&mut draft, &guest, &Request { platform, ..Request::default() }).unwrap();
        draft.finish()
    }

    fn pc(add: bool) -> Serial {
        Serial { name: "ttyS0", add }
    }

    fn written(plan: &PatchPlan, path: &str) -> String {
        match plan.edits.iter().find(|edit| edit.path == path).map(|edit| &edit.action) {
            Some(Action::Write { contents, .. }) => String::from_utf8(contents.0.clone()).unwrap(),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn line(body: &str, add: bool) -> Option<String> {
        consoles(body.as_bytes(), pc(add)).map(|new| String::from_utf8(new).unwrap())
    }

    #[test]
    fn the_console_of_xen_becomes_a_serial_line() {
        for (old, new) in [
            (
                "linux /v root=UUID=1 console=hvc0 quiet",
                "linux /v root=UUID=1 console=tty0 console=ttyS0,115200 quiet",
            ),
            ("linux /v console=tty0 console=hvc0", "linux /v console=tty0 console=ttyS0,115200"),
            ("linux /v console=hvc0 console=ttyS0", "linux /v console=ttyS0"),
            ("kernel /v console=xvc0 console=hvc0 x", "kernel /v console=tty0 console=ttyS0,115200 x"),
            (
                "GRUB_CMDLINE_LINUX=\"console=hvc0\"",
                "GRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200\"",
            ),
            ("GRUB_CMDLINE_LINUX=console=hvc0", "GRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200\""),
        ] {
            assert_eq!(line(old, false).as_deref(), Some(new));
            assert_eq!(line(new, false), None, "once is enough");
            assert_eq!(line(new, true), None, "it is a serial line");
        }
        for other in
            ["linux /v console=hvc1", "linux /v netconsole=hvc0 console=tty0", "linux /v console=ttyS1,9600"]
        {
            assert_eq!(line(other, false), None);
        }
    }

    #[test]
    fn a_console_inside_of_another_is_none() {
        let once = line("console=hvc0,console=console=ttyS0", true).unwrap();
        assert_eq!(once, "console=tty0 console=ttyS0,115200");
        assert_eq!(line(&once, true), None);
    }

    #[test]
    fn azure_gets_a_serial_line_in_addition() {
        assert_eq!(
            line("options root=x quiet", true).unwrap(),
            "options root=x quiet console=tty0 console=ttyS0,115200"
        );
        assert_eq!(
            line("options root=x console=tty1 ", true).unwrap(),
            "options root=x console=tty1 console=ttyS0,115200"
        );
        assert_eq!(line("options $kernelopts $tuned_params", true), None);
        for (old, new) in [
            (
                "A=1\nGRUB_CMDLINE_LINUX=\"\"\n",
                "A=1\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200\"\n",
            ),
            (
                "GRUB_CMDLINE_LINUX=quiet\n",
                "GRUB_CMDLINE_LINUX=\"quiet console=tty0 console=ttyS0,115200\"\n",
            ),
            ("A=1\n", "A=1\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200\"\n"),
            (
                "#console=ttyS0\nGRUB_CMDLINE_LINUX=''\n",
                "#console=ttyS0\nGRUB_CMDLINE_LINUX='console=tty0 console=ttyS0,115200'\n",
            ),
        ] {
            let tree = MemTree::new().file("/etc/default/grub", old);
            assert_eq!(written(&run(&tree, Platform::Azure), "/etc/default/grub"), new);
            assert_eq!(run(&tree, Platform::Kvm).edits, []);
            assert_eq!(run(&MemTree::new().file("/etc/default/grub", new), Platform::Azure).edits, []);
        }
        let cloud = MemTree::new().file("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n").file(
            "/etc/default/grub.d/50-cloudimg.cfg",
            "GRUB_CMDLINE_LINUX_DEFAULT=\"console=tty1 console=ttyS0\"\n",
        );
        assert_eq!(run(&cloud, Platform::Azure).edits, [], "Ubuntu's images have it elsewhere");
        let memtest = "menuentry x {\n linux16 /boot/memtest86+.bin\n}\n";
        assert_eq!(run(&MemTree::new().file("/boot/grub/grub.cfg", memtest), Platform::Azure).edits, []);
    }

    #[test]
    fn every_configuration_of_a_xen_guest() {
        let kernelopts = "# GRUB Environment Block\nsaved_entry=x\nkernelopts=root=UUID=1 ro console=hvc0 \n";
        let grubenv = format!("{kernelopts:#<1024}");
        let tree = MemTree::new()
            .file("/boot/grub2/grubenv", grubenv)
            .file("/boot/grub2/grub.cfg", "\tlinux /v root=UUID=1 console=hvc0\n\tinitrd /i\n")
            .file(
                "/boot/grub/menu.lst",
                "# kopt=root=UUID=1 console=hvc0\ntitle console=hvc0\nkernel /v root=UUID=1 console=hvc0\n",
            )
            .file("/boot/loader/entries/a.conf", "title console=hvc0\noptions $kernelopts console=hvc0\n")
            .file("/etc/kernel/cmdline", "root=UUID=1 console=hvc0\n")
            .file(
                "/etc/inittab",
                "1:2345:respawn:/sbin/getty 38400 tty1\nh0:2345:respawn:/sbin/agetty hvc0 9600\n#x:hvc0\n",
            )
            .file("/lib/systemd/system/serial-getty@.service", "")
            .symlink(
                "/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service",
                "/lib/systemd/system/serial-getty@.service",
            )
            .file("/etc/init/hvc0.conf", "respawn\nexec /sbin/getty -8 38400 hvc0\n")
            .file("/etc/securetty", "tty1\nhvc0\n");
        let plan = run(&tree, Platform::Kvm);
        let environment = written(&plan, "/boot/grub2/grubenv");
        assert_eq!(environment.len(), 1024);
        assert!(
            environment.contains("\nkernelopts=root=UUID=1 ro console=tty0 console=ttyS0,115200 \n###"),
            "{environment}"
        );
        assert_eq!(
            written(&plan, "/boot/grub/menu.lst"),
            "# kopt=root=UUID=1 console=tty0 console=ttyS0,115200\ntitle console=hvc0\nkernel /v root=UUID=1 console=tty0 console=ttyS0,115200\n"
        );
        assert!(
            written(&plan, "/boot/loader/entries/a.conf")
                .starts_with("title console=hvc0\noptions $kernelopts console=tty0")
        );
        assert!(
            written(&plan, "/etc/inittab").contains("\nh0:2345:respawn:/sbin/agetty ttyS0 9600\n#x:hvc0\n")
        );
        assert_eq!(written(&plan, "/etc/init/ttyS0.conf"), "respawn\nexec /sbin/getty -8 38400 ttyS0\n");
        assert_eq!(written(&plan, "/etc/securetty"), "tty1\nhvc0\nttyS0\n");
        let wants = "/etc/systemd/system/getty.target.wants";
        let paths: Vec<_> = plan.edits.iter().map(|edit| edit.path.clone()).collect();
        assert!(paths.contains(&format!("{wants}/serial-getty@ttyS0.service")));
        assert!(paths.contains(&format!("{wants}/serial-getty@hvc0.service")));
        assert_eq!(plan.findings.len(), 1, "{:?}", plan.findings);
        assert_eq!(run(&tree, Platform::Xen).edits, [], "at home nothing changes");
    }

    /// Before RHEL 8 and Fedora 34 GRUB's real configuration on UEFI is on the ESP; `menu.lst` is a link on Red Hat.
    #[test]
    fn configurations_on_the_esp_and_behind_links() {
        let line = "\tlinuxefi /v root=UUID=1 console=hvc0\n";
        let tree = MemTree::new()
            .file("/boot/efi/EFI/centos/grub.cfg", line)
            .file("/boot/efi/EFI/redhat/grub.conf", "title x\nkernel /v root=UUID=1 console=hvc0\n")
            .file("/boot/grub/grub.conf", "title x\nkernel /v root=UUID=1 console=hvc0\n")
            .symlink("/boot/grub/menu.lst", "./grub.conf")
            .file("/boot/efi/Loader/Entries/a.conf", "options root=UUID=1 console=hvc0\n");
        let plan = run(&tree, Platform::Kvm);
        let mut paths: Vec<_> = plan.edits.iter().map(|edit| edit.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "/boot/efi/EFI/centos/grub.cfg",
                "/boot/efi/EFI/redhat/grub.conf",
                "/boot/efi/Loader/Entries/a.conf",
                "/boot/grub/grub.conf"
            ]
        );
    }

    #[test]
    fn inittab_of_busybox_and_of_sysvinit() {
        let alpine = b"hvc0::respawn:/sbin/getty -L hvc0 115200 vt100\n";
        assert_eq!(
            inittab(alpine, "ttyS0", true).unwrap(),
            b"ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\n"
        );
        assert_eq!(
            inittab(alpine, "ttyS0", false).unwrap(),
            b"S0::respawn:/sbin/getty -L ttyS0 115200 vt100\n"
        );
        let both = b"S0:2345:respawn:/sbin/getty ttyS0\nhvc0:2345:respawn:/sbin/getty hvc0\n";
        assert_eq!(
            inittab(both, "ttyS0", false).unwrap(),
            b"S0:2345:respawn:/sbin/getty ttyS0\n#hvc0:2345:respawn:/sbin/getty hvc0\n"
        );
    }

    /// Machines for aarch64 have another kind of serial line.
    #[test]
    fn the_serial_line_of_aarch64() {
        let tree = MemTree::new()
            .file("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n")
            .file("/boot/grub/grub.cfg", "\tlinux /v root=UUID=1\n");
        let plan = run_on(&tree, Platform::Azure, "aarch64");
        let line = "\tlinux /v root=UUID=1 console=tty0 console=ttyAMA0,115200\n";
        assert_eq!(written(&plan, "/boot/grub/grub.cfg"), line);
        let defaults = "GRUB_CMDLINE_LINUX=\"console=tty0 console=ttyAMA0,115200\"\n";
        assert_eq!(written(&plan, "/etc/default/grub"), defaults);
        assert!(plan.findings[0].says.contains("ttyAMA0"));
    }

    #[test]
    fn a_full_environment_block_is_told() {
        let text = format!("# GRUB Environment Block\nkernelopts=console=hvc0 {}\n", "x".repeat(960));
        let tree = MemTree::new().file("/boot/grub2/grubenv", format!("{text:#<1024}"));
        let plan = run(&tree, Platform::Kvm);
        assert_eq!(plan.edits, []);
        assert_eq!(plan.findings[0].id, "linux-console-by-hand");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_twice_is_once(body in "(console=|hvc0|ttyS0|tty0|,|[ \t\"'=a]){0,24}", add: bool) {
            if let Some(once) = consoles(body.as_bytes(), pc(add)) {
                prop_assert_eq!(consoles(&once, pc(add)), None);
            }
        }
    }
}
