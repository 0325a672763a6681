//! Kernel parameters that name devices, wherever a boot loader keeps them: a command of a boot entry, a shell variable, a
//! file that holds nothing but parameters.
//!
//! Deliberately left alone: what goes by content (`rd.lvm.lv=`, `rd.luks.uuid=`, `rd.md.uuid=`, `resume_offset=`), what
//! says how and not where (`rootflags=`), and what is for the machine's memory (`crashkernel=`).

use super::super::device::{self, Devices, Meaning, Want};
use super::super::draft::Draft;
use super::super::text;
use crate::Result;
use crate::volume::device_name::{Name, classify};

/// Where each parameter's device name is, and what lies behind it.
const PARAMETERS: &[(&str, Kind)] = &[
    ("root", Kind::Root),
    ("real_root", Kind::Root),
    ("resume", Kind::Swap),
    ("real_resume", Kind::Swap),
    // dracut in FIPS mode looks for the kernel's checksum there.
    ("boot", Kind::FileSystem),
    ("mount.usr", Kind::FileSystem),
    // Arch, Alpine and Gentoo.
    ("cryptdevice", Kind::Encrypted),
    ("cryptroot", Kind::Encrypted),
    ("crypt_root", Kind::Encrypted),
    // Debian's cryptsetup: `target=NAME,source=DEVICE,key=…`.
    ("cryptopts", Kind::Encrypted),
    ("cryptkey", Kind::FileSystem),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Swap,
    FileSystem,
    Encrypted,
}

/// All names of [`PARAMETERS`].
fn keys() -> Vec<&'static str> {
    PARAMETERS.iter().map(|(key, _)| *key).collect()
}

/// Where a parameter stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Without an initramfs the kernel itself looks for the root, and it knows no file-system UUIDs.
    pub has_initramfs: bool,
    /// It belongs to this guest, not to another system that os-prober found.
    pub is_own: bool,
}

impl Place {
    /// A place that only this guest's entries with an initramfs read.
    pub const OWN: Place = Place { has_initramfs: true, is_own: true };
}

/// Gives fleeting names new ones, and remembers those that got none.
pub(super) struct Parameters<'d, 'v> {
    devices: &'d Devices<'v>,
    lost: Vec<(String, String)>,
}

impl<'d, 'v> Parameters<'d, 'v> {
    pub fn new(devices: &'d Devices<'v>) -> Self {
        Parameters { devices, lost: Vec::new() }
    }

    /// The line with every parameter changed that names a device by a fleeting name.
    pub fn line(&mut self, body: &[u8], place: Place) -> Option<Vec<u8>> {
        text::change_values(body, &keys(), |key, value| self.value(key, value, place))
    }

    /// Every line of a file that holds parameters (alone or in variables) and comments.
    pub fn lines(&mut self, file: &[u8]) -> Option<Vec<u8>> {
        text::map_lines(file, |body| match text::is_comment(body) {
            true => None,
            false => self.line(body, Place::OWN),
        })
    }

    fn value(&mut self, key: &str, value: &str, place: Place) -> Option<String> {
        let (_, kind) = PARAMETERS.iter().find(|(known, _)| *known == key)?;
        // `cryptdevice=DEVICE:NAME:OPTIONS`, `cryptkey=DEVICE:TYPE:PATH`; by-path names have colons of their own.
        let (before, spec, more) = match key {
            "cryptdevice" | "cryptkey" if !value.contains("/by-") => {
                let (spec, more) = value.split_at(value.find(':').unwrap_or(value.len()));
                ("", spec, more)
            }
            "cryptopts" => {
                let source = value.split(',').find(|option| option.starts_with("source="))?;
                let at =
                    value.split(',').take_while(|option| *option != source).map(|option| option.len() + 1);
                let (before, rest) = value.split_at(at.sum::<usize>() + "source=".len());
                let (spec, more) = rest.split_at(source.len() - "source=".len());
                (before, spec, more)
            }
            _ => ("", value, ""),
        };
        if !is_fleeting(spec) {
            return None;
        }
        let want = match kind {
            Kind::Root | Kind::FileSystem => Want::FileSystem("auto"),
            Kind::Swap => Want::Swap,
            Kind::Encrypted => Want::Encrypted,
        };
        let at = match (key, kind) {
            (_, Kind::Root) => device::Place::At("/"),
            ("boot", _) => device::Place::At("/boot"),
            ("mount.usr", _) => device::Place::At("/usr"),
            // A key lies on any file system.
            _ => device::Place::Any,
        };
        let volume = match self.devices.resolve_at(spec, want, at) {
            Meaning::Keep => return None,
            Meaning::Volume(volume) => Some(volume),
            // A guest's own entries start the guest: its root is known, whatever it used to be called.
            Meaning::Lost(_) if *kind == Kind::Root && place.is_own => self.devices.mounted_at("/"),
            Meaning::Lost(_) if key == "boot" && place.is_own => self.devices.mounted_at("/boot"),
            Meaning::Lost(_) => None,
        };
        let name = volume.and_then(|volume| match place.has_initramfs {
            true => self.devices.stable_name(volume),
            false => self.devices.part_uuid(volume),
        });
        if name.is_none() && place.is_own {
            self.lost.push((key.to_owned(), value.to_owned()));
        }
        name.map(|name| format!("{before}{name}{more}"))
    }

