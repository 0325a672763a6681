//! Names that a guest gives to what is encrypted and to its arrays: in crypttab, in mdadm.conf, and on its kernel's command
//! line. The volumes exist without them; fstab and the boot loader may know no others.

use super::roots::Looked;
use crate::tree::{CONFIG_AT_MOST, GuestTree, GuestTreeExt, NodeKind};
use crate::volume::scan::opened_id;
use crate::volume::{Content, Meant, Names, Scan, VolumeId};
use crate::{Result, limits};

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// `/dev/mapper/root`, `/dev/md0`.
    device: String,
    of: Of,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    /// What is encrypted in the volume of that name.
    Encrypted(String),
    /// The array of that UUID, as mdadm prints it.
    Array(String),
}

impl Mapped {
    fn encrypted(name: &str, container: &str) -> Option<Mapped> {
        let is_name = !name.is_empty() && name.len() < 128 && !name.contains('/') && !container.is_empty();
        is_name.then(|| Mapped {
            device: format!("/dev/mapper/{name}"),
            of: Of::Encrypted(container.trim_matches('"').to_owned()),
        })
    }
}

/// The names in a root file system's configuration.
pub(super) fn of_tree(tree: &dyn GuestTree) -> Result<Vec<Mapped>> {
    let mut out = Vec::new();
    for line in lines(tree, "/etc/crypttab")? {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(container)) = (words.next(), words.next()) {
            out.extend(Mapped::encrypted(name, container));
        }
    }
    for path in ["/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"] {
        for line in lines(tree, path)? {
            out.extend(array(&line));
        }
    }
    out.truncate(limits::MAPPED_NAMES);
    Ok(out)
}

/// The lines of a configuration file that are no comments; none where it is no sane file.
fn lines(tree: &dyn GuestTree, path: &str) -> Result<Vec<String>> {
    let text = match tree.metadata(path)? {
        Some(meta) if meta.kind == NodeKind::File && meta.size <= CONFIG_AT_MOST => tree.read_text(path)?,
        _ => None,
    };
    let text = text.unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
    Ok(lines.take(limits::MAPPED_NAMES).map(str::to_owned).collect())
}

/// `ARRAY /dev/md0 metadata=1.2 UUID=… name=host:0`; short names stand for those in /dev/md.
fn array(line: &str) -> Option<Mapped> {
    let mut words = line.split_whitespace();
    if !words.next()?.eq_ignore_ascii_case("array") {
        return None;
    }
    let name = words.next().filter(|name| !name.contains('=') && !name.starts_with('<'))?;
    let id = words.find_map(|word| {
        let (key, id) = word.split_once('=')?;
        key.eq_ignore_ascii_case("uuid").then(|| id.to_ascii_lowercase())
    })?;
    let device = if name.starts_with('/') { name.to_owned() } else { format!("/dev/md/{name}") };
    Some(Mapped { device, of: Of::Array(id) })
}

/// The names on kernel command lines in a boot loader's configuration.
pub(super) fn of_loader(text: &str) -> Vec<Mapped> {
    let mut out: Vec<Mapped> = Vec::new();
    let words =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    for word in words {
        let word = word.trim_matches(['"', '\'']);
        let found = match word.split_once('=') {
            // dracut and systemd.
            Some(("rd.luks.name" | "luks.name", value)) => value
                .split_once('=')
                .and_then(|(uuid, name)| Mapped::encrypted(name, &format!("UUID={uuid}"))),
            // mkinitcpio: the device, which may have a colon of its own in no name that stays, the name, and options.
            Some(("cryptdevice", value)) => {
                let mut parts = value.split(':');
                let container = parts.next().unwrap_or_default();
                parts.next().and_then(|name| Mapped::encrypted(name, container))
            }
            _ => None,
        };
        if let Some(found) = found.filter(|found| !out.contains(found)) {
            out.push(found);
        }
        if out.len() >= limits::MAPPED_NAMES {
            break;
        }
    }
    out
}

/// The volumes with the names that were found. One name for two volumes stays with both, and so leads to neither.
pub(super) fn learn(scan: &Scan, looked: &[Looked]) -> Scan {
    let found = looked.iter().flat_map(|looked| &looked.mapped);
    scan.with_names(found.filter_map(|mapped| Some((volume(&mapped.of, scan)?, mapped.device.clone()))))
}

fn volume(of: &Of, scan: &Scan) -> Option<VolumeId> {
    match of {
        Of::Encrypted(spec) => match Names::default().resolve(spec, "auto", &scan.volumes) {
            Meant::Volume(container) => match &container.content {
                Content::Encrypted { scheme } => {
                    let id = opened_id(&container.id, scheme);
                    scan.volume(&id).map(|volume| volume.id.clone())
                }
                _ => None,
            },
            _ => None,
        },
        Of::Array(uuid) => {
            let own = format!("/dev/disk/by-id/md-uuid-{uuid}");
            let is_it = |names: &[String]| names.contains(&own);
            scan.volumes.iter().find(|volume| is_it(&volume.device_names)).map(|volume| volume.id.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;

    #[test]
    fn names_are_found_where_guests_keep_them() {
        let tree = MemTree::new()
            .file("/etc/crypttab", "# root\nsda3_crypt UUID=1a none luks,discard\nbad\n../x UUID=1 none\n")
            .file(
                "/etc/mdadm/mdadm.conf",
                "HOMEHOST <system>\nARRAY /dev/md/0 metadata=1.2 UUID=AA:bb:cc:dd name=h:0\nARRAY <ignore> UUID=1\narray root uuid=1:2:3:4\n",
            );
        let encrypted = |name: &str, of: &str| Mapped { device: name.into(), of: Of::Encrypted(of.into()) };
        let array = |name: &str, of: &str| Mapped { device: name.into(), of: Of::Array(of.into()) };
        assert_eq!(
            of_tree(&tree).unwrap(),
            [
                encrypted("/dev/mapper/sda3_crypt", "UUID=1a"),
                array("/dev/md/0", "aa:bb:cc:dd"),
                array("/dev/md/root", "1:2:3:4")
            ]
        );
        let loader = "linux /v root=/dev/mapper/r rd.luks.name=1a-2b=r quiet\n# rd.luks.name=x=y\n\
                      options cryptdevice=UUID=3c:c:allow-discards root=/dev/mapper/c\nrd.luks.name=1a-2b=r";
        assert_eq!(
            of_loader(loader),
            [encrypted("/dev/mapper/r", "UUID=1a-2b"), encrypted("/dev/mapper/c", "UUID=3c")]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(cryptdevice=|rd.luks.name=|ARRAY |UUID=|[:= a/\n\"]){0,12}") {
            of_loader(&text);
            array(&text);
        }
    }
}
