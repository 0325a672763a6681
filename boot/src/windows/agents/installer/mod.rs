//! Installers of agents that a user gives: what each of them is, which of them a guest gets, and the step of its first start
//! that runs it.
//!
//! ```text
//! file of the host -> AgentInstaller (once, however many machines) -> \Windows\landfall\agents -> a step of the first start
//! ```
//! An installer is taken by what it says of itself: the product name of a package of Windows Installer or of a program's version
//! resource; only where it says nothing, by the name of its file. Deliberately absent: installers inside of images and archives,
//! and any check of who signed one. SHA-256 is in the report, to be compared with the vendor's.

mod package;
mod products;
mod program;

pub use products::Product;

use super::table::{Agent, TABLE};
use crate::apply::OVERHEAD;
use crate::host_file::HostFile;
use crate::windows::draft::Draft;
use crate::windows::first_boot::{AGENTS, Command, Steps, When};
use crate::{Error, Result};
use landfall_image::Bytes;
use package::Package;
use products::Row;
use program::Program;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Size of an installer; the largest known has 200 MiB.
const SIZE_AT_MOST: Bytes = Bytes::mib(2048);

/// What an installer may take, at most; those of VMware and Nutanix take five minutes on a slow machine.
const SECONDS: u32 = 1800;

/// Where Windows lists what is installed, in SOFTWARE.
const INSTALLED: &[&str] = &[
    "Microsoft\\Windows\\CurrentVersion\\Uninstall",
    "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall",
];

/// How an installer is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// By Windows Installer (.msi).
    Package,
    /// By itself (.exe).
    Program,
}

/// An installer that a user gives, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInstaller {
    /// The file.
    pub file: HostFile,
    /// Its last name, which it keeps in the guest: Windows Installer looks for a package by it later on.
    pub name: String,
    /// How it is run; `None` where it is neither a program nor a package.
    pub form: Option<Form>,
    /// Which one it is; `None` where that is not known.
    pub product: Option<Product>,
    /// What it calls itself.
    pub called: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The architectures that it is for; empty where none is known.
    pub architectures: Vec<String>,
}

impl AgentInstaller {
    /// Looks at the file, and reads all of it once.
    ///
    /// # Errors
    /// I/O; refused where it is no regular file, empty, too large, or has a name that cannot stand in a command.
    pub fn open(path: &Path) -> Result<AgentInstaller> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_.()+".contains(&byte);
        if name.is_empty() || name.len() > 100 || name.starts_with([' ', '.']) || !name.bytes().all(is_plain)
        {
            return Err(Error::refused("has a name that cannot stand in a command of Windows")
                .in_file(path)
                .hint("give it a name of letters, digits and -_.()+, of at most 100 characters"));
        }
        let (file, open) = HostFile::open(path, SIZE_AT_MOST)?;
        let lower = name.to_ascii_lowercase();
        let (mut form, mut own, mut called, mut version) = (None, None, None, None);
        if lower.ends_with(".msi") {
            if let Some(package) = Package::read(&open) {
                (form, own) = (Some(Form::Package), package.architecture);
                (called, version) = (package.name, package.version);
            }
        } else if lower.ends_with(".exe")
            && let Some(program) = Program::read(&open)
        {
            let text = |names: &[&str]| names.iter().find_map(|name| program.text(name)).map(str::to_owned);
            (form, own) = (Some(Form::Program), program.architecture);
            // The setup program of one product may be another one's, and say in its description what it installs.
            let described =
                text(&["FileDescription"]).filter(|text| Product::recognise(Some(text), "").is_some());
            called = described.or_else(|| text(&["ProductName", "FileDescription"]));
            version = text(&["ProductVersion", "FileVersion"]);
        }
        let product = form.and_then(|_| Product::recognise(called.as_deref(), &name));
        let architectures = architectures(own, &lower, product);
        Ok(AgentInstaller { file, name, form, product, called, version, architectures })
    }

    /// For people: `setup64.exe (VMware Tools 12.3.5)`.
    fn shown(&self) -> String {
        let called: String = match (&self.called, &self.version) {
            (Some(called), Some(version)) => format!(" ({called} {version})"),
            (Some(called), None) => format!(" ({called})"),
            _ => String::new(),
        };
        let plain = called.chars().map(|c| if c.is_control() { '.' } else { c }).take(200);
        format!("{}{}", self.name, plain.collect::<String>())
    }
}

