//! Hardware addresses of network cards inside of an initramfs: in its copies of link files and udev rules, in kernel
//! parameters that it carries with it, in what configures its network. They become the addresses that the cards have at the
//! target.
//!
//! Deliberately absent: files of other kinds. The tool that builds the next initramfs copies the guest's own files again.

use super::content::Content;
use super::cpio;
use crate::Result;
use crate::linux::mac::{Changes, Language};
use landfall_image::Bytes;

/// A configuration file; what is longer is none.
const FILE_AT_MOST: Bytes = Bytes::mib(1);

/// Parts of paths, and the endings of the files in question.
const PLACES: &[(&str, &[&str])] = &[
    ("systemd/network/", &[".link", ".network", ".netdev", ".conf"]),
    ("udev/rules.d/", &[".rules"]),
    ("etc/cmdline", &[""]),
    // initramfs-tools: `BOOTIF=`, `IP=`.
    ("conf/initramfs.conf", &[""]),
    ("conf/conf.d/", &[""]),
    ("NetworkManager/", &[".conf", ".nmconnection"]),
    ("etc/sysconfig/network", &[""]),
    ("etc/netplan/", &[".yaml"]),
    // SUSE's mkinitrd.
    ("run_all.sh", &[""]),
    ("config/", &[".sh"]),
];

/// Replaces addresses, old and new, in every such file. True where one was changed.
pub(super) fn renew(content: &mut Content<'_>, addresses: &[(String, String)]) -> Result<bool> {
    if addresses.is_empty() {
        return Ok(false);
    }
    let changes = Changes::new(addresses);
    let mut new = Vec::new();
    for (path, file) in content.iter() {
        let Some(name) = std::str::from_utf8(path).ok().filter(|name| is_meant(name)) else { continue };
        if !file.is(cpio::REGULAR) || file.data.len() as u64 > FILE_AT_MOST.0 {
            continue;
        }
        let language = if name.ends_with(".yaml") { Language::Yaml } else { Language::Plain };
        if let Some(changed) = changes.file(&file.data, language) {
            new.push((path.to_vec(), file.mode & 0o7777, changed));
        }
    }
    let is_changed = !new.is_empty();
    for (path, mode, changed) in new {
        content.put(&path, mode, changed)?;
    }
    Ok(is_changed)
}

fn is_meant(path: &str) -> bool {
    PLACES.iter().any(|(part, endings)| {
        // At the start of a name.
        let mut places = path.match_indices(part).map(|(at, _)| at);
        let is_there = places.any(|at| at == 0 || path.as_bytes().get(at - 1) == Some(&b'/'));
        is_there && endings.iter().any(|ending| path.ends_with(ending))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_by_an_address_goes_by_the_new_one() {
        let pairs = [("00:50:56:aa:bb:0c".to_owned(), "52:54:00:12:34:56".to_owned())];
        for (path, old, new) in [
            (
                "etc/systemd/network/10-lan.link",
                "[Match]\nMACAddress=00:50:56:AA:BB:0C\n",
                "[Match]\nMACAddress=52:54:00:12:34:56\n",
            ),
            ("usr/lib/systemd/network/10-lan.link", "MACAddress=0050.56aa.bb0c", "MACAddress=5254.0012.3456"),
            (
                "etc/udev/rules.d/70-persistent-net.rules",
                "ATTR{address}==\"00:50:56:aa:bb:0c\", NAME=\"lan0\"\n",
                "ATTR{address}==\"52:54:00:12:34:56\", NAME=\"lan0\"\n",
            ),
            (
                "lib/udev/rules.d/70-landfall-net.rules",
                "# 00:50:56:aa:bb:0c\n==\"00:50:56:aa:bb:0c\"\n",
                "# 00:50:56:aa:bb:0c\n==\"52:54:00:12:34:56\"\n",
            ),
            (
                "etc/cmdline.d/40-ifname.conf",
                "ifname=lan0:00:50:56:aa:bb:0c ip=lan0:dhcp",
                "ifname=lan0:52:54:00:12:34:56 ip=lan0:dhcp",
            ),
            ("conf/conf.d/net", "BOOTIF=01-00-50-56-aa-bb-0c\n", "BOOTIF=01-52-54-00-12-34-56\n"),
            (
                "etc/NetworkManager/system-connections/a.nmconnection",
                "mac-address=00:50:56:AA:BB:0C\n",
                "mac-address=52:54:00:12:34:56\n",
            ),
        ] {
            let mut content = Content::new();
            content.put(path.as_bytes(), 0o600, old.into()).unwrap();
            content.put(b"usr/share/doc/x", 0o644, old.into()).unwrap();
            assert!(renew(&mut content, &pairs).unwrap(), "{path}");
            let file = content.get(path.as_bytes()).unwrap().unwrap();
            assert_eq!((String::from_utf8_lossy(&file.data), file.mode & 0o777), (new.into(), 0o600));
            assert_eq!(*content.get(b"usr/share/doc/x").unwrap().unwrap().data, *old.as_bytes());
            assert!(!renew(&mut content, &pairs).unwrap(), "once is enough");
            assert!(!renew(&mut content, &[]).unwrap());
        }
    }
}
