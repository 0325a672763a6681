//! The family of Windows guests: its facts, and the order of the parts that plan.

use super::draft::{Draft, System, Version};
use super::drivers::{self, Driver, Installed};
use super::first_boot::{self, Command, Steps, When};
use super::registry::Registry;
use super::{agents, boot, facts, hardware, hives, network, reg_file, services};
use crate::check::Finding;
use crate::family::{Family, Scene};
use crate::guest::{Fact, Guest};
use crate::patch::PatchPlan;
use crate::target::{Firmware, Platform, Request};
use crate::{Error, Kind, Result};

/// Windows, of every version.
pub struct Windows;

/// Both hives of a guest, open, and what follows from them.
struct Open {
    registry: Registry,
    software: Registry,
    system: System,
    /// What was replayed into each.
    notes: [hives::Replayed; 2],
}

impl Family for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        let Some(folder) = facts::folders(scene.tree)?.into_iter().next() else { return Ok(None) };
        let of_system = format!("{folder}/System32/config/SYSTEM");
        let open = match open(scene, &folder) {
            Ok(open) => open,
            Err(error) if error.kind() == Kind::Io => return Err(error),
            // What it is, is known; that it cannot be read is for the plan to say.
            Err(_) => return Ok(Some(unread(scene, &of_system))),
        };
        let Open { registry, software, system, .. } = open;
        let request = Request::default();
        let draft = Draft::new(scene, &request, system, registry, software);
        let Draft { system, registry, software, .. } = &draft;
        let Version { major, minor, build } = system.version;
        let letters = boot::letters::letters(registry, scene.volumes)?;
        Ok(Some(Guest {
            family: "windows".into(),
            distribution: Fact::new(
                if system.is_server { "windows-server" } else { "windows" },
                of_system.clone(),
            ),
            version: Fact::new(format!("{major}.{minor}.{build}"), system.path("System32/config/SOFTWARE")),
            name: facts::name(software, system)?,
            architecture: Fact::new(system.architecture.clone(), of_system),
            host_name: facts::host_name(registry, system)?,
            boot_modes: boot_modes(scene)?,
            interfaces: network::facts(&network::interfaces(registry, system)?),
            agents: agents::agents(&draft)?,
            windows: Some(facts::windows(scene.tree, registry, software, system, letters)?),
            ..unread(scene, "")
        }))
    }

    fn plan(&self, scene: &Scene<'_>, _guest: &Guest, request: &Request) -> Result<PatchPlan> {
        let Some(folder) = facts::folders(scene.tree)?.into_iter().next() else {
            return Ok(PatchPlan::default());
        };
        let Open { registry, software, system, notes } = match open(scene, &folder) {
            Ok(open) => open,
            Err(error) if error.kind() == Kind::Io => return Err(error),
            Err(error) => {
                let remedy = error.hint_text().unwrap_or(UNREADABLE).to_owned();
                let finding = Finding::new("windows-registry-unreadable", error.to_string(), remedy);
                return Ok(PatchPlan { findings: vec![finding], ..PatchPlan::default() });
            }
        };
        let mut draft = Draft::new(scene, request, system, registry, software);
        for note in notes {
            draft.replayed(note);
        }
        if !is_supported(&mut draft) {
            return Ok(draft.finish());
        }
        let installed = virtio(&mut draft)?;
        let ready: Vec<&str> = installed.usable.iter().map(|driver| driver.service()).collect();
        hardware::plan(&mut draft, &ready)?;
        boot::plan(&mut draft)?;
        let mut steps = Steps::default();
        steps.commands.extend(installed.packages.iter().filter_map(|package| add_package(&draft, package)));
        agents::plan(&mut draft, &mut steps)?;
        network::plan(&mut draft, &mut steps)?;
        if !steps.is_empty() {
            let lines = boot::settings::commands_after_first_start(&draft)?;
            steps.commands.extend(lines.into_iter().map(|line| Command {
                name: "give back what was set for the first start".into(),
                line,
                seconds: 60,
                when: When::Last,
                installer: None,
            }));
        }
        first_boot::plan(&mut draft, &steps)?;
        // Last: what a user says wins.
        reg_file::plan(&mut draft)?;
        Ok(draft.finish())
    }
}

