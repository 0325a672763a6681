//! A medium that can lose its power between any two steps, with the worst that POSIX allows for what was not synced.

use crate::vault::storage::{Storage, StoredFile};
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// One step of what was done to the medium.
#[derive(Clone, Debug)]
pub enum Step {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
    SyncDir(String),
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Punch(usize, u64, u64),
    Sync(usize),
}

/// Names and contents.
type Files = (BTreeMap<String, usize>, Vec<Vec<u8>>);

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    steps: Vec<Step>,
    is_recording: bool,
    /// Names and files when recording began.
    before: Option<Files>,
    /// Writes and syncs that still succeed.
    fails_after: Option<usize>,
    /// Steps that fail, what gets through of a write then, and how often.
    fails: Option<Failing>,
    /// Files with such a name cannot be read.
    unreadable: Option<String>,
    /// Reads and writes of each file, where somebody counts them.
    traffic: Option<Vec<Traffic>>,
}

/// A read or a write.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub path: String,
    pub is_write: bool,
    pub len: usize,
}

/// The medium, as programs see it while it has power.
#[derive(Clone, Debug, Default)]
pub struct Medium(Arc<Mutex<State>>);

/// What a cut leaves of that which was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Leaves {
    Nothing,
    All,
    /// Any of it, chosen by this number.
    Some(u64),
}

/// Which steps, what gets through of a write, how many.
type Failing = (fn(&Step) -> bool, Through, usize);

/// What gets through of a write that fails.
#[derive(Clone, Copy, Debug)]
pub enum Through {
    Half,
    All,
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = index(at);
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn apply(content: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(_, at, bytes) => put(content, *at, bytes),
        Step::SetLen(_, len) => content.resize(index(*len), 0),
        Step::Punch(_, at, len) => {
            let end = index(at + len).min(content.len());
            let start = index(*at).min(end);
            content[start..end].fill(0);
        }
        _ => {}
    }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Numbers that look random, the same for the same start.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

impl Medium {
    pub fn recording() -> Medium {
        let medium = Medium::default();
        medium.0.lock().unwrap().is_recording = true;
        medium
    }

    pub fn record(&self) {
        let mut state = self.0.lock().unwrap();
        // What is there is on the medium.
        state.is_recording = true;
        state.before = Some((state.names.clone(), state.files.clone()));
    }

    pub fn has_failed(&self) -> bool {
        self.0.lock().unwrap().fails_after == Some(0)
    }

    pub fn steps(&self) -> usize {
        self.0.lock().unwrap().steps.len()
    }

    /// From now on only so many writes and syncs succeed.
    pub fn fail_after(&self, count: Option<usize>) {
        self.0.lock().unwrap().fails_after = count;
    }

    /// The next `times` steps like these fail.
    pub fn fail_on(&self, which: fn(&Step) -> bool, through: Through, times: usize) {
        self.0.lock().unwrap().fails = Some((which, through, times));
    }

    /// Files cannot be read whose names end so.
    pub fn fail_reads(&self, ending: Option<&str>) {
        self.0.lock().unwrap().unreadable = ending.map(str::to_owned);
    }

    /// Begins to count what is read and written, and gives what was.
    pub fn traffic(&self) -> Vec<Traffic> {
        self.0.lock().unwrap().traffic.replace(Vec::new()).unwrap_or_default()
    }

    /// A file's content; `None` where there is none.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        state.names.get(path).map(|file| state.files[*file].clone())
    }

    /// Puts a file there, or takes it away.
    pub fn put(&self, path: &str, content: Option<Vec<u8>>) {
        let mut state = self.0.lock().unwrap();
        state.names.remove(path);
        if let Some(content) = content {
            let file = state.files.len();
            state.files.push(content);
            state.names.insert(path.to_owned(), file);
        }
    }

    pub fn flip(&self, path: &str, at: usize) {
        let mut state = self.0.lock().unwrap();
        let file = state.names[path];
        state.files[file][at] ^= 0x40;
    }

