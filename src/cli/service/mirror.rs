//! How a source sends its disks: lines that can be copied, for QEMU and for libvirt.
//!
//! With `copy-mode: write-blocking` (libvirt: `--synchronous-writes`) every write of the guest is at the service before the guest hears that it is
//! done. Source: QEMU's QMP reference (blockdev-mirror), libvirt's virsh(1), blockcopy.

use super::shown::wrapped;
use crate::report::api::{Inlet, MachineShown};
use landfall_image::nbd::{Address, Uri};
use serde_json::{Value, json};
use std::fmt::Write;

/// Where a source's QEMU finds its certificates.
const CERTIFICATES: &str = "/etc/pki/qemu";

/// Seconds for which a job that has lost the service waits for it, before its write fails and the job ends: a restart takes less. The guest's writes
/// wait as long, and give up after 30 s.
const RECONNECT: u32 = 25;

/// Disks that examples are for: a page for people.
const SHOWN: usize = 4;

/// Both, for every disk, or for the first of many.
pub fn examples(shown: &MachineShown) -> String {
    let mut out = String::new();
    // From another machine, where the service can be reached from others.
    let places: Vec<(&Inlet, Uri)> = shown
        .receive
        .iter()
        .filter_map(|inlet| Some((inlet, Uri::parse(inlet.uris.last()?).ok()?)))
        .collect();
    if places.is_empty() {
        return out;
    }
    let more = places.len().saturating_sub(SHOWN);
    let places = &places[..places.len() - more];
    out.push_str(
        "\nFrom QEMU (QMP); NODE is the source's own node of that disk (query-named-block-nodes):\n",
    );
    for line in qmp(places) {
        let _ = writeln!(out, "  {line}");
    }
    out.push_str(
        "\nFrom libvirt 8.0 or later; DOMAIN is the machine there, and the disk its target there:\n",
    );
    for (inlet, uri) in places {
        let file = format!("landfall-{}.xml", inlet.disk.replace([' ', '\''], "-"));
        let _ = writeln!(out, "  cat >{file} <<'END'\n{}\nEND", xml(uri));
        let disk = crate::hypervisor::text::shell_word(&inlet.disk);
        let _ = writeln!(
            out,
            "  virsh blockcopy DOMAIN {disk} --xml {file} --reuse-external --synchronous-writes --transient-job --verbose"
        );
    }
    if more > 0 {
        let _ = writeln!(out, "The same for the other {more} disks, each with its own name.");
    }
    out.push_str(&wrapped(
        "",
        0,
        &format!(
            "\nNeither job is ever completed or pivoted: it goes on as long as the machine is protected. The first point is set when all disks \
             are copied; landfall status {} shows how far that is. Both wait for the service while it starts again, \
             {RECONNECT} s at most; libvirt up to 9.0 passes over <reconnect>, and its jobs end then.",
            crate::hypervisor::text::shell_word(&shown.machine.name)
        ),
    ));
    out
}

/// Commands of QMP.
fn qmp(places: &[(&Inlet, Uri)]) -> Vec<Value> {
    let mut commands = Vec::new();
    if places.iter().any(|(_, uri)| uri.tls()) {
        let credentials = json!({ "qom-type": "tls-creds-x509", "id": "landfall", "endpoint": "client", "dir": CERTIFICATES });
        commands.push(json!({ "execute": "object-add", "arguments": credentials }));
    }
    for (inlet, uri) in places {
        let node = format!("landfall-{}", node_name(&inlet.disk));
        let server = match uri.address() {
            Address::Unix(path) => json!({ "type": "unix", "path": path }),
            Address::Tcp(host, port) => json!({ "type": "inet", "host": host, "port": port.to_string() }),
        };
        let mut target = json!({
            "driver": "nbd", "node-name": node, "server": server, "export": inlet.export, "reconnect-delay": RECONNECT,
        });
        if uri.tls() {
            target["tls-creds"] = "landfall".into();
        }
        commands.push(json!({ "execute": "blockdev-add", "arguments": target }));
        let job = json!({
            "job-id": node, "device": "NODE", "target": node, "sync": "full", "copy-mode": "write-blocking",
        });
        commands.push(json!({ "execute": "blockdev-mirror", "arguments": job }));
    }
    commands
}

/// Names of nodes are letters, digits, and few others.
fn node_name(disk: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    // QEMU takes 31 bytes.
    disk.chars().map(plain).take(20).collect()
}

fn xml(uri: &Uri) -> String {
    use crate::hypervisor::xml::escape;
    let host = match uri.address() {
        Address::Unix(path) => {
            format!("<host transport='unix' socket='{}'/>", escape(&path.to_string_lossy()))
        }
        Address::Tcp(host, port) => format!("<host name='{}' port='{port}'/>", escape(host)),
    };
    let tls = if uri.tls() { " tls='yes'" } else { "" };
    format!(
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='{}'{tls}>{host}<reconnect delay='{RECONNECT}'/></source></disk>",
        escape(uri.export())
    )
}