/// What a boot trial changes in its throw-away copy, and nothing else: a stop error stays on the screen. No edit where there
/// is no Windows, or its registry cannot be read: the trial shows then what comes of that.
///
/// # Errors
/// Where files cannot be read.
pub fn plan_trial(scene: &Scene<'_>) -> Result<PatchPlan> {
    let Some(folder) = facts::folders(scene.tree)?.into_iter().next() else {
        return Ok(PatchPlan::default());
    };
    let Open { registry, software, system, .. } = match open(scene, &folder) {
        Ok(open) => open,
        Err(error) if error.kind() == Kind::Io => return Err(error),
        Err(_) => return Ok(PatchPlan::default()),
    };
    let request = Request::default();
    let mut draft = Draft::new(scene, &request, system, registry, software);
    boot::settings::plan_trial(&mut draft)?;
    Ok(draft.finish())
}

/// Puts in the drivers of virtio devices that the target has, where they are given. Without them nothing is said where the guest
/// has those of its disks and cards already.
fn virtio(draft: &mut Draft<'_>) -> Result<Installed> {
    let wanted: &[Driver] = match draft.request.platform {
        Platform::Kvm => Driver::ALL,
        Platform::Ahv => &[Driver::Vioscsi, Driver::Netkvm, Driver::Balloon, Driver::Vioserial],
        Platform::Esxi | Platform::Hyperv | Platform::Azure | Platform::Xen => {
            return Ok(Installed::default());
        }
    };
    if let Some(path) = &draft.request.virtio_win {
        let source = drivers::source::open(path)?;
        return drivers::plan(draft, Some(&*source), wanted);
    }
    let mut has_disks = false;
    for driver in wanted.iter().filter(|driver| driver.is_storage()) {
        has_disks |=
            services::is_installed(&draft.registry, &draft.system, draft.scene.tree, driver.service())?;
    }
    let card = Driver::Netkvm.service();
    let has_card = services::is_installed(&draft.registry, &draft.system, draft.scene.tree, card)?;
    match has_disks && has_card {
        true => Ok(Installed::default()),
        false => drivers::plan(draft, None, wanted),
    }
}

/// `pnputil /add-driver` is of Windows 10 version 1607.
const ADDS_DRIVERS: Version = Version { build: 14393, ..Version::TEN };

/// A package that is registered already, once more by Windows' own tool: it takes what stands there, and says in the log what it
/// does not like.
fn add_package(draft: &Draft<'_>, package: &str) -> Option<Command> {
    let below = package.strip_prefix(&format!("{}/", draft.system.folder))?.replace('/', "\\");
    let name = below.rsplit('\\').next()?.trim_end_matches(".inf").to_owned();
    let (add, install) = match draft.system.version >= ADDS_DRIVERS {
        true => ("/add-driver", "/install"),
        false => ("-i -a", ""),
    };
    let line = format!("%SystemRoot%\\System32\\pnputil.exe {add} \"%SystemRoot%\\{below}\" {install}");
    Some(Command {
        name: format!("driver {name}"),
        line: line.trim_end().to_owned(),
        seconds: 300,
        when: When::First,
        installer: None,
    })
}

const UNREADABLE: &str =
    "Start the guest once where it ran, shut it down completely (shutdown /s /t 0), and convert again.";

