//! Images that mean harm, through the whole program: each is refused by a named reason, in little memory and time, and
//! leaves nothing behind.
//!
//! A case is a folder `vm` with the image in it, and a folder above that the image may not reach.

mod build;
mod paths;
mod refused;
mod sizes;

use super::program::{files_in, measured};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Resident memory, and address space: the second bounds what is asked for and never touched.
const MEMORY_KIB: u64 = 160 << 10;
const ADDRESS_SPACE_KIB: u64 = 1536 << 10;

/// Much more than any of them takes: the sign of a hang.
const DEADLINE: Duration = Duration::from_secs(60);

/// One image, and what becomes of it.
struct Case {
    name: String,
    /// Makes the image in this folder.
    make: Box<dyn Fn(&Path) -> PathBuf>,
    arguments: Vec<&'static str>,
    /// The exit codes that are right: 1 refused, 2 a file that is not there.
    codes: &'static [i32],
    /// What is said, besides a path in the case's folder.
    says: Vec<&'static str>,
    hint: bool,
}

/// An image that is refused with these words.
fn refused(name: &str, says: &[&'static str], make: impl Fn(&Path) -> PathBuf + 'static) -> Case {
    Case {
        name: name.into(),
        make: Box::new(make),
        arguments: Vec::new(),
        codes: &[1],
        says: says.to_vec(),
        hint: false,
    }
}

impl Case {
    /// There is a hint, with this in it.
    fn hint(mut self, says: &'static str) -> Case {
        self.hint = true;
        self.says.push(says);
        self
    }

    fn with(mut self, arguments: &[&'static str]) -> Case {
        self.arguments.extend(arguments);
        self
    }

    fn codes(mut self, codes: &'static [i32]) -> Case {
        self.codes = codes;
        self
    }

    /// Runs it; what is wrong.
    fn run(&self) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let vm = folder.path().join("vm");
        let out = folder.path().join("out");
        std::fs::create_dir(&vm).unwrap();
        std::fs::create_dir(&out).unwrap();
        let image = (self.make)(&vm);
        let before = [files_in(&vm), files_in(folder.path())];
        let convert = [&["disk", "convert", "-O", "raw"], &self.arguments[..]].concat();
        let told = bounded(&convert, &[&image, &out.join("target.raw")])?;
        if !told.code.is_some_and(|code| self.codes.contains(&code)) {
            return Err(format!("ended with {:?}: {}", told.code, told.says));
        }
        if told.code != Some(0) {
            if let Some(missing) = self.says.iter().find(|part| !told.says.contains(**part)) {
                return Err(format!("does not say {missing:?}: {}", told.says));
            }
            if !told.says.contains(vm.to_str().unwrap()) {
                return Err(format!("names no path: {}", told.says));
            }
            if self.hint && !told.says.contains("\nhint: ") {
                return Err(format!("gives no hint: {}", told.says));
            }
            if !files_in(&out).is_empty() {
                return Err(format!("left {:?}", files_in(&out)));
            }
        }
        // The other verbs end, too, without a panic.
        for verb in ["info", "map", "check"] {
            let told = bounded(&[&["disk", verb], &self.arguments[..]].concat(), &[&image])?;
            if !matches!(told.code, Some(0..=2)) || told.says.contains("panicked") {
                return Err(format!("disk {verb} ended with {:?}: {}", told.code, told.says));
            }
        }
        if before != [files_in(&vm), files_in(folder.path())] {
            return Err(format!("changed the folder to {:?}", files_in(&vm)));
        }
        Ok(())
    }
}

/// What the program says on standard error, and its exit code.
struct Told {
    code: Option<i32>,
    says: String,
}

/// Runs the program within its bounds.
fn bounded(arguments: &[&str], paths: &[&Path]) -> Result<Told, String> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_landfall")).args(arguments).args(["--jobs", "2"]).args(paths);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let (output, kib) = measured(command);
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    if begin.elapsed() > DEADLINE {
        return Err(format!("{arguments:?} took {:?}", begin.elapsed()));
    }
    if kib > MEMORY_KIB {
        return Err(format!("{arguments:?} took {} MiB", kib >> 10));
    }
    Ok(Told { code: output.status.code(), says })
}

/// Runs them all and fails with every one that is wrong.
#[track_caller]
fn run_all(cases: &[Case]) {
    let wrong: Vec<String> =
        cases.iter().filter_map(|case| Some(format!("{}: {}", case.name, case.run().err()?))).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
