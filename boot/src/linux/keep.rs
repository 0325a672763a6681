//! What builds the next initramfs, and how it is told to keep the drivers: a file of its own where the tool reads such
//! files, a line more where it does not. What the administrator wrote stays as it is.

use super::draft::Draft;
use super::drivers::{self, Drivers};
use super::facts::{Kernels, Modules};
use super::{kmod, text};
use crate::Result;
use crate::target::{Request, loads_on};
use crate::tree::{GuestTree, GuestTreeExt};
use std::collections::BTreeSet;

/// What builds the next initramfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Builder {
    /// Debian, Ubuntu.
    #[default]
    InitramfsTools,
    /// RHEL 6 and later, Fedora, Amazon, SLES 12 and later.
    Dracut,
    /// Arch.
    Mkinitcpio,
    /// Alpine.
    Mkinitfs,
    /// SLES 11 and before.
    MkinitrdSuse,
    /// RHEL 5 and before.
    MkinitrdRedHat,
    /// None of these was found.
    Unknown,
}

impl Builder {
    /// The first of the candidates that is installed.
    pub fn found(tree: &dyn GuestTree, candidates: &[Builder]) -> Result<Builder> {
        for builder in candidates {
            for program in builder.programs() {
                if tree.exists(program)? {
                    return Ok(*builder);
                }
            }
        }
        Ok(Builder::Unknown)
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Builder::InitramfsTools => &["/usr/sbin/update-initramfs"],
            Builder::Dracut => &["/usr/bin/dracut", "/usr/sbin/dracut", "/sbin/dracut"],
            Builder::Mkinitcpio => &["/usr/bin/mkinitcpio"],
            Builder::Mkinitfs => &["/sbin/mkinitfs", "/usr/sbin/mkinitfs"],
            Builder::MkinitrdSuse | Builder::MkinitrdRedHat => &["/sbin/mkinitrd"],
            Builder::Unknown => &[],
        }
    }

    /// The command that builds them anew, for remedies.
    pub fn rebuild(self) -> &'static str {
        match self {
            Builder::InitramfsTools => "run update-initramfs -u",
            Builder::Dracut => "run dracut --force --regenerate-all",
            Builder::Mkinitcpio => "run mkinitcpio -P",
            Builder::Mkinitfs => "run mkinitfs",
            Builder::MkinitrdSuse => "run mkinitrd",
            Builder::MkinitrdRedHat => "run mkinitrd -f for each kernel",
            Builder::Unknown => "build the initramfs anew",
        }
    }

    /// Where its archives have mdadm's configuration, without a leading `/`.
    pub fn mdadm_conf(self) -> &'static str {
        match self {
            Builder::InitramfsTools => "etc/mdadm/mdadm.conf",
            _ => "etc/mdadm.conf",
        }
    }
}

/// Tells the guest's tool.
pub fn plan(draft: &mut Draft<'_>, kernels: &Kernels, known: &Drivers, request: &Request) -> Result<()> {
    match draft.builder {
        Builder::InitramfsTools => drivers::keep_for_initramfs_tools(draft, known, request),
        Builder::Dracut => {
            drivers::keep_for_dracut(draft, known)?;
            omitted_by_dracut(draft, known)
        }
        Builder::Mkinitcpio => mkinitcpio(draft, known),
        Builder::Mkinitfs => mkinitfs(draft, kernels, known),
        Builder::MkinitrdSuse => mkinitrd_suse(draft, known, request),
        Builder::MkinitrdRedHat => mkinitrd_redhat(draft, kernels, known, request),
        Builder::Unknown => {
            draft.find(
                "linux-initramfs-tool-unknown",
                "What builds the guest's initramfs was not found, so its next kernel may lack the drivers.",
                format!("Have it pack {} from now on.", known.names().join(", ")),
            );
            Ok(())
        }
    }
}

const WHY: &str = "The next kernel's initramfs gets the drivers, too.";

/// dracut.conf(5) may leave drivers out: `omit_drivers` wins over what is added.
fn omitted_by_dracut(draft: &mut Draft<'_>, known: &Drivers) -> Result<()> {
    let folder = "/etc/dracut.conf.d";
    let names = draft.scene.tree.names(folder)?;
    let names = names.iter().filter(|name| name.ends_with(".conf")).map(|name| format!("{folder}/{name}"));
    for path in names.chain(["/etc/dracut.conf".to_owned()]).collect::<Vec<_>>() {
        let conf = draft.read(&path)?.unwrap_or_default();
        for (body, _) in text::lines(&conf).filter(|(body, _)| !text::is_comment(body)) {
            let line = String::from_utf8_lossy(body).into_owned();
            let Some((key, value)) = line.split_once('=') else { continue };
            if key.trim().trim_end_matches('+') != "omit_drivers" {
                continue;
            }
            let words = value.split(|char: char| char.is_whitespace() || "\"'".contains(char));
            for name in words.map(kmod::normal).filter(|name| known.names().contains(&name.as_str())) {
                draft.find(
                    "linux-driver-forbidden",
                    format!("{path} keeps the driver {name} out of the next kernel's initramfs."),
                    format!("Remove {name} from omit_drivers in {path} before the next kernel is installed."),
                );
            }
        }
    }
    Ok(())
}