    pub fn paths(&self) -> Vec<(String, usize)> {
        let state = self.0.lock().unwrap();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].len())).collect()
    }

    /// The medium after a cut of the power behind so many steps.
    pub fn cut(&self, steps: usize, leaves: Leaves) -> Medium {
        let state = self.0.lock().unwrap();
        let (mut names, mut files) = state.before.clone().unwrap_or_default();
        files.resize(state.files.len(), Vec::new());
        // Not synced: of each folder, and of each file.
        let mut of_names: BTreeMap<String, Vec<Step>> = BTreeMap::new();
        let mut of_files: BTreeMap<usize, Vec<Step>> = BTreeMap::new();
        let name = |names: &mut BTreeMap<String, usize>, step: &Step| match step {
            Step::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            Step::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Step::Remove(path) => {
                names.remove(path);
            }
            _ => {}
        };
        for step in &state.steps[..steps] {
            match step {
                Step::Create(path, _) | Step::Rename(path, _) | Step::Remove(path) => {
                    of_names.entry(folder(path).to_owned()).or_default().push(step.clone());
                }
                Step::SyncDir(dir) => {
                    of_names.remove(dir).unwrap_or_default().iter().for_each(|step| name(&mut names, step));
                }
                Step::Write(file, ..) | Step::SetLen(file, ..) | Step::Punch(file, ..) => {
                    of_files.entry(*file).or_default().push(step.clone());
                }
                Step::Sync(file) => {
                    let all = of_files.remove(file).unwrap_or_default();
                    all.iter().for_each(|step| apply(&mut files[*file], step));
                }
            }
        }
        let mut dice = Dice(match leaves {
            Leaves::Some(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        });
        for steps in of_names.values() {
            // Names change in their order, as journals of file systems keep it.
            let count = match leaves {
                Leaves::Nothing => 0,
                Leaves::All => steps.len(),
                Leaves::Some(_) => index(dice.roll(steps.len() as u64 + 1)),
            };
            steps[..count].iter().for_each(|step| name(&mut names, step));
        }
        for (file, steps) in &of_files {
            for step in steps {
                match (leaves, step) {
                    (Leaves::Nothing, _) => {}
                    (Leaves::All, _) => apply(&mut files[*file], step),
                    // Any sectors of a write, in any order.
                    (Leaves::Some(_), Step::Write(_, at, bytes)) => match dice.roll(3) {
                        0 => {}
                        1 => put(&mut files[*file], *at, bytes),
                        _ => {
                            for (number, sector) in bytes.chunks(512).enumerate() {
                                if dice.roll(2) == 0 {
                                    put(&mut files[*file], at + 512 * number as u64, sector);
                                }
                            }
                        }
                    },
                    (Leaves::Some(_), _) => {
                        if dice.roll(2) == 0 {
                            apply(&mut files[*file], step);
                        }
                    }
                }
            }
        }
        Medium(Arc::new(Mutex::new(State { names, files, ..State::default() })))
    }

    /// What a process that starts anew finds when the power stayed.
    pub fn again(&self) -> Medium {
        let state = self.0.lock().unwrap();
        let (names, files) = (state.names.clone(), state.files.clone());
        Medium(Arc::new(Mutex::new(State { names, files, ..State::default() })))
    }
}

impl State {
    fn step(&mut self, step: Step) -> Result<()> {
        if let Some(left) = &mut self.fails_after {
            if *left == 0 {
                return Err(Error::io("cannot write", io::Error::from_raw_os_error(5)));
            }
            *left -= 1;
        }
        if let Some((fails, through, times)) = &mut self.fails
            && *times > 0
            && fails(&step)
        {
            *times -= 1;
            if let Step::Write(file, at, bytes) = &step {
                let len = if matches!(through, Through::Half) { bytes.len() / 2 } else { bytes.len() };
                put(&mut self.files[*file], *at, &bytes[..len]);
            }
            return Err(Error::io("cannot write", io::Error::from_raw_os_error(28)));
        }
        if self.is_recording {
            self.steps.push(step);
        }
        Ok(())
    }

    fn is_unreadable(&self, file: usize) -> bool {
        let is_it = |(path, number): (&String, &usize)| {
            *number == file && self.unreadable.as_ref().is_some_and(|ending| path.ends_with(ending))
        };
        self.names.iter().any(is_it)
    }

