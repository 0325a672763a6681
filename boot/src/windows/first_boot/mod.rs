//! What has to be done in the started Windows: a script of ours that it runs once, at its first start on the new hardware.
//!
//! The means is a service whose program is cmd.exe, which starts the script and ends at once. The service control manager
//! notes in the event log that the service did not start (7000, with 1053), and what it started goes on: it ends the process
//! that it made, never that one's children. Public tools that run commands on remote machines have relied on that in every
//! version for many years, which is also why software that watches for intruders may report it. What was weighed against it:
//!
//! - `SYSTEM\Setup\CmdLine` runs before services and drivers are there, and a script that hangs keeps Windows from starting.
//! - RunOnce waits for somebody to log on. A start script of the group policy belongs to the policy, which replaces it.
//! - A scheduled task needs the task's hash in SOFTWARE besides its file, which Microsoft does not describe.
//! - A program of ours that is a service would have to be signed, for two architectures, and pass every allow list.
//!
//! The script is for cmd.exe alone, so that no policy for PowerShell stops it (AllSigned, Constrained Language), and reads
//! nothing that Windows translates: `route print` gives the index of an adapter by its hardware address, netsh takes the index.
//! A connection's name gets into a command only to restore it, and only if it holds nothing that means something there. PowerShell
//! is asked with a command line, which AllSigned lets pass, where that finds nothing, and for what nothing else can do; where it
//! fails, the rest goes on.
//!
//! The service depends on no other one, as it would not start where one of them is missing or off: the script waits instead,
//! within bounds. It starts at most five times, restarts Windows at most once, and removes itself in any case.

mod commands;
mod script;

use super::data::Data;
use super::draft::Draft;
use super::network::settings::{Route as Way, Settings};
use crate::tree::{GuestTreeExt, NodeKind};
use crate::{Error, Result};

/// Folder of the script, below that of Windows.
const FOLDER: &str = "landfall";
/// The script.
const SCRIPT: &str = "landfall/firstboot.cmd";
/// Folder of installers, below [`FOLDER`].
pub const AGENTS: &str = "agents";
/// Key of the service, below the control set.
const SERVICE: &str = "Services\\landfall";
/// Key in SOFTWARE where the script leaves what came of it.
const MARK: &str = "landfall";
/// A command that takes longer than this is left alone.
const SECONDS_AT_MOST: u32 = 3600;

/// Everything that waits for the first start. Parts add to it; [`plan`] writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Adapters to set up.
    pub adapters: Vec<Adapter>,
    /// Hardware addresses of all cards at the target, as far as they are known.
    pub cards: Vec<Option<String>>,
    /// Routes of the machine.
    pub routes: Vec<Route>,
    /// Adapters that may be gone, and are to be taken away then.
    pub ghosts: Vec<Ghost>,
    /// Commands, in their order.
    pub commands: Vec<Command>,
}

/// An adapter to set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// Hardware address of its card at the target: `00:50:56:aa:bb:cc`.
    pub mac: String,
    /// Name of its connection, if it can stand in a command.
    pub name: Option<String>,
    /// How it is set up.
    pub settings: Settings,
}

/// A route of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// As it was.
    pub old: Way,
    /// As it will be; `None` where it goes.
    pub new: Option<Way>,
}

/// An adapter of the old hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// Its id, in lower case.
    pub guid: String,
    /// Instance of its device, if it can stand in a command.
    pub device: Option<String>,
}

/// A command of another part: an agent's installer, a driver package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What it does, for the log: letters, digits, blanks.
    pub name: String,
    /// A program with its arguments, one line of ASCII without `&|<>^`. `%` is a variable's, as everywhere in it: `%SystemRoot%\System32\msiexec.exe /i … /qn`.
    pub line: String,
    /// After so many seconds the script goes on without it, at most 3600.
    pub seconds: u32,
    /// Drivers of network cards come first.
    pub when: When,
    /// Name of the file in [`AGENTS`] that it runs, and that goes when it has succeeded.
    pub installer: Option<String>,
}

/// When a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the adapters are set up.
    First,
    /// Afterwards.
    Last,
}

impl Steps {
    /// True where nothing waits.
    pub fn is_empty(&self) -> bool {
        self.adapters.is_empty() && self.routes.is_empty() && self.commands.is_empty()
    }
}

impl Steps {
    /// In a sentence.
    fn shown(&self) -> String {
        let mut parts: Vec<String> =
            self.adapters.iter().map(|one| format!("the adapter {}", one.mac)).collect();
        match self.routes.len() {
            0 => {}
            1 => parts.push("a route".into()),
            count => parts.push(format!("{count} routes")),
        }
        parts.extend(self.commands.iter().map(|command| command.name.clone()));
        parts.join(", ")
    }
}

