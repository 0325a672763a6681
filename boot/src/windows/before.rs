//! What a value of the registry was before landfall changed it, kept in the guest's own registry, so that a pass back
//! gives it back exactly.
//!
//! ```text
//! HKEY_LOCAL_MACHINE\SOFTWARE\landfall\Before\SYSTEM\CurrentControlSet\Services\VMTools    Start = REG_DWORD 2
//! ```
//! A value that was absent is kept as an empty `REG_NONE`. Deliberately absent: what is right at every hypervisor, and so is
//! never given back (start types of inbox drivers, Fast Startup), and whole keys.

use super::data::{Data, REG_NONE};
use super::draft::Draft;
use super::registry::Registry;
use crate::Result;

/// Below SOFTWARE.
pub const ROOT: &str = "landfall";
const BEFORE: &str = "landfall\\Before";
const WHY: &str = "What was there is kept, so that a pass back gives it back.";
const WHY_NOT: &str = "It was given back.";

/// A value of a hive.
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// Key below the control set of SYSTEM, and name.
    Control(&'p str, &'p str),
    /// Key below SOFTWARE, and name.
    Software(&'p str, &'p str),
}

impl<'p> Place<'p> {
    fn name(&self) -> &'p str {
        let (Place::Control(_, name) | Place::Software(_, name)) = self;
        name
    }

    /// The key as its hive has it.
    fn key(&self, draft: &Draft<'_>) -> String {
        match self {
            Place::Control(key, _) => draft.system.key(key),
            Place::Software(key, _) => (*key).to_owned(),
        }
    }

    /// Where the value of before is kept, below SOFTWARE.
    pub fn kept(&self) -> String {
        match self {
            Place::Control(key, _) => format!("{BEFORE}\\SYSTEM\\CurrentControlSet\\{key}"),
            Place::Software(key, _) => format!("{BEFORE}\\SOFTWARE\\{key}"),
        }
    }

    fn registry<'d>(&self, draft: &'d mut Draft<'_>) -> &'d mut Registry {
        match self {
            Place::Control(..) => &mut draft.registry,
            Place::Software(..) => &mut draft.software,
        }
    }

    /// The value as it is.
    pub fn now(&self, draft: &mut Draft<'_>) -> Result<Option<Data>> {
        let key = self.key(draft);
        self.registry(draft).value(&key, self.name())
    }

    /// Changes it, `None` to remove it, without a word of what it was.
    pub fn put(&self, draft: &mut Draft<'_>, data: Option<Data>, why: &str) -> Result<()> {
        let key = self.key(draft);
        match data {
            Some(data) => self.registry(draft).set(&key, self.name(), data, why),
            None => self.registry(draft).delete_value(&key, self.name(), why),
        }
    }

    /// What it was, if landfall changed it: `Some(None)` where it was absent.
    pub fn before(&self, draft: &Draft<'_>) -> Result<Option<Option<Data>>> {
        let kept = draft.software.value(&self.kept(), self.name())?;
        Ok(kept.map(|data| Some(data).filter(|data| data.kind != REG_NONE || !data.bytes.is_empty())))
    }

    /// Keeps this as what it was.
    pub fn keep(&self, draft: &mut Draft<'_>, was: Option<Data>) -> Result<()> {
        let was = was.unwrap_or(Data { kind: REG_NONE, bytes: Vec::new() });
        draft.software.set(&self.kept(), self.name(), was, WHY)
    }

    /// Forgets what it was, with keys that are empty then.
    pub fn forget(&self, draft: &mut Draft<'_>) -> Result<()> {
        let mut key = self.kept();
        draft.software.delete_value(&key, self.name(), WHY_NOT)?;
        while draft.software.subkeys(&key)?.is_empty() && draft.software.values(&key)?.is_empty() {
            draft.software.delete(&key, WHY_NOT)?;
            match key.rfind('\\') {
                Some(at) => key.truncate(at),
                None => break,
            }
        }
        Ok(())
    }

    /// Changes it and keeps what it was. True where it was otherwise.
    pub fn change(&self, draft: &mut Draft<'_>, data: Option<Data>, why: &str) -> Result<bool> {
        let was = self.now(draft)?;
        if was == data {
            return Ok(false);
        }
        self.keep(draft, was)?;
        self.put(draft, data, why)?;
        Ok(true)
    }

    /// Gives back what it was, if landfall changed it and it is still as landfall made it. True where it was given back.
    pub fn give_back(&self, draft: &mut Draft<'_>, ours: Option<&Data>, why: &str) -> Result<bool> {
        let Some(before) = self.before(draft)? else { return Ok(false) };
        let is_ours = self.now(draft)?.as_ref() == ours;
        if is_ours {
            self.put(draft, before, why)?;
        }
        self.forget(draft)?;
        Ok(is_ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::target::Request;
    use crate::tree::mem::MemTree;
    use crate::windows::draft::tests::{draft, ten};

    #[test]
    fn what_was_comes_back_and_leaves_no_trace() {
        let (tree, request) = (MemTree::new(), Request::default());
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let registry = [("ControlSet001\\Services\\a", "Start", Data::dword(2))];
        let mut draft = draft(&scene, &request, ten(), &registry, &[("x", "y", Data::dword(1))]);
        let (start, absent) = (Place::Control("Services\\a", "Start"), Place::Software("Run", "z"));
        assert!(start.change(&mut draft, Some(Data::dword(4)), "").unwrap());
        assert!(absent.change(&mut draft, Some(Data::text("t")), "").unwrap());
        // A second time nothing is kept over what was.
        assert!(!start.change(&mut draft, Some(Data::dword(4)), "").unwrap());
        assert_eq!(start.before(&draft).unwrap(), Some(Some(Data::dword(2))));
        assert_eq!(absent.before(&draft).unwrap(), Some(None));
        assert!(start.give_back(&mut draft, Some(&Data::dword(4)), "").unwrap());
        assert_eq!(start.now(&mut draft).unwrap(), Some(Data::dword(2)));
        assert!(draft.software.exists(ROOT).unwrap());
        // Somebody changed it since: it stays.
        absent.put(&mut draft, Some(Data::text("other")), "").unwrap();
        assert!(!absent.give_back(&mut draft, Some(&Data::text("t")), "").unwrap());
        assert_eq!(absent.now(&mut draft).unwrap(), Some(Data::text("other")));
        assert!(!draft.software.exists(ROOT).unwrap());
    }
}
