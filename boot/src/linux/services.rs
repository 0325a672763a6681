//! Switching services off and on in a guest that does not run: systemd units, init scripts, upstart jobs, OpenRC.
//!
//! Off is never a mask. A systemd unit gets a drop-in with a condition (`ConditionVirtualization=vmware`): it says by
//! whom and why it was written, it is overruled by nothing that the owner set, and back at home the service starts
//! without anybody's doing. Its file name is the record of what is ours, so a pass to another target takes it away. Start
//! links of the older systems cannot hold a condition: they are removed, and [`RECORD`] keeps what is to be put back.
//!
//! Deliberately absent: undoing what the owner masked or disabled by other means.

use super::draft::Draft;
use super::{facts, text};
use crate::Result;
use crate::tree::{GuestTree, GuestTreeExt};

/// Start links that were removed: path and target on each line.
pub const RECORD: &str = "/etc/landfall/start-links";

/// A condition that never holds.
pub const NEVER: &str = "ConditionPathExists=!/";

const OWN_UNITS: &str = "/etc/systemd/system";
const UNITS: &[&str] = &[OWN_UNITS, "/usr/lib/systemd/system", "/lib/systemd/system"];
const RC: &[&str] = &["/etc/rc", "/etc/rc.d/rc"];
const LEVELS: &[&str] = &["S", "2", "3", "4", "5"];

/// Longest record that is believed.
const LINKS_AT_MOST: usize = 1024;

/// What was done to switch a service on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// There is no such service.
    Absent,
    /// It starts already.
    Already,
    /// It starts from now on.
    Enabled,
    /// Its owner masked it.
    Masked,
}

/// True where the guest has the service in some form.
pub fn is_there(tree: &dyn GuestTree, name: &str) -> Result<bool> {
    Ok(unit(tree, name)?.is_some() || script(tree, name)?.is_some())
}

/// True where the unit itself asks for its hardware before it starts, so that it does nothing elsewhere. `None` where
/// there is no unit to read.
pub fn asks_for_hardware(draft: &mut Draft<'_>, name: &str) -> Result<Option<bool>> {
    let Some(path) = unit(draft.scene.tree, name)? else { return Ok(None) };
    let text = draft.read_text(&path)?.unwrap_or_default();
    let asks = |line: &str| {
        let line = line.trim();
        line.starts_with("ConditionVirtualization=")
            || line.starts_with("ConditionPathExists=/dev/")
            || line.starts_with("ConditionPathExists=/proc/xen")
            || line.starts_with("BindsTo=dev-")
    };
    Ok(Some(text.lines().any(asks)))
}

/// Switches a service off where `condition` does not hold. True where there was one.
pub fn switch_off(draft: &mut Draft<'_>, name: &str, condition: &str, why: &str) -> Result<bool> {
    let tree = draft.scene.tree;
    if !is_there(tree, name)? {
        return Ok(false);
    }
    if has_systemd(tree)? {
        if masked(tree, name)? {
            return Ok(true);
        }
        let text = format!("# Written by landfall: {why}\n[Unit]\n{condition}\n");
        draft.write(&drop_in(name), text, why)?;
        return Ok(true);
    }
    let links = start_links(tree, name)?;
    if !links.is_empty() {
        let old = draft.read(RECORD)?.unwrap_or_default();
        let lines: Vec<String> = links.iter().map(|(path, target)| format!("{path} {target}")).collect();
        if let Some(new) = text::append_lines(&old, &lines) {
            draft.write(RECORD, new, "The start links that were removed, so that they can be put back.")?;
        }
    }
    for (path, _) in links {
        draft.remove(&path, why)?;
    }
    let job = format!("/etc/init/{name}.override");
    if tree.exists(&format!("/etc/init/{name}.conf"))? && !tree.exists(&job)? {
        draft.write(&job, format!("# Written by landfall: {why}\nmanual\n"), why)?;
    }
    Ok(true)
}