/// `MODULES` in mkinitcpio.conf(5). Not a drop-in: presets that name their configuration with `-c` read no drop-ins, and
/// neither did mkinitcpio before version 38. With `?` a module that a kernel lacks is no error.
fn mkinitcpio(draft: &mut Draft<'_>, known: &Drivers) -> Result<()> {
    let mut paths = BTreeSet::new();
    for name in draft.scene.tree.names("/etc/mkinitcpio.d")? {
        if !name.ends_with(".preset") {
            continue;
        }
        // `ALL_config="/etc/mkinitcpio.conf"`, `default_config=…`
        let preset = draft.read_text(&format!("/etc/mkinitcpio.d/{name}"))?.unwrap_or_default();
        for (key, value) in preset.lines().filter_map(|line| line.trim().split_once('=')) {
            let value = value.trim_matches(['"', '\'']);
            if !key.starts_with('#') && key.ends_with("_config") && value.starts_with('/') {
                paths.insert(value.to_owned());
            }
        }
    }
    if paths.is_empty() {
        paths.insert("/etc/mkinitcpio.conf".to_owned());
        // A drop-in that sets the list anew, after the file itself, has to have them as well.
        let folder = "/etc/mkinitcpio.conf.d";
        for name in draft.scene.tree.names(folder)?.into_iter().filter(|name| name.ends_with(".conf")) {
            let path = format!("{folder}/{name}");
            let text = draft.read_text(&path)?.unwrap_or_default();
            if text.lines().any(|line| line.trim_start().starts_with("MODULES=")) {
                paths.insert(path);
            }
        }
    }
    for path in paths {
        let Some(old) = draft.read(&path)? else { continue };
        let listed: BTreeSet<String> = text::lines(&old)
            .filter(|(body, _)| !text::is_comment(body))
            .flat_map(|(body, _)| {
                let text = String::from_utf8_lossy(body).into_owned();
                let plain = |char: char| char.is_ascii_alphanumeric() || "_-".contains(char);
                text.split(|char| !plain(char)).map(kmod::normal).collect::<Vec<_>>()
            })
            .collect();
        let missing: Vec<&str> =
            known.names().iter().copied().filter(|name| !listed.contains(*name)).collect();
        if missing.is_empty() {
            continue;
        }
        // Up to 2018 it was a text, and a list added to a text makes neither.
        let is_text = text::lines(&old).any(|(body, _)| body.trim_ascii().starts_with(b"MODULES=\""));
        let words = |quote: &str| -> Vec<String> {
            missing.iter().map(|name| format!("{quote}{name}?{quote}")).collect()
        };
        let line = match is_text {
            true => format!("MODULES+=\" {}\"", words("").join(" ")),
            false => format!("MODULES+=({})", words("'").join(" ")),
        };
        let lines = [
            "# Added by landfall: disk drivers of other hypervisors, which autodetect would leave out.",
            &line,
        ];
        if let Some(new) = text::append_lines(&old, &lines) {
            draft.write(&path, new, WHY)?;
        }
    }
    Ok(())
}

const MKINITFS_FEATURE: &str = "/etc/mkinitfs/features.d/landfall.modules";

/// A feature of mkinitfs: a list of module files as patterns below the folder of modules, and its name in `features=`.
fn mkinitfs(draft: &mut Draft<'_>, kernels: &Kernels, known: &Drivers) -> Result<()> {
    let mut patterns = BTreeSet::new();
    for kernel in &kernels.found {
        // A kernel without its list is reported where its drivers are checked.
        let Ok(set) = kmod::available(draft.scene.tree, &kernel.modules) else { continue };
        for name in known.names() {
            let path = set.module(name).map(|module| module.path.as_str());
            if let Some((stem, _)) = path.and_then(|path| path.rsplit_once(".ko")) {
                patterns.insert(format!("{stem}.ko*\n"));
            }
        }
    }
    let conf = "/etc/mkinitfs/mkinitfs.conf";
    if patterns.is_empty() || draft.read(conf)?.is_none() {
        return Ok(());
    }
    draft.write(MKINITFS_FEATURE, patterns.into_iter().collect::<String>(), WHY)?;
    draft.edit(conf, WHY, |old| {
        text::map_lines(old, |body| {
            if text::is_comment(body) {
                return None;
            }
            text::change_values(body, &["features"], |_, value| {
                let is_listed = value.split_whitespace().any(|feature| feature == "landfall");
                (!is_listed).then(|| format!("{value} landfall"))
            })
        })
    })?;
    Ok(())
}