fn open(scene: &Scene<'_>, folder: &str) -> Result<Open> {
    let hive = |name: &str| -> Result<(Registry, hives::Replayed)> {
        let path = format!("{folder}/System32/config/{name}");
        hives::registry(scene.tree, &path)?.ok_or_else(|| Error::corrupt(format!("{path} is absent")))
    };
    let ((registry, of_system), (software, of_software)) = (hive("SYSTEM")?, hive("SOFTWARE")?);
    let system = facts::system(scene.tree, folder, &registry, &software)?;
    let none = || {
        Error::corrupt(format!(
            "{folder}/System32/config/SYSTEM names no control set that it has: its key Select is absent or damaged"
        ))
    };
    Ok(Open { registry, software, system: system.ok_or_else(none)?, notes: [of_system, of_software] })
}

/// A Windows of which nothing else is known.
fn unread(scene: &Scene<'_>, proof: &str) -> Guest {
    Guest {
        family: "windows".into(),
        distribution: Fact::new("windows", proof),
        version: Fact::new("", proof),
        name: Fact::new("Windows", proof),
        architecture: Fact::new("", proof),
        host_name: None,
        kernels: Vec::new(),
        mounts: scene.mounts.to_vec(),
        init: None,
        boot_modes: Vec::new(),
        interfaces: Vec::new(),
        agents: Vec::new(),
        windows: None,
    }
}

/// How it can start: by the boot manager and its store.
fn boot_modes(scene: &Scene<'_>) -> Result<Vec<Fact<String>>> {
    let mut modes = Vec::new();
    for (firmware, name) in [(Firmware::Bios, "bios"), (Firmware::Uefi, "uefi")] {
        modes.extend(boot::loader::manager(scene.tree, firmware)?.map(|path| Fact::new(name, path)));
    }
    Ok(modes)
}

/// Says what is not taken, and what is taken without promise. False where nothing is to be planned.
fn is_supported(draft: &mut Draft<'_>) -> bool {
    let Version { major, minor, build } = draft.system.version;
    let (version, platform) = (draft.system.version, draft.request.platform);
    if major == 0 {
        draft.find(
            "windows-version-unknown",
            "The registry does not tell which version of Windows this is.",
            "Check that SOFTWARE is the guest's own and whole; start the guest once where it ran, and shut it down.",
        );
        return false;
    }
    if version < Version::VISTA {
        draft.find(
            "windows-too-old",
            format!("Windows {major}.{minor} (build {build}) is older than Windows 7 and is not patched."),
            "Install the target's drivers in the running guest, then use landfall disk convert; attach its disk by IDE.",
        );
        return false;
    }
    if version < Version::SEVEN {
        draft.find(
            "windows-old",
            format!("Windows {major}.{minor} (build {build}) is treated as Windows 7 is, without promise."),
            "Prove that it boots before you rely on it.",
        );
    }
    let generation_2 =
        draft.request.firmware == Firmware::Uefi && matches!(platform, Platform::Hyperv | Platform::Azure);
    if generation_2 && (version < Version::EIGHT || draft.system.architecture == "i686") {
        draft.find(
            "windows-no-second-generation",
            format!(
                "Windows {major}.{minor} of {} does not start on Hyper-V's generation 2.",
                draft.system.architecture
            ),
            "Keep the machine where it is: Hyper-V starts Windows with UEFI from version 8 and 2012 of x86_64 on only.",
        );
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;
    use crate::windows::draft::tests::{draft, ten};

    /// Windows 10 knows the new words from its version 1607 on.
    #[test]
    fn pnputil_is_spoken_to_as_it_understands() {
        let tree = MemTree::new();
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let request = Request::default();
        for (build, words) in [
            (10240, "pnputil.exe -i -a \"%SystemRoot%\\INF\\x.inf\""),
            (14393, "pnputil.exe /add-driver \"%SystemRoot%\\INF\\x.inf\" /install"),
        ] {
            let system = System { version: Version { build, ..Version::TEN }, ..ten() };
            let draft = draft(&scene, &request, system, &[], &[]);
            let command = add_package(&draft, "/Windows/INF/x.inf").unwrap();
            assert!(command.line.ends_with(words), "{}", command.line);
            assert_eq!(command.name, "driver x");
            assert!(add_package(&draft, "/elsewhere/x.inf").is_none());
        }
    }
}
