//! What of the appliance's root is our own: accounts, units, settings of the system. Each file lies in `packaging/`.

use landfall_boot::appliance::root::Root;

macro_rules! own {
    ($path:literal) => {
        include_str!(concat!("../../../packaging/", $path))
    };
}

/// Which packages, with their digests.
pub const PACKAGES: &str = own!("appliance/packages.list");
/// What of them is left out.
pub const LEFT_OUT: &str = own!("appliance/left-out.txt");

/// Path, permission bits, content.
const FILES: &[(&str, u32, &str)] = &[
    ("/etc/passwd", 0o644, own!("appliance/root/passwd")),
    ("/etc/group", 0o644, own!("appliance/root/group")),
    ("/etc/shadow", 0o600, own!("appliance/root/shadow")),
    ("/etc/hosts", 0o644, own!("appliance/root/hosts")),
    ("/etc/hostname", 0o644, "landfall\n"),
    ("/etc/fstab", 0o644, ""),
    // systemd gives a machine its id where there is an empty one.
    ("/etc/machine-id", 0o444, ""),
    ("/etc/nsswitch.conf", 0o644, own!("appliance/root/nsswitch.conf")),
    ("/etc/ssh/sshd_config", 0o644, own!("appliance/root/sshd_config")),
    ("/etc/systemd/journald.conf.d/landfall.conf", 0o644, own!("appliance/root/journald.conf")),
    ("/etc/sysctl.d/landfall.conf", 0o644, own!("appliance/root/sysctl.conf")),
    ("/etc/tmpfiles.d/landfall.conf", 0o644, own!("appliance/root/tmpfiles.conf")),
    ("/etc/modprobe.d/landfall.conf", 0o644, own!("appliance/root/modules.blacklist.conf")),
    ("/etc/systemd/network/90-landfall.network", 0o644, own!("appliance/root/90-landfall.network")),
    (
        "/etc/systemd/system/landfall.service.d/appliance.conf",
        0o644,
        own!("appliance/landfall.service.d/appliance.conf"),
    ),
    ("/usr/lib/udev/rules.d/99-landfall.rules", 0o644, own!("appliance/root/99-landfall.rules")),
];

/// Units, by their names.
const UNITS: &[(&str, &str)] = &[
    ("landfall.service", own!("landfall.service")),
    ("landfall-state.service", own!("appliance/landfall-state.service")),
    ("landfall-settings.service", own!("appliance/landfall-settings.service")),
    ("landfall-data.service", own!("appliance/landfall-data.service")),
    ("landfall-confirm.service", own!("appliance/landfall-confirm.service")),
    ("landfall-addresses.path", own!("appliance/landfall-addresses.path")),
    ("landfall-addresses.service", own!("appliance/landfall-addresses.service")),
    ("landfall-console@.service", own!("appliance/landfall-console@.service")),
    ("landfall-power.service", own!("appliance/landfall-power.service")),
    ("landfall-media.service", own!("appliance/landfall-media.service")),
    ("landfall-welcome.service", own!("appliance/landfall-welcome.service")),
    ("landfall-update.service", own!("appliance/landfall-update.service")),
    ("landfall-grow.service", own!("appliance/landfall-grow.service")),
    ("landfall-resolv.path", own!("appliance/landfall-resolv.path")),
    ("landfall-resolv.service", own!("appliance/landfall-resolv.service")),
    ("landfall-helper.socket", own!("appliance/landfall-helper.socket")),
    ("landfall-helper.service", own!("appliance/landfall-helper.service")),
    ("landfall-trial.socket", own!("appliance/landfall-trial.socket")),
    ("landfall-trial@.service", own!("appliance/landfall-trial@.service")),
    ("ssh.service", own!("appliance/ssh.service")),
];

/// What is started, and by which target.
const STARTED: &[(&str, &str)] = &[
    ("local-fs.target", "landfall-state.service"),
    ("multi-user.target", "landfall-settings.service"),
    ("multi-user.target", "landfall-data.service"),
    ("multi-user.target", "landfall.service"),
    ("multi-user.target", "landfall-confirm.service"),
    ("multi-user.target", "landfall-addresses.path"),
    ("multi-user.target", "ssh.service"),
    ("multi-user.target", "landfall-resolv.path"),
    ("sockets.target", "landfall-helper.socket"),
    ("sockets.target", "landfall-trial.socket"),
    ("multi-user.target", "landfall-media.service"),
    ("multi-user.target", "landfall-power.service"),
    ("landfall.service", "landfall-welcome.service"),
    ("multi-user.target", "systemd-networkd.service"),
    ("sysinit.target", "systemd-timesyncd.service"),
];