/// `INITRD_MODULES` in /etc/sysconfig/kernel: what mkinitrd packs, and loads by name.
fn mkinitrd_suse(draft: &mut Draft<'_>, known: &Drivers, request: &Request) -> Result<()> {
    let path = "/etc/sysconfig/kernel";
    let old = draft.read(path)?.unwrap_or_default();
    let value = text::assignment(&old, "INITRD_MODULES").map(str::to_owned);
    let listed: Vec<String> =
        value.iter().flat_map(|value| value.split_whitespace()).map(kmod::normal).collect();
    let missing: Vec<&str> = known
        .names()
        .iter()
        .copied()
        .filter(|name| loads_on(name, request.platform) && !listed.iter().any(|known| known == name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(" ");
    let new = match value {
        Some(_) => text::map_lines(&old, |body| {
            if text::is_comment(body) {
                return None;
            }
            text::change_values(body, &["INITRD_MODULES"], |_, value| {
                Some(format!("{value} {missing}").trim_start().to_owned())
            })
        }),
        None => text::append_lines(&old, &[format!("INITRD_MODULES=\"{missing}\"")]),
    };
    if let Some(new) = new {
        draft.write(path, new, WHY)?;
    }
    Ok(())
}

/// `alias scsi_hostadapterN` in /etc/modprobe.conf, which mkinitrd packs and loads, and `alias ethN`, by which the network
/// scripts load a card's driver; a name with two drivers gets both. mkinitrd gives up on a kernel that lacks one of them,
/// so only what the newest kernel has as a module is named: the next one has it, too.
fn mkinitrd_redhat(
    draft: &mut Draft<'_>,
    kernels: &Kernels,
    known: &Drivers,
    request: &Request,
) -> Result<()> {
    let Some(newest) = kernels.found.first() else { return Ok(()) };
    let Some(modules) = Modules::read(draft.scene.tree, &newest.modules)? else { return Ok(()) };
    let has = |name: &str| modules.loadable.contains(name);
    let path = "/etc/modprobe.conf";
    let old = draft.read(path)?.unwrap_or_default();
    let mut aliases: Vec<(String, String)> = Vec::new();
    for (body, _) in text::lines(&old).filter(|(body, _)| !text::is_comment(body)) {
        if let (Some("alias"), Some(name), Some(module)) =
            (text::word(body, 0), text::word(body, 1), text::word(body, 2))
        {
            aliases.push((name.to_owned(), kmod::normal(module)));
        }
    }
    let adapter = "scsi_hostadapter";
    // The first has no number: it counts as 0.
    let numbers = aliases.iter().filter_map(|(name, _)| match name.strip_prefix(adapter)? {
        "" => Some(0),
        number => number.parse::<u32>().ok(),
    });
    let mut next = numbers.max().map_or(0, |last| last.saturating_add(1));
    let mut lines = Vec::new();
    for module in known.names() {
        let is_named = aliases.iter().any(|(name, known)| name.starts_with(adapter) && known == module);
        if is_named || !has(module) || !loads_on(module, request.platform) {
            continue;
        }
        match next {
            0 => lines.push(format!("alias {adapter} {module}")),
            number => lines.push(format!("alias {adapter}{number} {module}")),
        }
        next = next.saturating_add(1);
    }
    let cards = request.platform.linux_drivers().cards_for(request.firmware);
    if let Some(card) = cards.map(|card| card.driver).find(|driver| has(driver)) {
        let is_card = |name: &str| {
            name.strip_prefix("eth")
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let cards: BTreeSet<&str> =
            aliases.iter().map(|(name, _)| name.as_str()).filter(|name| is_card(name)).collect();
        for name in cards {
            if !aliases.iter().any(|(other, module)| other == name && module == card) {
                lines.push(format!("alias {name} {card}"));
            }
        }
    }
    if let Some(new) = text::append_lines(&old, &lines) {
        draft.write(
            path,
            new,
            "The next kernel's initial RAM disk gets the drivers, and the cards theirs.",
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
