//! The fleet file: which machines go where.
//!
//! ```toml
//! to = "kvm"                      # for every machine that says nothing else
//! output = "/srv/landed"
//! map = "site-b.toml"
//! machines_at_once = 4
//! rate_limit = "200M"
//!
//! [[machine]]
//! source = "exports/*/*.vmx"      # a pattern stands for all that it finds
//!
//! [[machine]]
//! source = "exports/db01/db01.vmx"
//! to = "proxmox"
//! root = "vg0/root"
//! ```
//! Paths are relative to the file's folder. An entry of its own stands for what a pattern found; the same machine can go to two
//! targets, under two names.

use super::pattern::find;
use crate::hypervisor::{self, Choice, Target};
use crate::machine::parse_mac;
use crate::ops::map::{self, MapFile};
use crate::ops::toml_file::{self, Wrong, wrong};
use crate::ops::{GuestChoice, load_registry, parse_size, source};
use landfall_boot::target::Firmware;
use landfall_boot::windows::agents::AgentInstaller;
use landfall_boot::windows::reg_file::RegistryFile;
use landfall_image::create::Compression;
use landfall_image::{Bytes, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// A fleet file, checked.
pub struct Fleet {
    /// Machines' folders are made in this one.
    pub output: PathBuf,
    /// Converted at the same time, at most; `None` for as many as there are processors, up to four.
    pub machines_at_once: Option<usize>,
    /// Bytes of data read per second by all of them.
    pub rate_limit: Option<Bytes>,
    /// Room that the overlays of machines under way may take, each up to [`SCRATCH_EACH`](super::SCRATCH_EACH).
    pub scratch_at_most: Option<Bytes>,
    /// The machines, in the file's order.
    pub machines: Vec<Entry>,
}

/// One machine of a fleet.
#[derive(Clone)]
pub struct Entry {
    /// Its definition.
    pub source: PathBuf,
    /// It was found by a pattern.
    pub by_pattern: bool,
    /// Where it will run.
    pub target: &'static Target,
    /// Its name at the target, where the file gives one.
    pub name: Option<String>,
    /// Kind of image of its disks.
    pub kind: Option<String>,
    /// How they are compressed.
    pub compression: Option<Compression>,
    /// How it is found and what becomes of it.
    pub guest: GuestChoice,
}

/// Machines that are converted together. Paths are relative to the file's folder.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["machine"]))]
pub(crate) struct WrittenFleet {
    /// The target of machines that name none.
    #[schemars(with = "String", extend("enum" = hypervisor::target_names()))]
    #[serde(default)]
    to: Option<Spanned<String>>,
    /// The folder in which each machine gets a folder of its own; the command line's counts before it.
    #[schemars(with = "String")]
    #[serde(default)]
    output: Option<Spanned<String>>,
    /// The map of machines that name none.
    #[schemars(with = "String")]
    #[serde(default)]
    map: Option<Spanned<String>>,
    /// The folder or ISO image with virtio drivers for Windows guests (virtio-win).
    virtio_win: Option<PathBuf>,
    /// Installers of agents for Windows guests; each guest gets the one that is for it.
    #[serde(default)]
    agent_installers: Vec<PathBuf>,
    /// The file of registry edits (.reg) of machines that name none.
    #[schemars(with = "String")]
    #[serde(default)]
    registry: Option<Spanned<String>>,
    /// Kind of image of the disks of machines that name none; the target's usual one otherwise.
    #[schemars(with = "String", extend("enum" = hypervisor::disk_kinds()))]
    #[serde(default)]
    disk_format: Option<Spanned<String>>,
    /// How disks of machines that name nothing else are compressed.
    #[schemars(with = "String", extend("enum" = COMPRESSIONS.map(|(name, _)| name)))]
    #[serde(default)]
    compress: Option<Spanned<String>>,
    /// Machines that are converted at the same time, at most; as many as there are processors, up to four, otherwise.
    #[schemars(with = "u32", range(min = 1))]
    #[serde(default)]
    machines_at_once: Option<Spanned<u32>>,
    /// Bytes of data that all of them read per second, at most: a whole number with K, M, G or T.
    #[schemars(with = "String", regex(pattern = crate::ops::SIZE))]
    #[serde(default)]
    rate_limit: Option<Spanned<String>>,
    /// Room that overlays of machines under way may take: a whole number with K, M, G or T.
    #[schemars(with = "String", regex(pattern = crate::ops::SIZE))]
    #[serde(default)]
    scratch_at_most: Option<Spanned<String>>,
    /// Agents (or cloud-init) that are left as they are.
    #[schemars(schema_with = "agents")]
    #[serde(default)]
    keep: Vec<String>,
    /// Agents (or cloud-init) that are switched off, though they are the target's own.
    #[schemars(schema_with = "agents")]
    #[serde(default)]
    drop: Vec<String>,
    /// The machines.
    #[serde(default)]
    #[schemars(with = "Vec<WrittenMachine>", length(min = 1))]
    machine: Vec<Spanned<WrittenMachine>>,
}

/// A machine, or all that a pattern finds. An entry of its own counts before one with a pattern.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Machine")]
struct WrittenMachine {
    /// Its definition; `*` and `?` stand for any characters but `/`.
    #[schemars(with = "String", length(min = 1))]
    source: Spanned<String>,
    /// Its target.
    #[schemars(with = "String", extend("enum" = hypervisor::target_names()))]
    #[serde(default)]
    to: Option<Spanned<String>>,
    /// Its name at the target.
    #[schemars(with = "String", length(min = 1))]
    #[serde(default)]
    name: Option<Spanned<String>>,
    /// Kind of image of its disks.
    #[schemars(with = "String", extend("enum" = hypervisor::disk_kinds()))]
    #[serde(default)]
    disk_format: Option<Spanned<String>>,
    /// How its disks are compressed.
    #[schemars(with = "String", extend("enum" = COMPRESSIONS.map(|(name, _)| name)))]
    #[serde(default)]
    compress: Option<Spanned<String>>,
    /// Its map.
    #[schemars(with = "String")]
    #[serde(default)]
    map: Option<Spanned<String>>,
    /// Its file of registry edits (.reg).
    #[schemars(with = "String")]
    #[serde(default)]
    registry: Option<Spanned<String>>,
    /// The volume with its root file system, where several could be.
    #[schemars(with = "String")]
    #[serde(default)]
    root: Option<String>,
    /// A hibernated Windows loses what it has in memory; it is refused otherwise.
    #[serde(default)]
    discard_hibernation: bool,
    /// The snapshot that is converted, by its name; the current state otherwise.
    #[schemars(with = "String")]
    #[serde(default)]
    snapshot: Option<String>,
    /// Which machine of the definition it is, where there are several.
    #[schemars(with = "String")]
    #[serde(default)]
    system: Option<String>,
    /// Which deployment option of an OVF is wanted.
    #[schemars(with = "String")]
    #[serde(default)]
    configuration: Option<String>,
    /// Slots, and files of their disks that lie elsewhere than the definition says.
    #[serde(default)]
    disks: BTreeMap<String, String>,
    /// Slots of disks that are left out.
    #[serde(default)]
    skip_disks: Vec<String>,
    /// The file of its UEFI variables, which lies elsewhere than the definition says.
    #[schemars(with = "String")]
    #[serde(default)]
    nvram: Option<String>,
    /// Memory of a machine whose source is a disk image: `4G`.
    #[schemars(with = "String", regex(pattern = crate::ops::SIZE))]
    #[serde(default)]
    memory: Option<Spanned<String>>,
    /// Processors of such a machine.
    #[schemars(with = "u32")]
    #[serde(default)]
    cpus: Option<Spanned<u32>>,
    /// How such a machine starts.
    #[schemars(with = "String", extend("enum" = FIRMWARES.map(|(name, _)| name)))]
    #[serde(default)]
    firmware: Option<Spanned<String>>,
    /// Network cards of such a machine: their hardware addresses, or `new`.
    #[schemars(with = "Vec<String>")]
    #[serde(default)]
    nics: Vec<Spanned<String>>,
}

/// A list of agents.
fn agents(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "enum": landfall_boot::family::agents() } })
}