/// What an installer is for. Its own processor tells where it is 64-bit; a 32-bit one often installs 64-bit parts, and then says so
/// in its name, or is for both.
fn architectures(own: Option<&str>, file: &str, product: Option<Product>) -> Vec<String> {
    let has = |parts: &[&str]| parts.iter().any(|part| file.contains(part));
    let only: &[&str] = match own {
        None => &[],
        Some("x86_64") => &["x86_64"],
        Some("aarch64") => &["aarch64"],
        Some(_) if has(&["x86_64", "x64", "amd64", "setup64"]) => &["x86_64"],
        Some(_) if has(&["arm64", "aarch64", "-arm"]) => &["aarch64"],
        Some(_) if has(&["i386", "i686", "x86"]) => &["i686"],
        // On 64-bit Windows it ends and names setup64.exe.
        Some(_) if product == Some(Product::VmwareTools) && file == "setup.exe" => &["i686"],
        Some(_) => &["i686", "x86_64"],
    };
    only.iter().map(|one| (*one).to_owned()).collect()
}

/// Plans those of the given installers that the guest is to get: the file in the guest, and the step that runs it. Of several for
/// other targets or architectures nothing is said where one is for this guest. Returns the agents that will be there.
pub(super) fn plan(draft: &mut Draft<'_>, steps: &mut Steps) -> Result<Vec<&'static str>> {
    let request = draft.request;
    let (mut taken, mut unfit) = (Vec::new(), Vec::new());
    for installer in &request.agent_installers {
        let known = installer.product.and_then(Product::row).and_then(|row| {
            let agent = TABLE.iter().find(|agent| agent.name == row.agent)?;
            let line = row.command_line(
                installer.form?,
                &format!("%SystemRoot%\\landfall\\{AGENTS}"),
                &installer.name,
            )?;
            Some((row, agent, line))
        });
        let Some((row, agent, line)) = known else {
            unknown(draft, installer);
            continue;
        };
        if let Some(why) = why_not(draft, installer, agent, row) {
            unfit.push((installer, why));
        } else if taken.contains(&agent.name) {
            draft.find(
                "windows-installer-unfit",
                format!(
                    "{} is left out: an installer of the same agent was named before it.",
                    installer.shown()
                ),
                "Name one installer for each agent.",
            );
        } else if stage(draft, steps, installer, agent, row, line)? {
            taken.push(agent.name);
        }
    }
    if taken.is_empty() {
        for (installer, why) in unfit {
            draft.find(
                "windows-installer-unfit",
                format!("{} is not put into the guest: {why}.", installer.shown()),
                "Name the installer of the target's agent for this Windows with --agent-installer.",
            );
        }
    }
    Ok(taken)
}

fn unknown(draft: &mut Draft<'_>, installer: &AgentInstaller) {
    let what = match (installer.form, installer.product.and_then(Product::row)) {
        (None, _) => {
            "is neither a program of Windows (.exe) nor a package of Windows Installer (.msi)".to_owned()
        }
        (_, Some(row)) => {
            format!("is a program of {} that cannot be run without somebody at the screen", row.title)
        }
        (_, None) => "is no agent's installer that is known".to_owned(),
    };
    draft.find(
        "windows-installer-unknown",
        format!("{} {what}: it is not put into the guest.", installer.shown()),
        "Name the agent's own .msi, or setup64.exe of VMware Tools, virtio-win-guest-tools.exe, or setup.exe of Nutanix; take it out of its image before.",
    );
}

/// Why this guest does not get it.
fn why_not(draft: &Draft<'_>, installer: &AgentInstaller, agent: &Agent, row: &Row) -> Option<String> {
    let (platform, architecture) = (draft.request.platform, &draft.system.architecture);
    if !agent.platforms.contains(&platform) {
        return Some(format!("{} is not for {}", row.title, platform.name()));
    }
    if draft.request.services.drop.iter().any(|name| name == agent.name) {
        return Some(format!("--drop {} leaves that agent off", agent.name));
    }
    match &installer.architectures[..] {
        [] => Some("it is for another processor than x86 or ARM64".to_owned()),
        some if some.contains(architecture) => None,
        some => Some(format!("it is for {}, and this Windows is for {architecture}", some.join(" and "))),
    }
}

/// Puts it into the guest. False where there is no room.
fn stage(
    draft: &mut Draft<'_>,
    steps: &mut Steps,
    installer: &AgentInstaller,
    agent: &'static Agent,
    row: &Row,
    line: String,
) -> Result<bool> {
    let installed = version(draft, row)?;
    let is_there = installed.is_some() || !super::installed(draft, agent)?.is_empty();
    if is_there && !is_newer(installer.version.as_deref(), installed.as_deref()) {
        let has = match installed.as_deref() {
            None | Some("") => "a version that is not known".to_owned(),
            Some(version) => version.to_owned(),
        };
        draft.find(
            "windows-installer-there",
            format!(
                "{} is not put into the guest, which has {} already: {has}.",
                installer.shown(),
                row.title
            ),
            "Install it on the target if that version is to be replaced.",
        );
        return Ok(true);
    }
    let path = draft.system.path(&format!("landfall/{AGENTS}/{}", installer.name));
    let needed = Bytes(installer.file.size.0.saturating_add(OVERHEAD.0));
    let is_new = !draft.has(&path, &installer.file)?;
    let free = draft.scene.tree.free_space(&draft.system.folder)?;
    if let Some(free) = free.filter(|free| is_new && *free < needed) {
        draft.find(
            "windows-installer-no-room",
            format!(
                "{} is not put into the guest: it takes {needed}, and {free} are free.",
                installer.shown()
            ),
            "Free some room in the guest, or install the agent on the target.",
        );
        return Ok(false);
    }
    if is_new {
        draft.stage(
            &path,
            &installer.file,
            "Windows installs the target's agent from it at its first start.",
        );
    }
    steps.commands.push(Command {
        name: format!("agent {}", agent.name),
        line,
        seconds: SECONDS,
        when: When::Last,
        installer: Some(installer.name.clone()),
    });
    draft.find(
        "windows-installer-staged",
        format!(
            "Windows installs {} at its first start: {path} ({}, SHA-256 {}).",
            installer.shown(),
            installer.file.size,
            installer.file.sha256
        ),
        "Look into done.json and the logs beside it afterwards.",
    );
    Ok(true)
}

/// What Windows says of an installed version; empty where it says none.
fn version(draft: &Draft<'_>, row: &Row) -> Result<Option<String>> {
    for list in INSTALLED {
        for entry in draft.software.subkeys(list)? {
            let key = format!("{list}\\{entry}");
            let Some(name) = draft.software.text(&key, "DisplayName")? else { continue };
            if row.names.iter().any(|part| name.to_ascii_lowercase().contains(part)) {
                return Ok(Some(draft.software.text(&key, "DisplayVersion")?.unwrap_or_default()));
            }
        }
    }
    Ok(None)
}

/// True where both versions are known, and the given one is higher as far as both of them go.
fn is_newer(given: Option<&str>, installed: Option<&str>) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).take(4).collect()
    };
    let (given, installed) = (numbers(given.unwrap_or_default()), numbers(installed.unwrap_or_default()));
    let differs = given.iter().zip(&installed).find(|(given, installed)| given != installed);
    differs.is_some_and(|(given, installed)| given > installed)
}

#[cfg(test)]
pub(super) mod tests;