    fn note(&mut self, file: usize, is_write: bool, len: usize) {
        if let Some(traffic) = &mut self.traffic {
            let path = self.names.iter().find(|(_, number)| **number == file);
            let path = path.map(|(path, _)| path.clone()).unwrap_or_default();
            traffic.push(Traffic { path, is_write, len });
        }
    }
}

fn absent(path: &str) -> Error {
    Error::io("cannot open", io::ErrorKind::NotFound.into()).in_file(&PathBuf::from(path))
}

impl Storage for Medium {
    fn create(&self, path: &str) -> Result<Arc<dyn StoredFile>> {
        let mut state = self.0.lock().unwrap();
        assert!(!state.names.contains_key(path), "{path} is there");
        let file = state.files.len();
        state.step(Step::Create(path.to_owned(), file))?;
        state.files.push(Vec::new());
        state.names.insert(path.to_owned(), file);
        Ok(Arc::new(File(self.clone(), file)))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn StoredFile>> {
        let state = self.0.lock().unwrap();
        let file = state.names.get(path).copied().ok_or_else(|| absent(path))?;
        Ok(Arc::new(File(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        let file = state.names.get(from).copied().ok_or_else(|| absent(from))?;
        state.step(Step::Rename(from.to_owned(), to.to_owned()))?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.names.contains_key(path) {
            state.step(Step::Remove(path.to_owned()))?;
            state.names.remove(path);
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let state = self.0.lock().unwrap();
        let inside = |path: &'_ String| match dir {
            "" => path.split('/').next().map(str::to_owned),
            _ => path.strip_prefix(dir)?.strip_prefix('/')?.split('/').next().map(str::to_owned),
        };
        let names: std::collections::BTreeSet<String> = state.names.keys().filter_map(inside).collect();
        Ok(names.into_iter().collect())
    }

    fn make_dir(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> Result<()> {
        assert!(self.list(dir)?.is_empty(), "{dir} is not empty");
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.0.lock().unwrap().step(Step::SyncDir(dir.to_owned()))
    }

    fn place(&self, path: &str) -> PathBuf {
        path.into()
    }

    fn room(&self) -> Result<Option<(u64, u64)>> {
        Ok(None)
    }

    fn can_be_long(&self, _: &str, _: u64) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct File(Medium, usize);

impl StoredFile for File {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut state = self.0.0.lock().unwrap();
        state.note(self.1, false, buf.len());
        if state.is_unreadable(self.1) {
            return Err(Error::io("cannot read", io::Error::from_raw_os_error(5)));
        }
        let found = state.files[self.1].get(index(at)..index(at) + buf.len());
        let found = found.ok_or_else(|| Error::io("cannot read", io::ErrorKind::UnexpectedEof.into()))?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, at: u64, parts: &[&[u8]]) -> Result<()> {
        let mut state = self.0.0.lock().unwrap();
        let bytes = parts.concat();
        state.note(self.1, true, bytes.len());
        state.step(Step::Write(self.1, at, bytes.clone()))?;
        put(&mut state.files[self.1], at, &bytes);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.0.0.lock().unwrap().files[self.1].len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.0.0.lock().unwrap();
        state.step(Step::SetLen(self.1, len))?;
        state.files[self.1].resize(index(len), 0);
        Ok(())
    }

    fn punch(&self, at: u64, len: u64) -> Result<()> {
        let mut state = self.0.0.lock().unwrap();
        let step = Step::Punch(self.1, at, len);
        state.step(step.clone())?;
        apply(&mut state.files[self.1], &step);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.0.0.lock().unwrap().step(Step::Sync(self.1))
    }

    fn next_data(&self, at: u64) -> Result<Option<(u64, u64)>> {
        let state = self.0.0.lock().unwrap();
        let content = &state.files[self.1];
        let mut blocks = content.chunks(4096).enumerate().skip(index(at / 4096));
        let found = blocks.find(|(_, block)| block.iter().any(|byte| *byte != 0));
        Ok(found.map(|(number, block)| {
            let start = 4096 * number as u64;
            (start.max(at), start + block.len() as u64)
        }))
    }
}