/// The words for firmware.
const FIRMWARES: [(&str, Firmware); 2] = [("bios", Firmware::Bios), ("uefi", Firmware::Uefi)];

/// The words for compressions.
const COMPRESSIONS: [(&str, Compression); 2] = [("zlib", Compression::Zlib), ("zstd", Compression::Zstd)];

/// Reads the file at `path`. `output` and `to` of the command line count before the file's.
pub fn load(path: &Path, output: Option<&Path>, to: Option<&'static Target>) -> Result<Fleet> {
    let (text, _) = toml_file::read(path)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let written: WrittenFleet = toml_file::parse(&text).map_err(|error| error.in_file(path))?;
    check(&written, &folder, output, to)?.map_err(|wrong| wrong.in_text(&text).in_file(path))
}

pub(super) type Checked<T> = std::result::Result<T, Wrong>;

/// Errors of files that it names are their own; complaints are about places in this one.
fn check(
    written: &WrittenFleet,
    folder: &Path,
    output: Option<&Path>,
    to: Option<&'static Target>,
) -> Result<Checked<Fleet>> {
    let machines = || written.machine.iter().map(Spanned::get_ref);
    let maps = written.map.iter().chain(machines().filter_map(|one| one.map.as_ref()));
    let registries = written.registry.iter().chain(machines().filter_map(|one| one.registry.as_ref()));
    let named = Named {
        maps: load_each(maps, |name| map::load(&folder.join(name)))?,
        installers: written
            .agent_installers
            .iter()
            .map(|file| AgentInstaller::open(&folder.join(file)))
            .collect::<Result<_>>()?,
        registries: load_each(registries, |name| load_registry(&folder.join(name)))?,
    };
    Ok(check_text(written, folder, output, to, &named))
}