/// The program of the service. The second cmd.exe has no window and outlives the first.
const PROGRAM: &str = r#"%SystemRoot%\System32\cmd.exe /d /c start "landfall" /b %SystemRoot%\System32\cmd.exe /d /c %SystemRoot%\landfall\firstboot.cmd"#;

/// Plans script and service, and takes away those of an earlier plan where nothing is to be done any more.
///
/// # Errors
/// `refused` for a command that does not fit into a script.
pub fn plan(draft: &mut Draft<'_>, steps: &Steps) -> Result<()> {
    let key = draft.system.key(SERVICE);
    let script = draft.system.path(SCRIPT);
    let folder = draft.system.path(FOLDER);
    let mut kept = Vec::new();
    if steps.is_empty() {
        draft.registry.delete(&key, "Nothing is left to be done at the first start.")?;
    } else {
        for command in &steps.commands {
            check(command)?;
        }
        let why = "Windows runs it once, at its first start on the new hardware; it removes itself.";
        draft.write(&script, script::main(steps, draft.system.version), why)?;
        kept.push("firstboot.cmd".to_owned());
        for (at, command) in steps.commands.iter().enumerate() {
            let name = format!("step{}.cmd", at + 1);
            let why = format!("A step of the first start: {}.", command.name);
            draft.write(&format!("{folder}/{name}"), script::command(at + 1, command), &why)?;
            kept.push(name);
        }
        let why = "A service starts the script; the event log will say that it did not start (7000), and that is how it is meant.";
        for (name, data) in [
            ("Type", Data::dword(0x10)),
            ("Start", Data::dword(2)),
            ("ErrorControl", Data::dword(0)),
            ("ImagePath", Data::expand(PROGRAM)),
            ("DisplayName", Data::text("landfall: first start on new hardware")),
            ("ObjectName", Data::text("LocalSystem")),
        ] {
            draft.registry.set(&key, name, data, why)?;
        }
        draft.software.delete_value(MARK, "FirstStart", "What an earlier first start left.")?;
        draft.find(
            "windows-first-start",
            format!("At its first start Windows runs {script} once: {}.", steps.shown()),
            format!("Look into {folder}/done.json afterwards."),
        );
    }
    // What an earlier one left would be taken for this one's. Its log stays.
    let is_ours = |name: &str| {
        let name = name.to_ascii_lowercase();
        let is_step = name.starts_with("step") && !name.ends_with(".log");
        is_step || script::LEFT_BEHIND.contains(&name.as_str()) || name == "firstboot.cmd"
    };
    for name in draft.scene.tree.names(&folder)? {
        if is_ours(&name) && !kept.iter().any(|kept| kept.eq_ignore_ascii_case(&name)) {
            draft.remove(&format!("{folder}/{name}"), "It is of an earlier first start.")?;
        }
    }
    // Those of an earlier plan; one that failed was left for a person. Logs stay.
    let installers = format!("{folder}/{AGENTS}");
    let is_wanted = |name: &str| {
        let mut wanted = steps.commands.iter().filter_map(|command| command.installer.as_deref());
        name.to_ascii_lowercase().ends_with(".log") || wanted.any(|other| other.eq_ignore_ascii_case(name))
    };
    for entry in draft.scene.tree.list(&installers)?.unwrap_or_default() {
        if entry.kind == NodeKind::File && !is_wanted(&entry.name) {
            draft.remove(&format!("{installers}/{}", entry.name), "It is of an earlier first start.")?;
        }
    }
    Ok(())
}

fn check(command: &Command) -> Result<()> {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"&|<>^".contains(&byte);
    let is_line = |text: &str| !text.is_empty() && text.bytes().all(is_plain);
    let is_name = command.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -_.".contains(&byte));
    // cmd.exe takes 8191 characters in a line.
    if !is_line(&command.line) || !is_name || !is_line(&command.name) || command.line.len() > 8000 {
        return Err(Error::refused(format!(
            "the first start cannot run {:?}: a command is a program with its arguments, one line of ASCII without any of &|<>^, of at most 8000 characters",
            command.line
        )));
    }
    match (1..=SECONDS_AT_MOST).contains(&command.seconds) {
        true => Ok(()),
        false => Err(Error::refused(format!(
            "{}: a step of the first start takes 1 to {SECONDS_AT_MOST} seconds, not {}",
            command.name, command.seconds
        ))),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wine_tests;
