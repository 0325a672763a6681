//! Drivers and services as the service control manager's database has them (Microsoft, "CurrentControlSet\Services Registry
//! Tree"): where their files lie, and when they start.

use super::data::Data;
use super::draft::{Draft, System};
use super::registry::Registry;
use crate::Result;
use crate::tree::{GuestTree, GuestTreeExt};
use serde::Serialize;

/// When a driver or service starts (`Start`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// 0: the boot loader loads it.
    Boot,
    /// 1: the kernel loads it.
    System,
    /// 2: with the service control manager.
    Automatic,
    /// 3: when it is asked for, or its device appears.
    Demand,
    /// 4: never.
    Disabled,
}

impl Start {
    /// All of them, by their numbers.
    const ALL: [Start; 5] = [Start::Boot, Start::System, Start::Automatic, Start::Demand, Start::Disabled];

    /// Of a number; `None` for one that means nothing.
    pub fn of(number: u32) -> Option<Start> {
        Start::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Start::Boot => 0,
            Start::System => 1,
            Start::Automatic => 2,
            Start::Demand => 3,
            Start::Disabled => 4,
        }
    }
}

/// Key of a service.
pub fn key(system: &System, service: &str) -> String {
    system.key(&format!("Services\\{service}"))
}

/// When a service starts; `None` where there is no such service.
pub fn start(registry: &Registry, system: &System, service: &str) -> Result<Option<Start>> {
    Ok(registry.dword(&key(system, service), "Start")?.and_then(Start::of))
}

/// When it starts in truth: since Windows 8 the values of `StartOverride` go before `Start`.
pub fn effective_start(registry: &Registry, system: &System, service: &str) -> Result<Option<Start>> {
    let Some(start) = start(registry, system, service)? else { return Ok(None) };
    let mut latest = start;
    for value in registry.values(&override_key(system, service))? {
        latest = latest.max(value.data.as_dword().and_then(Start::of).unwrap_or(start));
    }
    Ok(Some(latest))
}

fn override_key(system: &System, service: &str) -> String {
    format!("{}\\StartOverride", key(system, service))
}

/// Guest path of a service's file: what `ImagePath` says, or where a driver without one is looked for. `None` where there is no such
/// service, or the path leads elsewhere than below the folder of Windows.
pub fn image(registry: &Registry, system: &System, service: &str) -> Result<Option<String>> {
    let key = key(system, service);
    if !registry.exists(&key)? {
        return Ok(None);
    }
    Ok(match registry.text(&key, "ImagePath")?.filter(|path| !path.trim().is_empty()) {
        Some(path) => below_windows(system, &path),
        None => Some(system.path(&format!("System32/drivers/{service}.sys"))),
    })
}

/// A path as drivers' entries write it, as a guest path: `System32\drivers\x.sys`, `\SystemRoot\…`, `%SystemRoot%\…`,
/// `\??\C:\Windows\…`. Arguments of a service's command line are cut off.
fn below_windows(system: &System, path: &str) -> Option<String> {
    let path = path.trim();
    let path = match path.strip_prefix('"') {
        Some(rest) => rest.split('"').next()?,
        None => path,
    };
    let path = path.replace('/', "\\");
    let folder = system.folder.trim_start_matches('/').to_ascii_lowercase();
    let lower = path.to_ascii_lowercase();
    let prefixes = ["\\systemroot\\".to_owned(), "%systemroot%\\".to_owned(), "%windir%\\".to_owned()];
    let rest = prefixes
        .iter()
        .find_map(|prefix| lower.starts_with(prefix.as_str()).then(|| path.get(prefix.len()..)));
    let rest = match rest {
        Some(rest) => rest?,
        None => {
            let at = lower
                .find(&format!(":\\{folder}\\"))
                .map(|at| at.saturating_add(folder.len()).saturating_add(3));
            match at {
                Some(at) => path.get(at..)?,
                // Relative to the folder of Windows, as the boot loader wants it.
                None if lower.starts_with("system32\\") || lower.starts_with("syswow64\\") => &path,
                None => return None,
            }
        }
    };
    if rest.split('\\').any(|part| part == "..") {
        return None;
    }
    let lower = rest.to_ascii_lowercase();
    let end = [".sys", ".exe"].iter().filter_map(|ending| Some(lower.find(ending)?.saturating_add(4))).min();
    let rest = rest.get(..end.unwrap_or(rest.len()))?;
    Some(system.path(&rest.replace('\\', "/")))
}

