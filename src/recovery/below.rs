//! What a recovered machine's disks lie over, in the words of those who read it.
//!
//! Source: QEMU, "QEMU Block Drivers" (`nbd`: `server`, `export`, `reconnect-delay`) and qemu(1), "json:" in names of images.

use crate::hypervisor::{Below, RECONNECT_SECONDS, Server};
use landfall_image::nbd::{Address, Uri};
use landfall_image::{Error, Result};
use serde_json::json;

/// The longest name that a qcow2's header takes.
const NAME_AT_MOST: usize = 1023;

/// The export that `uri` names, as a definition has it.
///
/// # Errors
/// Refused where it is no URI of NBD; unsupported where it is encrypted: QEMU's certificates are configured at its host.
pub fn of(uri: &str) -> Result<Below> {
    let parsed = Uri::parse(uri)?;
    if parsed.tls() {
        return Err(Error::unsupported(format!(
            "{uri} is encrypted, which a machine's disk cannot lie over"
        ))
        .hint("recover the machine on the host of the vault, over its local socket"));
    }
    let server = match parsed.address() {
        Address::Tcp(host, port) => Server::Host(host.clone(), *port),
        Address::Unix(path) => {
            let path = path.to_str().filter(|path| path.starts_with('/')).ok_or_else(|| {
                Error::unsupported(format!("{uri} names a socket without its whole path in UTF-8"))
            })?;
            Server::Socket(path.to_owned())
        }
    };
    Ok(Below { server, export: parsed.export().to_owned() })
}

/// It as a URI.
pub fn uri(below: &Below) -> String {
    let address = match &below.server {
        Server::Socket(path) => Address::Unix(path.into()),
        Server::Host(host, port) => Address::Tcp(host.clone(), *port),
    };
    Uri::new(address, false, &below.export).to_string()
}

/// The name by which QEMU opens it out of a qcow2's header, as a raw disk.
///
/// # Errors
/// Refused where it is too long for the header.
pub fn qemu_name(below: &Below) -> Result<String> {
    let server = match &below.server {
        Server::Socket(path) => json!({ "type": "unix", "path": path }),
        Server::Host(host, port) => json!({ "type": "inet", "host": host, "port": port.to_string() }),
    };
    let file = json!({
        "driver": "nbd",
        "server": server,
        "export": below.export,
        "reconnect-delay": RECONNECT_SECONDS,
    });
    let name = format!("json:{}", json!({ "driver": "raw", "file": file }));
    match name.len() <= NAME_AT_MOST {
        true => Ok(name),
        false => Err(Error::refused(format!(
            "a disk over {:?} would name it in {} bytes; {NAME_AT_MOST} are the most",
            below.export,
            name.len()
        ))
        .hint("give machine, disk or the socket's folder a shorter name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_named_for_qemu_and_for_libvirt() {
        let below = of("nbd+unix:///web01/sda@1234?socket=/run/land%20fall/points.sock").unwrap();
        assert_eq!(below.export, "web01/sda@1234");
        assert_eq!(below.server, Server::Socket("/run/land fall/points.sock".into()));
        assert_eq!(
            qemu_name(&below).unwrap(),
            "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"export\":\"web01/sda@1234\",\"reconnect-delay\":25,\
             \"server\":{\"path\":\"/run/land fall/points.sock\",\"type\":\"unix\"}}}"
        );
        assert_eq!(uri(&below), "nbd+unix:///web01/sda%401234?socket=/run/land%20fall/points.sock");
        let odd = Below { export: "Süd 1/sda&x=?#@7".into(), ..below.clone() };
        assert_eq!(of(&uri(&odd)).unwrap(), odd);
        assert_eq!(of("nbd://vault:1/x").unwrap().server, Server::Host("vault".into(), 1));
        for uri in ["nbds://vault/x", "nbd+unix:///x?socket=points.sock", "web01.qcow2"] {
            assert!(of(uri).is_err(), "{uri}");
        }
        let long = Below { export: "x".repeat(1000), ..below };
        assert!(qemu_name(&long).unwrap_err().hint_text().is_some());
    }
}
