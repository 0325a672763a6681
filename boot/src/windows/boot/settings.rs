//! Settings for the first start on other hardware.
//!
//! - The SAN policy: every disk is new there, and one that is found on a bus that could be shared would stay offline.
//! - Fast Startup: a shut-down guest would wake up on other hardware.
//! - The clock: what the guest takes the virtual real-time clock for.
//! - A boot trial: a guest that restarts after a stop error tells nothing.

use crate::Result;
use crate::target::Clock;
use crate::windows::before::Place;
use crate::windows::data::{Data, REG_DWORD};
use crate::windows::draft::{Draft, Version};

const PARTITION_MANAGER: &str = "Services\\partmgr\\Parameters";
const SAN_POLICY: Place<'static> = Place::Control(PARTITION_MANAGER, "SanPolicy");
/// All disks come online, and can be written to.
const ONLINE_ALL: u32 = 1;

/// The same at every target.
pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    SAN_POLICY.change(
        draft,
        Some(Data::dword(ONLINE_ALL)),
        "Every disk is a new one at the target: all of them come online with their letters.",
    )?;
    fast_startup(draft)?;
    draft.clock = Some(clock(draft)?);
    Ok(())
}

/// Windows 8 brought it. It stays off: a guest that is moved once is moved again.
fn fast_startup(draft: &mut Draft<'_>) -> Result<()> {
    let (key, name) = (draft.system.key("Control\\Session Manager\\Power"), "HiberbootEnabled");
    let is_set = draft.registry.value(&key, name)?.is_some();
    // A server has it off without a word.
    if draft.system.version < Version::EIGHT || draft.system.is_server && !is_set {
        return Ok(());
    }
    draft.registry.set(
        &key,
        name,
        Data::dword(0),
        "Fast Startup is switched off: what it keeps on the disk when the guest is shut down is of the old hardware.",
    )
}

/// What the guest takes the virtual real-time clock for: local time, unless it was told otherwise.
///
/// # Errors
/// Where the hive is damaged.
pub fn clock(draft: &Draft<'_>) -> Result<Clock> {
    let key = draft.system.key("Control\\TimeZoneInformation");
    let is_universal = draft.registry.dword(&key, "RealTimeIsUniversal")?.is_some_and(|number| number != 0);
    Ok(if is_universal { Clock::Utc } else { Clock::LocalTime })
}

/// For a boot trial, in a throw-away copy: a stop error stays on the screen.
///
/// # Errors
/// Where the hive is damaged.
pub fn plan_trial(draft: &mut Draft<'_>) -> Result<()> {
    let key = draft.system.key("Control\\CrashControl");
    draft.registry.set(
        &key,
        "AutoReboot",
        Data::dword(0),
        "In a boot trial a stop error is to stay on the screen, not to restart the machine.",
    )
}

/// Command lines that give back, once the guest has seen all its disks at the target, what was set for its first start. A
/// disk that came online stays so.
///
/// # Errors
/// Where the hive is damaged.
pub fn commands_after_first_start(draft: &Draft<'_>) -> Result<Vec<String>> {
    let key = format!("HKLM\\SYSTEM\\CurrentControlSet\\{PARTITION_MANAGER}");
    let Some(before) = SAN_POLICY.before(draft)? else { return Ok(Vec::new()) };
    // What is of another type is no policy.
    let give_back = match before.filter(|data| data.kind == REG_DWORD).and_then(|data| data.as_dword()) {
        Some(was) => format!("reg.exe add \"{key}\" /v SanPolicy /t REG_DWORD /d {was} /f"),
        None => format!("reg.exe delete \"{key}\" /v SanPolicy /f"),
    };
    // A later pass must not take it for what was there before that one.
    let forget = format!("reg.exe delete \"HKLM\\SOFTWARE\\{}\" /v SanPolicy /f", SAN_POLICY.kept());
    Ok(vec![give_back, forget])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::target::Request;
    use crate::tree::mem::MemTree;
    use crate::windows::draft::System;
    use crate::windows::draft::tests::{draft, ten};

    #[test]
    fn settings_are_given_back_after_the_first_start() {
        let (tree, request) = (MemTree::new(), Request::default());
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let key = "ControlSet001\\Services\\partmgr\\Parameters";
        for (was, expected) in [
            (
                Some(Data::dword(2)),
                "reg.exe add \"HKLM\\SYSTEM\\CurrentControlSet\\Services\\partmgr\\Parameters\" /v SanPolicy /t REG_DWORD /d 2 /f",
            ),
            (
                None,
                "reg.exe delete \"HKLM\\SYSTEM\\CurrentControlSet\\Services\\partmgr\\Parameters\" /v SanPolicy /f",
            ),
            (
                Some(Data::binary([2, 0, 0, 0])),
                "reg.exe delete \"HKLM\\SYSTEM\\CurrentControlSet\\Services\\partmgr\\Parameters\" /v SanPolicy /f",
            ),
            (Some(Data::dword(1)), ""),
        ] {
            let values: Vec<_> = was.map(|was| (key, "SanPolicy", was)).into_iter().collect();
            let universal =
                ("ControlSet001\\Control\\TimeZoneInformation", "RealTimeIsUniversal", Data::qword(1));
            let mut draft = draft(&scene, &request, ten(), &[values, vec![universal]].concat(), &[]);
            plan(&mut draft).unwrap();
            assert_eq!(draft.registry.dword(key, "SanPolicy").unwrap(), Some(1));
            let forget = "reg.exe delete \"HKLM\\SOFTWARE\\landfall\\Before\\SYSTEM\\CurrentControlSet\\Services\\partmgr\\Parameters\" /v SanPolicy /f";
            let lines = commands_after_first_start(&draft).unwrap();
            match expected {
                "" => assert!(lines.is_empty()),
                _ => assert_eq!(lines, [expected, forget]),
            }
            assert_eq!(draft.clock, Some(Clock::Utc));
            plan_trial(&mut draft).unwrap();
            assert_eq!(
                draft.registry.dword("ControlSet001\\Control\\CrashControl", "AutoReboot").unwrap(),
                Some(0)
            );
        }
    }

    /// It is on where nothing is said, but for servers; before Windows 8 there is none.
    #[test]
    fn fast_startup_is_switched_off_where_there_is_one() {
        let (tree, request) = (MemTree::new(), Request::default());
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let (key, name) = ("ControlSet001\\Control\\Session Manager\\Power", "HiberbootEnabled");
        for (version, is_server, was, will) in [
            (Version::TEN, false, None, Some(0)),
            (Version::TEN, false, Some(1), Some(0)),
            (Version::EIGHT, true, Some(1), Some(0)),
            (Version::EIGHT, true, None, None),
            (Version::SEVEN, false, None, None),
            (Version::SEVEN, false, Some(1), Some(1)),
        ] {
            let values: Vec<_> = was.map(|was| (key, name, Data::dword(was))).into_iter().collect();
            let system = System { version, is_server, ..ten() };
            let mut draft = draft(&scene, &request, system, &values, &[]);
            plan(&mut draft).unwrap();
            let now = draft.registry.dword(key, name).unwrap();
            assert_eq!(now, will, "{version:?} {is_server} {was:?}");
        }
    }
}