/// Consoles.
const CONSOLES: [&str; 2] = ["tty1", "ttyS0"];

/// Links that packages' scripts would have made.
const LINKS: &[(&str, &str)] = &[
    ("/bin", "usr/bin"),
    ("/sbin", "usr/sbin"),
    ("/lib", "usr/lib"),
    ("/lib64", "usr/lib64"),
    ("/init", "usr/lib/systemd/systemd"),
    ("/etc/resolv.conf", "../run/landfall-appliance/resolv.conf"),
    ("/etc/landfall/landfall.toml", "../../run/landfall-appliance/landfall.toml"),
    ("/etc/mtab", "../proc/self/mounts"),
    ("/etc/localtime", "../run/landfall-appliance/localtime"),
    ("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target"),
    ("/etc/systemd/system/getty@.service", "/dev/null"),
    ("/etc/systemd/system/serial-getty@.service", "/dev/null"),
    // Nothing here needs them, and each takes its time from the start. udev's rules ask for the mounts: leaving out links is not enough.
    ("/etc/systemd/system/sys-kernel-config.mount", "/dev/null"),
    ("/etc/systemd/system/sys-fs-fuse-connections.mount", "/dev/null"),
    ("/etc/systemd/system/systemd-udev-load-credentials.service", "/dev/null"),
    ("/etc/systemd/system/ctrl-alt-del.target", "/usr/lib/systemd/system/reboot.target"),
    // The kernel calls these for an orderly end (Hyper-V, Xen).
    ("/usr/sbin/poweroff", "../bin/systemctl"),
    ("/usr/sbin/reboot", "../bin/systemctl"),
    ("/usr/sbin/halt", "../bin/systemctl"),
    ("/usr/sbin/shutdown", "../bin/systemctl"),
    // The sandbox is started through it, and fsck.xfs is a script.
    ("/usr/bin/sh", "bash"),
];

/// Folders that something is mounted on or that must be there.
const FOLDERS: &[(&str, u32)] = &[
    ("/dev", 0o755),
    ("/proc", 0o755),
    ("/sys", 0o755),
    ("/run", 0o755),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/root", 0o700),
    ("/home", 0o755),
    ("/mnt", 0o755),
];

/// Puts our own files into the root.
pub fn put(root: &mut Root) {
    for (path, mode) in FOLDERS {
        root.folder(path, *mode);
    }
    for (path, target) in LINKS {
        root.link(path, target);
    }
    for (path, mode, content) in FILES {
        root.file(path, *mode, *content);
    }
    for (name, content) in UNITS {
        root.file(&format!("/usr/lib/systemd/system/{name}"), 0o644, *content);
    }
    for (target, unit) in STARTED {
        root.link(
            &format!("/etc/systemd/system/{target}.wants/{unit}"),
            &format!("/usr/lib/systemd/system/{unit}"),
        );
    }
    for console in CONSOLES {
        root.link(
            &format!("/etc/systemd/system/multi-user.target.wants/landfall-console@{console}.service"),
            "/usr/lib/systemd/system/landfall-console@.service",
        );
    }
}

/// True for what of the packages goes into the root: the last pattern of [`LEFT_OUT`] that fits a path counts.
pub fn wanted(path: &str, left_out: &[(bool, String)]) -> bool {
    let last =
        left_out.iter().rev().find(|(_, pattern)| landfall_boot::appliance::pattern::matches(pattern, path));
    last.is_none_or(|(wanted, _)| *wanted)
}

/// The patterns of [`LEFT_OUT`] in order, each with whether it takes back.
pub fn left_out(text: &str) -> Vec<(bool, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| (line.starts_with('!'), line.trim_start_matches('!').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_patterns_count_more() {
        let patterns = left_out(LEFT_OUT);
        for (path, is_wanted) in [
            ("/usr/share/doc/bash/copyright", true),
            ("/usr/share/doc/bash/changelog.gz", false),
            ("/etc/passwd", false),
            ("/etc/mke2fs.conf", true),
            ("/usr/bin/ls", true),
            ("/usr/lib/modules/6.12/kernel/drivers/net/wireless/x.ko.xz", false),
            ("/usr/lib/modules/6.12/kernel/drivers/net/vmxnet3/vmxnet3.ko.xz", true),
            ("/boot/vmlinuz-6.12", true),
            ("/usr/lib/systemd/system/multi-user.target.wants/getty.target", false),
        ] {
            assert_eq!(wanted(path, &patterns), is_wanted, "{path}");
        }
    }
}