/// Takes back what an earlier pass switched off. True where there was something.
pub fn take_back(draft: &mut Draft<'_>, name: &str, why: &str) -> Result<bool> {
    let tree = draft.scene.tree;
    let mut done = false;
    for path in [drop_in(name), format!("/etc/init/{name}.override")] {
        let ours = draft.read_text(&path)?.is_some_and(|text| text.starts_with("# Written by landfall"));
        if ours {
            draft.remove(&path, why)?;
            done = true;
        }
    }
    let record = draft.read_text(RECORD)?.unwrap_or_default();
    let mut left = Vec::new();
    let mut links = Vec::new();
    for line in record.lines().take(LINKS_AT_MOST) {
        match line.split_once(' ') {
            // The record lies in the guest: it names start links of this service, or it is not believed.
            Some((path, target)) if is_start_link(path, name) && is_script(target, name) => {
                links.push((path, target));
            }
            _ => left.push(line),
        }
    }
    for (path, target) in &links {
        if tree.link_metadata(path)?.is_none() {
            draft.symlink(path, target, why)?;
        }
    }
    if !links.is_empty() {
        done = true;
        match left.is_empty() {
            true => draft.remove(RECORD, why)?,
            false => draft.write(RECORD, left.join("\n") + "\n", why)?,
        }
    }
    Ok(done)
}

/// Sees that a service starts: what an earlier pass did is taken back, and a unit gets the links that its own `[Install]`
/// section asks for. A unit without one is started by something else, and stays as it is.
pub fn switch_on(draft: &mut Draft<'_>, name: &str, why: &str) -> Result<On> {
    let tree = draft.scene.tree;
    let taken_back = take_back(draft, name, why)?;
    if masked(tree, name)? {
        return Ok(On::Masked);
    }
    let Some(path) = unit(tree, name)? else {
        return Ok(match (taken_back, script(tree, name)?) {
            (true, _) => On::Enabled,
            (false, Some(_)) => On::Already,
            (false, None) => On::Absent,
        });
    };
    let file = format!("{name}.service");
    let text = draft.read_text(&path)?.unwrap_or_default();
    let mut linked = taken_back;
    for (keyword, ending) in [("WantedBy=", "wants"), ("RequiredBy=", "requires")] {
        let install = text.lines().map(str::trim).skip_while(|line| *line != "[Install]").skip(1);
        let targets =
            install.take_while(|line| !line.starts_with('[')).filter_map(|line| line.strip_prefix(keyword));
        for target in targets.flat_map(str::split_whitespace).filter(|target| is_unit_name(target)) {
            let mut there = false;
            for folder in UNITS {
                there |= tree.link_metadata(&format!("{folder}/{target}.{ending}/{file}"))?.is_some();
            }
            if !there {
                draft.symlink(&format!("{OWN_UNITS}/{target}.{ending}/{file}"), &path, why)?;
                linked = true;
            }
        }
    }
    Ok(if linked { On::Enabled } else { On::Already })
}

fn has_systemd(tree: &dyn GuestTree) -> Result<bool> {
    Ok(facts::init(tree)?.is_none_or(|init| init.value == "systemd"))
}

fn drop_in(name: &str) -> String {
    format!("{OWN_UNITS}/{name}.service.d/90-landfall.conf")
}

/// A link to /dev/null, or an empty file, in the place of the unit.
fn masked(tree: &dyn GuestTree, name: &str) -> Result<bool> {
    let path = format!("{OWN_UNITS}/{name}.service");
    Ok(tree.read_link(&path)?.is_some_and(|target| target == "/dev/null"))
}