/// Files that it names, by their names.
struct Named {
    maps: BTreeMap<String, MapFile>,
    installers: Vec<AgentInstaller>,
    registries: BTreeMap<String, RegistryFile>,
}

fn load_each<'w, T>(
    names: impl Iterator<Item = &'w Spanned<String>>,
    load: impl Fn(&str) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let mut loaded = BTreeMap::new();
    for name in names.map(Spanned::get_ref) {
        if !loaded.contains_key(name) {
            loaded.insert(name.clone(), load(name)?);
        }
    }
    Ok(loaded)
}

fn check_text(
    written: &WrittenFleet,
    folder: &Path,
    output: Option<&Path>,
    to: Option<&'static Target>,
    named: &Named,
) -> Checked<Fleet> {
    let size = |given: &Option<Spanned<String>>| {
        given
            .as_ref()
            .map(|text| parse_size(text.get_ref()).map_err(|says| wrong(text.span().start, says)))
            .transpose()
    };
    GuestChoice { keep: written.keep.clone(), drop: written.drop.clone(), ..GuestChoice::default() }
        .check()
        .map_err(|error| {
            let complaint = wrong(0, error.to_string());
            match error.hint_text() {
                Some(hint) => complaint.hint(hint),
                None => complaint,
            }
        })?;
    let output = match (output, &written.output) {
        (Some(output), _) => output.to_owned(),
        (None, Some(output)) => folder.join(output.get_ref()),
        (None, None) => {
            return Err(wrong(0, "names no folder for the machines")
                .hint("write output = \"FOLDER\" at its beginning, or give -o"));
        }
    };
    let machines_at_once = match &written.machines_at_once {
        Some(count) if *count.get_ref() == 0 => {
            return Err(wrong(count.span().start, "machines_at_once is 0; at least 1 is possible"));
        }
        Some(count) => usize::try_from(*count.get_ref()).ok(),
        None => None,
    };
    // Also where every machine says something else: who wrote a wrong word meant another.
    let usual = written.to.as_ref().map(target).transpose()?;
    compression(written.compress.as_ref())?;
    if let Some(name) = &written.disk_format
        && !hypervisor::disk_kinds().contains(&name.get_ref().as_str())
    {
        return Err(wrong(
            name.span().start,
            format!("{:?} is no kind of image for a machine's disks", name.get_ref()),
        )
        .hint(format!("choose one of {}", hypervisor::disk_kinds().join(", "))));
    }
    if written.machine.is_empty() {
        return Err(wrong(0, "names no machine").hint("write [[machine]] and below it source = \"FILE\""));
    }
    let mut machines: Vec<Entry> = Vec::new();
    for one in &written.machine {
        let at = one.span().start;
        let one = one.get_ref();
        let Some(target) = one.to.as_ref().map(target).transpose()?.or(to).or(usual) else {
            return Err(wrong(at, "the machine has no target")
                .hint("write to = \"TARGET\" here, or at the beginning for all; or give --to"));
        };
        let choice = Choice {
            snapshot: one.snapshot.clone(),
            system: one.system.clone(),
            configuration: one.configuration.clone(),
        };
        let disks = one.disks.iter().map(|(slot, file)| (slot.clone(), folder.join(file))).collect();
        let map = one.map.as_ref().or(written.map.as_ref()).and_then(|name| named.maps.get(name.get_ref()));
        let registry = one.registry.as_ref().or(written.registry.as_ref());
        let registry = registry.and_then(|name| named.registries.get(name.get_ref()));
        let found = find(folder, &one.source)?;
        if let (Some(name), true) = (&one.name, found.len() > 1) {
            return Err(wrong(name.span().start, format!("{} machines cannot have one name", found.len()))
                .hint("give names with a map: name = \"{name}-dr\""));
        }
        let by_pattern = one.source.get_ref().contains(['*', '?']);
        for source in found {
            // An entry of its own stands for what a pattern found.
            let is_same = |known: &Entry| known.source == source && known.guest.source.choice == choice;
            machines.retain(|known| !(known.by_pattern && known.source == source));
            if machines.iter().any(|known| is_same(known) && known.target.name == target.name) {
                return Err(wrong(at, format!("{} is named twice, to {}", source.display(), target.name))
                    .hint("leave one of the two entries out"));
            }
            let kind = kind(one.disk_format.as_ref().or(written.disk_format.as_ref()), target)?;
            machines.push(Entry {
                by_pattern,
                source,
                target,
                name: one.name.as_ref().map(|name| name.get_ref().clone()),
                compression: taken(
                    one.compress.as_ref().or(written.compress.as_ref()),
                    target,
                    kind.as_deref(),
                )?,
                kind,
                guest: GuestChoice {
                    root: one.root.clone(),
                    discard_hibernation: one.discard_hibernation,
                    keep: written.keep.clone(),
                    drop: written.drop.clone(),
                    source: source::Wanted {
                        choice: choice.clone(),
                        disks: Clone::clone(&disks),
                        skipped: one.skip_disks.clone(),
                        variables: one.nvram.as_ref().map(|file| folder.join(file)),
                        hardware: hardware(one)?,
                    },
                    map: map.cloned(),
                    virtio_win: written.virtio_win.as_ref().map(|path| folder.join(path)),
                    agent_installers: named.installers.clone(),
                    registry: registry.cloned(),
                },
            });
        }
    }
    Ok(Fleet {
        output,
        machines_at_once,
        rate_limit: size(&written.rate_limit)?,
        scratch_at_most: size(&written.scratch_at_most)?,
        machines,
    })
}

