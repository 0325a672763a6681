//! What the appliance keeps of its settings on its state partition, in a way that a loss of power cannot tear.
//!
//! | file | holds |
//! |---|---|
//! | `settings.toml` | what the administrator typed at the console |
//! | `given.json` | what was last given by the hypervisor, with its instance and digest |
//!
//! A file is written beside the old one, synced, renamed, and its folder is synced (POSIX.1-2017, `rename`, `fsync`). The last
//! line of `settings.toml` is a digest of the others, so that a file that was cut or changed by a bad disk is known; who
//! changes it by hand writes `# by hand` in its place. What cannot be read is told and counts as not there: the machine comes
//! up with DHCP rather than not at all.

use super::settings::Settings;
use super::sources::{Given, Identity};
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where it is on the appliance.
pub const FOLDER: &str = "/var/lib/landfall-appliance";
const TYPED: &str = "settings.toml";
const GIVEN: &str = "given.json";

/// All settings at their bounds have less.
const AT_MOST: u64 = 4 << 20;

const HEAD: &str = "# Settings of this appliance, written by its console. After a change by hand the last line has to be: # by hand\n";
const DIGEST: &str = "# blake3 ";
const BY_HAND: &str = "# by hand";

/// The folder with both files.
#[derive(Clone, Debug)]
pub struct Kept(PathBuf);

/// What was kept.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What the administrator typed.
    pub typed: Settings,
    /// What the hypervisor gave.
    pub given: Option<LastGiven>,
    /// What could not be read, for people.
    pub problems: Vec<String>,
}

/// What was last given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastGiven {
    /// By whom, and which edition.
    pub identity: Identity,
    /// What it says.
    pub settings: Settings,
    /// What was wrong with it, or is not heeded, for people.
    pub notes: Vec<String>,
}

impl Loaded {
    /// What holds: what was typed, else what was given.
    pub fn effective(&self) -> Settings {
        let given = self.given.as_ref().map(|given| given.settings.clone()).unwrap_or_default();
        self.typed.clone().over(given)
    }
}

impl Kept {
    /// What is kept in `folder`: [`FOLDER`] on the appliance.
    pub fn new(folder: &Path) -> Kept {
        Kept(folder.to_owned())
    }