/// The unit's file. A link to another name is a mask or an alias, and its service is found by its own name.
fn unit(tree: &dyn GuestTree, name: &str) -> Result<Option<String>> {
    for folder in UNITS {
        let path = format!("{folder}/{name}.service");
        let own_name = |target: String| target.rsplit('/').next() == Some(&format!("{name}.service"));
        if tree.read_link(&path)?.is_none_or(own_name) && tree.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn script(tree: &dyn GuestTree, name: &str) -> Result<Option<String>> {
    for path in
        [format!("/etc/init.d/{name}"), format!("/etc/rc.d/init.d/{name}"), format!("/etc/init/{name}.conf")]
    {
        if tree.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The links that start it, of sysvinit and OpenRC, with their targets.
fn start_links(tree: &dyn GuestTree, name: &str) -> Result<Vec<(String, String)>> {
    let mut folders = Vec::new();
    for folder in RC.iter().flat_map(|rc| LEVELS.iter().map(move |level| format!("{rc}{level}.d"))) {
        // Red Hat's are links to those of the other place.
        if tree.read_link(&folder)?.is_none() {
            folders.push(folder);
        }
    }
    for level in ["sysinit", "boot", "default"] {
        folders.push(format!("/etc/runlevels/{level}"));
    }
    let mut found = Vec::new();
    for folder in folders {
        for entry in tree.names(&folder)? {
            let path = format!("{folder}/{entry}");
            if !is_start_link(&path, name) {
                continue;
            }
            if let Some(target) = tree.read_link(&path)?.filter(|target| is_script(target, name)) {
                found.push((path, target));
            }
        }
    }
    Ok(found)
}

/// `/etc/rc2.d/S03NAME`, `/etc/runlevels/default/NAME`.
fn is_start_link(path: &str, name: &str) -> bool {
    let Some((folder, file)) = path.rsplit_once('/') else { return false };
    let level = RC.iter().find_map(|rc| folder.strip_prefix(rc)?.strip_suffix(".d"));
    let by_number = level.is_some_and(|level| LEVELS.contains(&level))
        && file
            .strip_prefix('S')
            .is_some_and(|rest| rest.trim_start_matches(|char: char| char.is_ascii_digit()) == name);
    let by_name = matches!(folder.strip_prefix("/etc/runlevels/"), Some("sysinit" | "boot" | "default"));
    by_number || (by_name && file == name)
}

fn is_script(target: &str, name: &str) -> bool {
    let folder = target.strip_suffix(name).unwrap_or("");
    matches!(folder, "../init.d/" | "/etc/init.d/" | "../../init.d/" | "/etc/rc.d/init.d/")
}

fn is_unit_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@-".contains(&byte);
    !name.is_empty() && name.len() < 200 && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Change;
    use crate::family::Scene;
    use crate::patch::{Action, PatchPlan};
    use crate::tree::mem::MemTree;

    fn with(tree: &MemTree, act: impl FnOnce(&mut Draft<'_>)) -> PatchPlan {
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        act(&mut draft);
        draft.finish()
    }

    fn apply(tree: &mut MemTree, plan: &PatchPlan) {
        let changes: Vec<Change> = plan
            .edits
            .iter()
            .map(|edit| match &edit.action {
                Action::Write { contents, mode } => {
                    Change::Put { path: edit.path.clone(), bytes: contents.0.clone(), mode: *mode }
                }
                Action::Symlink { target } => {
                    Change::Symlink { path: edit.path.clone(), target: target.clone() }
                }
                Action::Remove => Change::Remove { path: edit.path.clone() },
                other => panic!("{other:?}"),
            })
            .collect();
        tree.apply(&changes).unwrap();
    }

    fn sysvinit() -> MemTree {
        MemTree::new()
            .file("/etc/inittab", "")
            .file("/etc/init.d/tools", "")
            .symlink("/etc/rc2.d/S03tools", "../init.d/tools")
            .symlink("/etc/rcS.d/S40tools", "../init.d/tools")
            .symlink("/etc/rc2.d/S03other", "../init.d/other")
            .symlink("/etc/rc0.d/K03tools", "../init.d/tools")
    }

    #[test]
    fn start_links_go_and_come_back() {
        let mut tree = sysvinit();
        let off = with(&tree, |draft| assert!(switch_off(draft, "tools", NEVER, "x").unwrap()));
        let gone: Vec<_> = off
            .edits
            .iter()
            .filter(|edit| edit.action == Action::Remove)
            .map(|edit| edit.path.as_str())
            .collect();
        assert_eq!(gone, ["/etc/rcS.d/S40tools", "/etc/rc2.d/S03tools"]);
        apply(&mut tree, &off);
        assert_eq!(with(&tree, |draft| drop(switch_off(draft, "tools", NEVER, "x"))).edits, []);
        let on = with(&tree, |draft| assert_eq!(switch_on(draft, "tools", "x").unwrap(), On::Enabled));
        apply(&mut tree, &on);
        assert_eq!(tree.read_link("/etc/rc2.d/S03tools").unwrap().as_deref(), Some("../init.d/tools"));
        assert_eq!(tree.read_link("/etc/rcS.d/S40tools").unwrap().as_deref(), Some("../init.d/tools"));
        assert!(!tree.exists(RECORD).unwrap());
        assert_eq!(
            with(&tree, |draft| assert_eq!(switch_on(draft, "tools", "x").unwrap(), On::Already)).edits,
            []
        );
    }

    /// The record lies in the guest, where anybody can write it.
    #[test]
    fn a_forged_record_links_nothing_else() {
        let forged = "/etc/rc2.d/S03tools /tmp/evil\n/etc/cron.d/tools ../init.d/tools\n                      /etc/rc2.d/../../root/S03tools ../init.d/tools\n/etc/rc2.d/S01tools ../init.d/tools\nx\n";
        let tree = sysvinit().file(RECORD, forged);
        let plan = with(&tree, |draft| drop(take_back(draft, "tools", "x")));
        let links: Vec<_> = plan
            .edits
            .iter()
            .filter(|edit| matches!(edit.action, Action::Symlink { .. }))
            .map(|edit| edit.path.as_str())
            .collect();
        assert_eq!(links, ["/etc/rc2.d/S01tools"]);
    }

    #[test]
    fn units_get_a_condition_and_lose_it() {
        let mut tree = MemTree::new().symlink("/sbin/init", "/lib/systemd/systemd").file(
            "/lib/systemd/system/agent.service",
            "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target a/b ../c\n",
        );
        let off = with(&tree, |draft| {
            assert!(switch_off(draft, "agent", "ConditionVirtualization=xen", "x.").unwrap())
        });
        assert_eq!(off.edits.len(), 1);
        assert_eq!(off.edits[0].path, "/etc/systemd/system/agent.service.d/90-landfall.conf");
        apply(&mut tree, &off);
        let on = with(&tree, |draft| assert_eq!(switch_on(draft, "agent", "x").unwrap(), On::Enabled));
        let paths: Vec<_> = on.edits.iter().map(|edit| edit.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/etc/systemd/system/agent.service.d/90-landfall.conf",
                "/etc/systemd/system/multi-user.target.wants/agent.service"
            ]
        );
        apply(&mut tree, &on);
        assert_eq!(with(&tree, |draft| drop(switch_on(draft, "agent", "x"))).edits, []);
    }

    #[test]
    fn what_the_owner_did_is_left() {
        let unit = "[Install]\nWantedBy=multi-user.target\n";
        let masked = MemTree::new()
            .file("/usr/lib/systemd/system/agent.service", unit)
            .symlink("/etc/systemd/system/agent.service", "/dev/null");
        let plan = with(&masked, |draft| {
            assert!(switch_off(draft, "agent", NEVER, "x").unwrap());
            assert_eq!(switch_on(draft, "agent", "x").unwrap(), On::Masked);
        });
        assert_eq!(plan.edits, []);
        let own = MemTree::new().file("/etc/systemd/system/agent.service.d/90-landfall.conf", "[Unit]\n");
        assert_eq!(with(&own, |draft| assert!(!take_back(draft, "agent", "x").unwrap())).edits, []);
        let upstart = MemTree::new().file("/etc/init/rc-sysinit.conf", "").file("/etc/init/agent.conf", "");
        let off = with(&upstart, |draft| assert!(switch_off(draft, "agent", NEVER, "x").unwrap()));
        assert_eq!(off.edits[0].path, "/etc/init/agent.override");
    }

    /// systemd itself says what the two kinds of condition come to.
    #[test]
    fn systemd_understands_the_conditions() {
        let ask = |condition: &str| {
            std::process::Command::new("systemd-analyze").arg("condition").arg(condition).output()
        };
        let Ok(known) = ask("ConditionPathExists=/") else {
            eprintln!("SKIPPED: systemd-analyze is not here, so no condition was tried");
            return;
        };
        if !known.status.success() {
            eprintln!("SKIPPED: this systemd-analyze does not try conditions");
            return;
        }
        assert!(!ask(NEVER).unwrap().status.success(), "it never holds");
        let elsewhere = ["vmware", "microsoft", "xen", "oracle", "parallels"]
            .iter()
            .filter(|name| ask(&format!("ConditionVirtualization={name}")).unwrap().status.success());
        assert!(elsewhere.count() <= 1, "a host is one of them at most");
    }
}
