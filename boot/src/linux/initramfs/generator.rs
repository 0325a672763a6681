//! Which tool made an initramfs, and how such a one is told to load a driver by name.
//!
//! Where udev or nlplug-findfs loads drivers by device, names are belt and braces; nash has nothing but names.

use super::content::Content;
use super::explicit::{self, Line, NashStyle};
use super::{Rewritten, cpio, put_if_new};
use crate::Result;
use crate::linux::kmod;
use std::collections::BTreeSet;

/// Which tool made an initramfs, and so what loads drivers in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generator {
    /// Debian, Ubuntu: `/conf/modules`, then udev.
    InitramfsTools,
    /// Red Hat since 6, SUSE since 12 and others: udev; modules-load.d with systemd, `rd.driver.pre=` without.
    Dracut,
    /// Arch: udev; `MODULES=` in `/config`, or modules-load.d with systemd.
    Mkinitcpio,
    /// Alpine: nlplug-findfs; `/etc/modules`.
    Mkinitfs,
    /// SUSE up to 11: a list in `/run_all.sh`, then udev.
    SuseMkinitrd,
    /// Red Hat up to 5: `insmod` lines in `/init`, a script for nash. No udev.
    Nash,
    /// None of these.
    Unknown,
}

impl Generator {
    /// By the files that only one tool leaves inside.
    pub fn of(content: &mut Content<'_>) -> Result<Generator> {
        for (path, generator) in [
            ("conf/initramfs.conf", Generator::InitramfsTools),
            ("conf/arch.conf", Generator::InitramfsTools),
            ("usr/lib/dracut", Generator::Dracut),
            ("lib/dracut", Generator::Dracut),
            // Before 008, in RHEL 6.
            ("lib/dracut-lib.sh", Generator::Dracut),
            ("usr/lib/initcpio", Generator::Mkinitcpio),
            ("init_functions", Generator::Mkinitcpio),
            ("buildconfig", Generator::Mkinitcpio),
            ("sbin/nlplug-findfs", Generator::Mkinitfs),
            ("usr/sbin/nlplug-findfs", Generator::Mkinitfs),
            ("usr/bin/nlplug-findfs", Generator::Mkinitfs),
            ("run_all.sh", Generator::SuseMkinitrd),
        ] {
            if content.get(path.as_bytes())?.is_some() {
                return Ok(generator);
            }
        }
        let init = content.get(b"init")?.filter(|file| file.is(cpio::REGULAR));
        let first_line = init.and_then(|file| file.data.split(|b| *b == b'\n').next());
        Ok(match first_line {
            Some(line) if line.starts_with(b"#!") && line.trim_ascii_end().ends_with(b"/nash") => {
                Generator::Nash
            }
            _ => Generator::Unknown,
        })
    }
}

