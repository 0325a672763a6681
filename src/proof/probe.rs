//! The probe: a unit that tells, on a second serial line, that the multi-user target is reached and what the guest
//! sees. It goes into the throw-away overlay of the trial, never into the machine.

use landfall_boot::apply::Change;
use landfall_boot::tree::{GuestTree, GuestTreeExt};
use landfall_image::Result;

const SCRIPT_PATH: &str = "/etc/landfall-proof.sh";
const UNIT_PATH: &str = "/etc/systemd/system/landfall-proof.service";
const WANTS_PATH: &str = "/etc/systemd/system/multi-user.target.wants/landfall-proof.service";
const GRUB: [&str; 2] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];

/// What has to be written into the guest at `tree` so that it speaks; empty where it has no systemd.
pub fn changes(tree: &dyn GuestTree) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let put = |path: &str, text: String, mode| Change::Put {
        path: path.to_owned(),
        bytes: text.into_bytes(),
        mode,
    };
    if tree.exists("/lib/systemd/systemd")? || tree.exists("/usr/lib/systemd/systemd")? {
        changes.push(put(SCRIPT_PATH, include_str!("probe.sh").to_owned(), 0o755));
        changes.push(put(UNIT_PATH, include_str!("probe.service").to_owned(), 0o644));
        changes.push(Change::Symlink { path: WANTS_PATH.to_owned(), target: UNIT_PATH.to_owned() });
    }
    for path in GRUB {
        let Some(text) = tree.read_text(path)? else { continue };
        if let Some(text) = with_serial_console(&text) {
            changes.push(put(path, text, 0o600));
        }
    }
    Ok(changes)
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

/// Guest paths of changes, for the report.
pub fn paths(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Put { path, .. } | Change::Symlink { path, .. } | Change::Remove { path } => path.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::with_serial_console;

    #[test]
    fn kernel_lines_get_a_console_once() {
        let text = "menuentry 'x' {\n\tlinux\t/boot/vmlinuz root=UUID=1 ro quiet\n\tinitrd /x\n}\n";
        let with = with_serial_console(text).unwrap();
        assert!(with.contains("quiet console=tty0 console=ttyS0,115200\n\tinitrd"));
        assert_eq!(with_serial_console(&with), None);
    }
}