/// What an image without a definition gets.
fn hardware(one: &WrittenMachine) -> Checked<source::Hardware> {
    let memory = one.memory.as_ref().map(|text| {
        parse_size(text.get_ref()).map_err(|says| wrong(text.span().start, format!("memory: {says}")))
    });
    let firmware = one.firmware.as_ref().map(|word| {
        let known = FIRMWARES.iter().find(|(name, _)| name == word.get_ref());
        known.map(|(_, firmware)| *firmware).ok_or_else(|| {
            wrong(word.span().start, format!("{:?} is no firmware", word.get_ref()))
                .hint(format!("write {}", FIRMWARES.map(|(name, _)| name).join(" or ")))
        })
    });
    let nics = one.nics.iter().map(|nic| match nic.get_ref().as_str() {
        "new" => Ok(None),
        text => parse_mac(text).map(Some).ok_or_else(|| {
            wrong(nic.span().start, format!("{text:?} is no hardware address"))
                .hint("write 52:54:00:12:34:56, or new")
        }),
    });
    Ok(source::Hardware {
        memory: memory.transpose()?,
        cpus: one.cpus.as_ref().map(|cpus| *cpus.get_ref()),
        firmware: firmware.transpose()?,
        nics: nics.collect::<Checked<_>>()?,
    })
}

fn target(name: &Spanned<String>) -> Checked<&'static Target> {
    hypervisor::target(name.get_ref()).ok_or_else(|| {
        wrong(name.span().start, format!("{:?} is no target", name.get_ref()))
            .hint(format!("choose one of {}", hypervisor::target_names().join(", ")))
    })
}

fn kind(name: Option<&Spanned<String>>, target: &Target) -> Checked<Option<String>> {
    match name {
        Some(name) if !target.kinds.contains(&name.get_ref().as_str()) => Err(wrong(
            name.span().start,
            format!("{} does not take disks of the kind {:?}", target.title, name.get_ref()),
        )
        .hint(format!("choose one of {}", target.kinds.join(", ")))),
        other => Ok(other.map(|name| name.get_ref().clone())),
    }
}

fn compression(name: Option<&Spanned<String>>) -> Checked<Option<Compression>> {
    let Some(name) = name else { return Ok(None) };
    match COMPRESSIONS.iter().find(|(word, _)| word == name.get_ref()) {
        Some((_, compression)) => Ok(Some(*compression)),
        None => Err(wrong(name.span().start, format!("{:?} is no compression", name.get_ref()))
            .hint(format!("write {}", COMPRESSIONS.map(|(word, _)| word).join(" or ")))),
    }
}

