//! The probe: a unit that tells, on a second serial line, that the multi-user target is reached and what the guest
//! sees. It goes into the throw-away overlay of the trial, never into the machine. In a Windows nothing speaks: it gets one
//! value of the registry, so that a stop error stays on the screen and in the picture.

use landfall_boot::family::{self, Family, Scene};
use landfall_boot::guest::Guest;
use landfall_boot::patch::{Action, Edit, PatchPlan, Text};
use landfall_boot::target::Request;
use landfall_boot::tree::GuestTreeExt;
use landfall_boot::windows::planner as windows;
use landfall_image::Result;

const SCRIPT_PATH: &str = "/etc/landfall-proof.sh";
const UNIT_PATH: &str = "/etc/systemd/system/landfall-proof.service";
const WANTS_PATH: &str = "/etc/systemd/system/multi-user.target.wants/landfall-proof.service";
const GRUB: [&str; 2] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];

/// True where the probe is among the files that were put into the guest.
pub fn speaks(paths: &[String]) -> bool {
    paths.iter().any(|path| path == UNIT_PATH)
}

/// Every guest that some family knows, planned for speaking instead of for another hypervisor.
pub struct Speaking;

impl Family for Speaking {
    fn name(&self) -> &'static str {
        "boot trial"
    }

    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        Ok(family::recognise(scene)?.map(|(_, guest)| guest))
    }

    fn plan(&self, scene: &Scene<'_>, guest: &Guest, _request: &Request) -> Result<PatchPlan> {
        if guest.family == windows::Windows.name() {
            return windows::plan_trial(scene);
        }
        let mut edits = Vec::new();
        let mut edit = |path: &str, action| {
            edits.push(Edit {
                path: path.to_owned(),
                action,
                why: "it tells how far the boot comes".to_owned(),
                labels: Vec::new(),
            });
        };
        let write = |text: String, mode| Action::Write { contents: Text::from(text), mode };
        if guest.init.as_ref().is_some_and(|init| init.value == "systemd") {
            edit(SCRIPT_PATH, write(include_str!("probe.sh").to_owned(), 0o755));
            edit(UNIT_PATH, write(include_str!("probe.service").to_owned(), 0o644));
            edit(WANTS_PATH, Action::Symlink { target: UNIT_PATH.to_owned() });
        }
        for path in GRUB {
            let Some(text) = scene.tree.read_text(path)? else { continue };
            if let Some(text) = with_serial_console(&text) {
                edit(path, write(text, 0o600));
            }
        }
        Ok(PatchPlan { edits, ..PatchPlan::default() })
    }
}

/// Every kernel line of a grub.cfg with a serial console, where it has none. `None` where nothing changes.
fn with_serial_console(text: &str) -> Option<String> {
    let mut changed = false;
    let mut out = String::with_capacity(text.len() + 256);
    for line in text.split_inclusive('\n') {
        let body = line.trim_end_matches(['\n', '\r']);
        let word = body.split_whitespace().next().unwrap_or("");
        if matches!(word, "linux" | "linux16" | "linuxefi") && !body.contains("console=ttyS0") {
            changed = true;
            out.push_str(body);
            out.push_str(" console=tty0 console=ttyS0,115200");
            out.push_str(&line[body.len()..]);
        } else {
            out.push_str(line);
        }
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_boot::tree::mem::MemTree;
    use landfall_boot::windows::data::Data;
    use landfall_boot::windows::hive::Hive;
    use landfall_boot::windows::registry::Keys;

    #[test]
    fn a_windows_gets_one_value_and_no_probe() {
        let hive = |values: &[(&str, &str, Data)]| {
            let mut hive = Hive::new();
            for (key, name, data) in values {
                Keys::set(&mut hive, key, name, data).unwrap();
            }
            hive.finish().unwrap()
        };
        let version = "Microsoft\\Windows NT\\CurrentVersion";
        let system = hive(&[
            ("Select", "Default", Data::dword(1)),
            ("ControlSet001\\Control\\CrashControl", "AutoReboot", Data::dword(1)),
        ]);
        let software = hive(&[
            (version, "CurrentVersion", Data::text("6.1")),
            (version, "CurrentBuildNumber", Data::text("7601")),
        ]);
        let path = "/Windows/System32/config/SYSTEM";
        let tree = MemTree::new().file(path, system).file("/Windows/System32/config/SOFTWARE", software);
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let guest = Speaking.recognise(&scene).unwrap().unwrap();
        let plan = Speaking.plan(&scene, &guest, &Request::default()).unwrap();
        let [edit] = plan.edits.as_slice() else { panic!("{:?}", plan.edits) };
        let Action::Registry(edits) = &edit.action else { panic!("{edit:?}") };
        let text = serde_json::to_string(&edits.0).unwrap();
        assert!(text.contains("CrashControl") && text.contains("AutoReboot"), "{text}");
        assert_eq!((edit.path.as_str(), edits.0.len()), (path, 1));
        assert!(!speaks(&[path.to_owned()]) && speaks(&[UNIT_PATH.to_owned()]));
    }

    #[test]
    fn kernel_lines_get_a_console_once() {
        let text = "menuentry 'x' {\n\tlinux\t/boot/vmlinuz root=UUID=1 ro quiet\n\tinitrd /x\n}\n";
        let with = with_serial_console(text).unwrap();
        assert!(with.contains("quiet console=tty0 console=ttyS0,115200\n\tinitrd"));
        assert_eq!(with_serial_console(&with), None);
    }
}