    /// Says what was not changed, and should have been.
    pub fn report(self, draft: &mut Draft<'_>, path: &str) {
        for (key, spec) in self.lost {
            let kind = PARAMETERS.iter().find(|(known, _)| *known == key).map(|(_, kind)| *kind);
            let id = if kind == Some(Kind::Swap) { "linux-resume-lost" } else { "linux-root-lost" };
            draft.find(
                id,
                format!("{path} says {key}={spec}, a name that this move changes, and no volume with a UUID fits it."),
                format!("Write {key}=UUID=… into {path} in the guest, and convert again."),
            );
        }
    }
}

/// True for a name that changes with the hypervisor.
pub(super) fn is_fleeting(spec: &str) -> bool {
    matches!(classify(spec), Name::Disk { .. } | Name::Path { .. } | Name::Mapper)
}

/// A file that holds parameters and comments and nothing else that looks like one.
pub(super) fn plain_file(draft: &mut Draft<'_>, devices: &Devices<'_>, path: &str, why: &str) -> Result<()> {
    let mut parameters = Parameters::new(devices);
    draft.edit(path, why, |old| parameters.lines(old))?;
    parameters.report(draft, path);
    Ok(())
}

/// A configuration of boot entries: GRUB 2, GRUB legacy, syslinux. They call the same things by different commands.
pub(super) fn entries(draft: &mut Draft<'_>, devices: &Devices<'_>, path: &str) -> Result<()> {
    let mut parameters = Parameters::new(devices);
    draft.edit(path, "Every boot entry finds root and resume device by UUID.", |old| {
        edit_entries(old, |body, place| parameters.line(body, place))
    })?;
    parameters.report(draft, path);
    Ok(())
}

/// Hands every line with kernel parameters to `change`.
pub(super) fn edit_entries(
    file: &[u8],
    mut change: impl FnMut(&[u8], Place) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let bodies: Vec<&[u8]> = text::lines(file).map(|(body, _)| body).collect();
    let with_initramfs = entries_with_initramfs(&bodies);
    let mut is_own = true;
    let mut at = 0;
    text::map_lines(file, |body| {
        let has_initramfs = with_initramfs.get(at).copied().unwrap_or(true);
        at += 1;
        let is = |start: &[u8]| body.trim_ascii_start().starts_with(start);
        if is(b"### BEGIN /etc/grub.d/30_os-prober") {
            is_own = false;
        } else if is(b"### END ") {
            is_own = true;
        }
        // update-grub of GRUB legacy keeps its defaults in comments.
        let is_magic = is(b"# kopt=") || is(b"# xenkopt=");
        let has_parameters = is_magic || text::word(body, 0).is_some_and(takes_parameters);
        has_parameters.then(|| change(body, Place { has_initramfs, is_own }))?
    })
}

/// Commands whose words are kernel parameters. `set` is for `set kernelopts="…"` of Red Hat's GRUB.
fn takes_parameters(word: &str) -> bool {
    ["linux", "linux16", "linuxefi", "kernel", "module", "module2", "append", "set", "options"]
        .iter()
        .any(|command| word.eq_ignore_ascii_case(command))
}

/// For each line, whether its boot entry has an initramfs (true outside of entries). A `module` may be one.
fn entries_with_initramfs(bodies: &[&[u8]]) -> Vec<bool> {
    let word = |body: &[u8]| text::word(body, 0).map(str::to_ascii_lowercase).unwrap_or_default();
    let mut result = Vec::with_capacity(bodies.len());
    let mut rest = bodies;
    while let Some((first, _)) = rest.split_first() {
        let is_begin = |body: &[u8]| ["menuentry", "title", "label"].contains(&word(body).as_str());
        let is_bound = |body: &[u8]| is_begin(body) || ["}", "submenu"].contains(&word(body).as_str());
        let length = 1 + rest.iter().skip(1).take_while(|body| !is_bound(body)).count();
        let (entry, others) = rest.split_at(length.min(rest.len()));
        let has = !is_begin(first)
            || entry.iter().any(|body| {
                ["initrd", "initrd16", "initrdefi", "module", "module2"].contains(&word(body).as_str())
                    || !text::values(body, &["initrd"]).is_empty()
            });
        result.extend(entry.iter().map(|_| has));
        rest = others;
    }
    result
}