/// The same, which the kind of image takes that `target` gets.
fn taken(
    name: Option<&Spanned<String>>,
    target: &Target,
    kind: Option<&str>,
) -> Checked<Option<Compression>> {
    let compression = compression(name)?;
    let kind = kind.or(target.kinds.first().copied()).unwrap_or_default();
    match landfall_image::formats::kind(kind).and_then(|kind| kind.check_compression(compression)) {
        Ok(()) => Ok(compression),
        Err(error) => {
            let at = name.map_or(0, |name| name.span().start);
            Err(wrong(at, format!("{error}, which {} gets here", target.title)).hint(format!(
                "{}; leave compress out for this target, or write it with the machines that it is meant for",
                error.hint_text().unwrap_or_default()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(folder: &Path, text: &str) -> Result<Fleet> {
        let path = folder.join("fleet.toml");
        std::fs::write(&path, text).unwrap();
        load(&path, None, None)
    }

    #[test]
    fn patterns_find_machines_and_the_last_entry_counts() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/a.vmx", "b/b.vmx", "b/b.vmdk", ".c/c.vmx"] {
            let path = dir.path().join("in").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let text = "to = \"kvm\"\noutput = \"out\"\n[[machine]]\nsource = \"in/*/*.vmx\"\n\
                    [[machine]]\nsource = \"in/a/a.vmx\"\nto = \"esxi\"\nroot = \"vg0/root\"\n";
        let fleet = load_text(dir.path(), text).unwrap();
        let found: Vec<_> = fleet
            .machines
            .iter()
            .map(|one| (one.source.strip_prefix(dir.path()).unwrap().to_str().unwrap(), one.target.name))
            .collect();
        assert_eq!(found, [("in/b/b.vmx", "kvm"), ("in/a/a.vmx", "esxi")]);
        assert_eq!(fleet.output, dir.path().join("out"));
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("", "names no folder"),
            ("output = \"o\"\n", "names no machine"),
            ("output = \"o\"\n[[machine]]\nsource = \"a\"\n", "line 2: the machine has no target"),
            (
                "output = \"o\"\nto = \"vmware\"\n[[machine]]\nsource = \"a\"\n",
                "line 2: \"vmware\" is no target",
            ),
            ("output = \"o\"\nto = \"kvm\"\n[[machine]]\nsource = \"*.vmx\"\n", "line 4: nothing is found"),
            (
                "output = \"o\"\nto = \"kvm\"\ndisk_format = \"vhdx\"\n[[machine]]\nsource = \"a\"\n",
                "line 3: ",
            ),
            ("output = \"o\"\nmachines_at_once = 0\n", "line 2: machines_at_once is 0"),
            ("output = \"o\"\nrate = 1\n", "line 2: unknown field"),
            ("output = \"o\"\nto = \"kvm\"\n[[machine]]\n", "line 3: missing field `source`"),
            (
                "output = \"o\"\nto = \"kvm\"\ncompress = \"lzma\"\n[[machine]]\nsource = \"a\"\n",
                "line 3: \"lzma\"",
            ),
            (
                "output = \"o\"\nto = \"kvm\"\ncompress = \"zstd\"\n[[machine]]\nsource = \"a\"\nto = \"hyperv\"\n",
                "line 3: vhdx cannot be compressed with zstd, which Hyper-V gets here",
            ),
            (
                "output = \"o\"\nto = \"kvm\"\n[[machine]]\nsource = \"a\"\ndisk_format = \"raw\"\ncompress = \"zlib\"\n",
                "line 6: raw cannot be compressed with zlib",
            ),
            (
                "output = \"o\"\nto = \"kvm\"\n[[machine]]\nsource = \"a.raw\"\nfirmware = \"efi\"\n",
                "line 5: \"efi\" is no firmware",
            ),
            (
                "output = \"o\"\nto = \"kvm\"\n[[machine]]\nsource = \"a.raw\"\nnics = [\"x\"]\n",
                "line 5: \"x\" is no hardware address",
            ),
        ] {
            let error = load_text(dir.path(), text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}\n{error}");
        }
        let missing =
            load_text(dir.path(), "output = \"o\"\nmap = \"no.toml\"\n[[machine]]\nsource = \"a\"\n");
        assert!(missing.map(|_| ()).unwrap_err().to_string().contains("no.toml"));
    }
}