/// True for the initramfs of a kernel that writes a crash dump: it runs in little memory beside a dead system, and
/// finds its disk by itself.
pub fn is_kdump(content: &mut Content<'_>) -> Result<bool> {
    for path in ["etc/kdump.conf", "usr/bin/kdump.sh", "usr/lib/kdump/save_dump.sh", "lib/kdump/save_dump.sh"]
    {
        if content.get(path.as_bytes())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A script or list inside: text and permission bits.
fn script(content: &mut Content<'_>, path: &str) -> Result<Option<(String, u32)>> {
    let file = content.get(path.as_bytes())?.filter(|file| file.is(cpio::REGULAR));
    Ok(file.and_then(|file| Some((String::from_utf8(file.data.to_vec()).ok()?, file.mode & 0o7777))))
}

/// How a nash script loads modules; `None` for every other kind of initramfs.
pub fn nash_style(content: &mut Content<'_>, generator: Generator) -> Result<Option<NashStyle>> {
    if generator != Generator::Nash {
        return Ok(None);
    }
    Ok(script(content, "init")?.map(|(text, _)| explicit::nash_style(&text)))
}

/// Sees to it that `wanted` are loaded without any device asking. `all` is what nash has to be told: every module of
/// the edit with its place below `/`, needs first.
pub fn load_by_name(
    generator: Generator,
    content: &mut Content<'_>,
    wanted: &[String],
    all: &[(String, String)],
    new: &mut Rewritten,
) -> Result<()> {
    match generator {
        Generator::InitramfsTools => lines(content, "conf/modules", wanted, new),
        Generator::Mkinitfs => lines(content, "etc/modules", wanted, new),
        Generator::Dracut => match has_systemd(content)? {
            true => lines(content, "etc/modules-load.d/landfall.conf", wanted, new),
            false => command_line(content, wanted, new),
        },
        Generator::Mkinitcpio => match script(content, "config")? {
            Some((old, mode)) if !has_systemd(content)? => {
                let text = explicit::assignment(&old, "MODULES", wanted)
                    .unwrap_or_else(|| format!("MODULES=\"{}\"\n{old}", wanted.join(" ")));
                match wanted.is_empty() {
                    true => Ok(()),
                    false => put_if_new(content, "config", mode, text.into_bytes(), new),
                }
            }
            _ => lines(content, "etc/modules-load.d/landfall.conf", wanted, new),
        },
        Generator::SuseMkinitrd => suse(content, wanted, new),
        Generator::Nash => nash(content, all, new),
        Generator::Unknown => {
            if !new.added.is_empty() {
                let says = "the tool that made the initramfs is not known: it may not load the added drivers";
                new.warnings.push(says.into());
            }
            Ok(())
        }
    }
}

fn has_systemd(content: &mut Content<'_>) -> Result<bool> {
    Ok(content.get(b"usr/lib/systemd/systemd")?.is_some() || content.get(b"lib/systemd/systemd")?.is_some())
}

/// A file with one module per line.
fn lines(content: &mut Content<'_>, path: &str, wanted: &[String], new: &mut Rewritten) -> Result<()> {
    let old = content.get(path.as_bytes())?.filter(|f| f.is(cpio::REGULAR)).map(|f| f.data.to_vec());
    let mut lines = old.unwrap_or_default();
    let shown = String::from_utf8_lossy(&lines).into_owned();
    let named: BTreeSet<String> =
        shown.lines().filter_map(|line| line.split_ascii_whitespace().next()).map(kmod::normal).collect();
    if wanted.iter().all(|name| named.contains(name)) {
        return Ok(());
    }
    for name in wanted.iter().filter(|name| !named.contains(*name)) {
        if lines.last().is_some_and(|last| *last != b'\n') {
            lines.push(b'\n');
        }
        lines.extend_from_slice(name.as_bytes());
        lines.push(b'\n');
    }
    put_if_new(content, path, 0o644, lines, new)
}

/// dracut's own way of forcing a driver.
fn command_line(content: &mut Content<'_>, wanted: &[String], new: &mut Rewritten) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let text = format!("rd.driver.pre={}\n", wanted.join(","));
    put_if_new(content, "etc/cmdline.d/20-landfall.conf", 0o644, text.into_bytes(), new)
}

fn suse(content: &mut Content<'_>, wanted: &[String], new: &mut Rewritten) -> Result<()> {
    let mut found = false;
    for path in ["run_all.sh", "config/start.sh"] {
        let Some((old, mode)) = script(content, path)? else { continue };
        if let Some(text) = explicit::assignment(&old, "RESOLVED_INITRD_MODULES", wanted) {
            found = true;
            put_if_new(content, path, mode, text.into_bytes(), new)?;
        }
    }
    if !found {
        let says =
            "no list of modules was found in /run_all.sh of the initramfs: drivers are loaded by udev alone";
        new.warnings.push(says.into());
    }
    Ok(())
}

fn nash(content: &mut Content<'_>, all: &[(String, String)], new: &mut Rewritten) -> Result<()> {
    let text = script(content, "init")?;
    let edited = text.as_ref().and_then(|(text, mode)| {
        let style = explicit::nash_style(text);
        let lines: Vec<Line> = all
            .iter()
            .map(|(name, path)| Line {
                name: name.clone(),
                argument: match style {
                    NashStyle::Insmod => format!("/{path}"),
                    NashStyle::Modprobe => name.clone(),
                },
            })
            .collect();
        Some((explicit::nash(text, style, &lines)?, *mode))
    });
    let Some((text, mode)) = edited else {
        return Err(crate::Error::unsupported(
            "the script /init of the initramfs (nash) has no place that is known to be right for loading drivers",
        )
        .hint("in the guest: add the drivers with mkinitrd --with=DRIVER, and convert again"));
    };
    put_if_new(content, "init", mode, text.into_bytes(), new)
}