/// True where a driver is registered and its file is there.
pub fn is_installed(
    registry: &Registry,
    system: &System,
    tree: &dyn GuestTree,
    driver: &str,
) -> Result<bool> {
    if start(registry, system, driver)?.is_none() {
        return Ok(false);
    }
    match image(registry, system, driver)? {
        Some(path) => tree.exists(&path),
        None => Ok(false),
    }
}

/// The boot loader loads a driver that is there, whatever Windows has noted in `StartOverride` since it saw no device for it.
pub fn start_at_boot(draft: &mut Draft<'_>, service: &str, why: &str) -> Result<()> {
    let key = key(&draft.system, service);
    if !draft.registry.exists(&key)? {
        return Ok(());
    }
    let boot = Data::dword(Start::Boot.number());
    draft.registry.set(&key, "Start", boot.clone(), why)?;
    let overrides = override_key(&draft.system, service);
    for value in draft.registry.values(&overrides)? {
        if value.data.as_dword().is_some() {
            let why = "Windows noted here that the driver is not to start with the machine.";
            draft.registry.set(&overrides, &value.name, boot.clone(), why)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::draft::tests::{draft, ten};
    use super::*;
    use crate::family::Scene;
    use crate::target::Request;
    use crate::tree::mem::MemTree;

    #[test]
    fn files_are_found_however_their_path_is_written() {
        let system = ten();
        for (path, found) in [
            (r"System32\drivers\a.sys", Some("/Windows/System32/drivers/a.sys")),
            (r"\SystemRoot\System32\drivers\a.sys", Some("/Windows/System32/drivers/a.sys")),
            (r"%SystemRoot%\system32\svchost.exe -k netsvcs -p", Some("/Windows/system32/svchost.exe")),
            (r#""C:\Windows\System32\a b.exe" -x"#, Some("/Windows/System32/a b.exe")),
            (r"\??\C:\WINDOWS\system32\drivers\a.sys", Some("/Windows/system32/drivers/a.sys")),
            (r"\??\C:\Program Files\x\a.sys", None),
            (r"system32\..\..\a.sys", None),
            ("", None),
            ("\"", None),
        ] {
            assert_eq!(below_windows(&system, path).as_deref(), found, "{path}");
        }
    }

    #[test]
    fn a_driver_starts_when_nothing_overrides_it() {
        let tree = MemTree::new().file("/Windows/System32/drivers/storahci.sys", "");
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let request = Request::default();
        let values = [
            (r"ControlSet001\Services\storahci", "Start", Data::dword(0)),
            (r"ControlSet001\Services\storahci\StartOverride", "0", Data::dword(3)),
            (r"ControlSet001\Services\storahci\StartOverride", "1", Data::dword(4)),
            (r"ControlSet001\Services\gone", "Start", Data::dword(9)),
        ];
        let mut draft = draft(&scene, &request, ten(), &values, &[]);
        let system = ten();
        assert_eq!(effective_start(&draft.registry, &system, "storahci").unwrap(), Some(Start::Disabled));
        assert!(is_installed(&draft.registry, &system, &tree, "storahci").unwrap());
        assert!(!is_installed(&draft.registry, &system, &tree, "gone").unwrap());
        assert!(!is_installed(&draft.registry, &system, &tree, "absent").unwrap());
        start_at_boot(&mut draft, "storahci", "").unwrap();
        start_at_boot(&mut draft, "absent", "").unwrap();
        assert_eq!(effective_start(&draft.registry, &system, "storahci").unwrap(), Some(Start::Boot));
        assert_eq!(draft.finish().edits.len(), 1);
    }
}