    /// Reads both. Never fails: what cannot be read is among the problems.
    pub fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        match self.read(TYPED).and_then(|text| text.as_deref().map(typed).transpose()) {
            Ok(settings) => loaded.typed = settings.unwrap_or_default(),
            Err(error) => loaded.problems.push(format!(
                "{}; what was typed at the console is lost, and does not hold",
                error.in_file(&self.0.join(TYPED))
            )),
        }
        match self.read(GIVEN).and_then(|text| text.as_deref().map(given).transpose()) {
            Ok(given) => loaded.given = given,
            Err(error) => loaded.problems.push(format!(
                "{}; what the hypervisor gave does not hold until it gives it again",
                error.in_file(&self.0.join(GIVEN))
            )),
        }
        loaded
    }

    /// Keeps what was typed.
    ///
    /// # Errors
    /// Refused as [`Settings::check`]; I/O where it cannot be written: then the earlier ones are kept.
    pub fn keep_typed(&self, settings: &Settings) -> Result<()> {
        settings.check()?;
        let text = format!("{HEAD}{}", settings.to_toml()?);
        let digest = blake3::hash(text.as_bytes()).to_hex();
        self.write(TYPED, &format!("{text}{DIGEST}{digest}\n"))
    }

    /// Takes what a source gives, where it is another than last time: true then.
    ///
    /// # Errors
    /// I/O where it cannot be written.
    pub fn take_given(&self, given: &Given) -> Result<bool> {
        if self.load().given.is_some_and(|last| last.identity == given.identity) {
            return Ok(false);
        }
        let mut notes = given.notes.clone();
        notes.extend(given.unread.iter().map(|key| format!("{key} is not heeded")));
        let last = LastGiven { identity: given.identity.clone(), settings: given.settings.clone(), notes };
        let text = serde_json::to_string_pretty(&last)
            .map_err(|error| Error::refused(format!("cannot be written as JSON: {error}")))?;
        self.write(GIVEN, &text)?;
        Ok(true)
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let cannot = |error| Error::io("cannot be read", error);
        let file = match File::open(self.0.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
        let mut bytes = Vec::new();
        file.take(AT_MOST + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > AT_MOST {
            return Err(Error::corrupt(format!("has more than {AT_MOST} bytes")));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| Error::corrupt("is not UTF-8"))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::create_dir_all(&self.0)
            .and_then(|()| put(&self.0, name, text.as_bytes()))
            .map_err(|error| Error::io("cannot be written", error).in_file(&path))
    }
}

/// Whole and on the medium, or as it was.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // Nothing of it is secret, and the service shows it.
    file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn typed(text: &str) -> Result<Settings> {
    let whole = text.strip_suffix('\n').ok_or_else(|| Error::corrupt("is cut off"))?;
    let (body, last) = whole.rsplit_once('\n').ok_or_else(|| Error::corrupt("is cut off"))?;
    match last.strip_prefix(DIGEST) {
        Some(digest) => {
            let body = format!("{body}\n");
            if blake3::hash(body.as_bytes()).to_hex().as_str() != digest {
                return Err(Error::corrupt("is damaged: its digest is another"));
            }
        }
        None if last.trim_end() == BY_HAND => {}
        None => {
            return Err(Error::corrupt(
                "is cut off, or was changed by hand without saying so in its last line",
            ));
        }
    }
    Settings::parse(text)
}

fn given(text: &str) -> Result<LastGiven> {
    let given: LastGiven =
        serde_json::from_str(text).map_err(|error| Error::corrupt(format!("is damaged: {error}")))?;
    given.settings.check()?;
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str) -> Settings {
        Settings::parse(&format!("hostname = \"{name}\"\n[[nic]]\ncard = \"first\"\ndhcp = \"yes\"\n"))
            .unwrap()
    }

    fn given_as(name: &str, instance: &str, digest: &str) -> Given {
        Given {
            identity: Identity {
                source: "NoCloud".into(),
                instance: Some(instance.into()),
                digest: digest.into(),
            },
            settings: settings(name),
            notes: vec!["a note".into()],
            unread: vec!["runcmd".into()],
        }
    }

    #[test]
    fn what_is_kept_is_there_again_and_nothing_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(&folder.path().join("new"));
        let nothing = kept.load();
        assert_eq!((nothing.effective(), nothing.problems.len()), (Settings::default(), 0));
        for name in ["a", "b"] {
            kept.keep_typed(&settings(name)).unwrap();
            assert_eq!(kept.load().typed, settings(name));
        }
        let files: Vec<_> = fs::read_dir(&kept.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [TYPED]);
        let wrong = Settings {
            nic: Some(vec![super::super::settings::Nic::new(super::super::settings::Card::First)]),
            ..Settings::default()
        };
        assert!(kept.keep_typed(&wrong).is_err());
        assert_eq!(kept.load().typed, settings("b"));
    }

    #[test]
    fn a_file_that_is_cut_or_changed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        kept.keep_typed(&settings("dr1")).unwrap();
        let path = folder.path().join(TYPED);
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let loaded = kept.load();
            assert_eq!((loaded.problems.len(), loaded.typed), (1, Settings::default()), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let loaded = kept.load();
            assert_eq!((loaded.problems.len(), loaded.typed), (1, Settings::default()), "changed at {at}");
        }
        fs::write(&path, vec![0; whole.len()]).unwrap();
        assert!(kept.load().problems[0].contains("settings.toml: is cut off"));
        fs::write(&path, vec![b'#'; usize::try_from(AT_MOST).unwrap() + 1]).unwrap();
        assert!(kept.load().problems[0].contains("more than"));
        fs::write(&path, "hostname = \"hand\"\n# by hand\n").unwrap();
        assert_eq!(kept.load().typed.hostname.unwrap().as_str(), "hand");
    }

    #[test]
    fn what_is_given_holds_until_it_is_another_and_what_was_typed_lies_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path());
        assert!(kept.take_given(&given_as("one", "i-1", "d1")).unwrap());
        assert!(!kept.take_given(&given_as("two", "i-1", "d1")).unwrap());
        assert_eq!(kept.load().effective().hostname.unwrap().as_str(), "one");
        assert_eq!(kept.load().given.unwrap().notes, ["a note", "runcmd is not heeded"]);
        for (name, instance, digest) in [("three", "i-1", "d2"), ("four", "i-2", "d2")] {
            assert!(kept.take_given(&given_as(name, instance, digest)).unwrap());
            assert_eq!(kept.load().effective().hostname.unwrap().as_str(), name);
        }
        let typed = Settings { hostname: Some("typed".parse().unwrap()), ..Settings::default() };
        kept.keep_typed(&typed).unwrap();
        let effective = kept.load().effective();
        assert_eq!(effective.hostname.unwrap().as_str(), "typed");
        assert_eq!(effective.nic, settings("x").nic);
        fs::write(folder.path().join(GIVEN), "{").unwrap();
        let loaded = kept.load();
        assert!(loaded.problems[0].contains("given.json: is damaged") && loaded.given.is_none());
    }
}
