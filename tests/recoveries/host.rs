//! A host with a libvirt of the system, which is the test's own: in a network and a file system that nothing else sees.
//!
//! `unshare` gives libvirtd namespaces of its own, with empty folders where it keeps its state; what is to speak to it enters
//! them. It needs root.

use super::*;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Sets the namespaces up and becomes libvirtd.
const BEGIN: &str = r#"
set -eu
mount -t tmpfs none /run
for folder in /var/lib/libvirt /var/cache/libvirt /etc/libvirt /var/log/libvirt; do
    mkdir -p "$folder"
    own=$(mktemp -d -p /run)
    mount --bind "$own" "$folder"
done
mkdir -p /run/lock /var/lib/libvirt/qemu /var/cache/libvirt/qemu
cat >/etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
END
# Debian's build looks for them when it starts, whatever its configuration says.
cp /etc/passwd /etc/group /run/
echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >>/run/passwd
printf 'libvirt-qemu:x:64055:\nlibvirt:x:64056:\n' >>/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
ip link set lo up
exec libvirtd --timeout 900
"#;

/// The host.
pub struct Host {
    daemon: Child,
}

impl Host {
    pub fn start() -> Option<Host> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: a libvirt of the system needs root");
            return None;
        }
        let driver = format!(
            "/usr/lib/{}-linux-gnu/libvirt/connection-driver/libvirt_driver_network.so",
            std::env::consts::ARCH
        );
        for tool in ["libvirtd", "virsh", "unshare", "nsenter", "ip", "iptables", &driver] {
            let is_there = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|folder| Path::new(folder).join(tool).exists());
            if !is_there {
                eprintln!("SKIPPED: {tool} is not here: run make test, which installs it");
                return None;
            }
        }
        let daemon = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "sh", "-c", BEGIN])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut host = Host { daemon };
        let deadline = Instant::now() + Duration::from_secs(120);
        while !host.virsh(&["version"]).status.success() {
            if Instant::now() > deadline || host.daemon.try_wait().unwrap().is_some() {
                eprintln!("SKIPPED: a libvirt of the system does not start here");
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(host)
    }

    /// The command on that host.
    pub fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--mount", "--net", "--target"]).arg(self.daemon.id().to_string()).arg("--");
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    pub fn virsh(&self, args: &[&str]) -> Output {
        let mut command = Command::new("virsh");
        command.args(["-q", "-c", "qemu:///system"]).args(args);
        self.enter(&command).output().unwrap()
    }

    /// What virsh prints, where it goes well.
    pub fn ask(&self, args: &[&str]) -> String {
        let output = self.virsh(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Names of its machines and of its networks.
    pub fn has(&self) -> (String, String) {
        (self.ask(&["list", "--all", "--name"]), self.ask(&["net-list", "--all", "--name"]))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in self.ask_quietly(&["list", "--name"]).lines() {
            self.virsh(&["destroy", name.trim()]);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Host {
    fn ask_quietly(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&self.virsh(args).stdout).trim().to_owned()
    }
}
