//! What stands in the way of the appliance, for the console: each step of the start says what it found, and says so anew when it runs again.

use super::places;
use landfall_image::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Something that is wrong, and what fixes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problem {
    /// What.
    pub says: String,
    /// What to do about it; may be empty.
    pub fix: String,
}

impl Problem {
    /// Something with its remedy.
    pub fn new(says: impl Into<String>, fix: impl Into<String>) -> Problem {
        Problem { says: says.into(), fix: fix.into() }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Problem {
        Problem::new(error.to_string(), error.hint_text().unwrap_or_default())
    }
}

/// Puts down what a step found, instead of what it said before.
pub fn tell(step: &str, problems: &[Problem]) {
    for problem in problems {
        tracing::error!(fix = %problem.fix, "{}", problem.says);
    }
    let folder = Path::new(places::PROBLEMS);
    let path = folder.join(format!("{step}.json"));
    let written = std::fs::create_dir_all(folder).and_then(|()| match problems.is_empty() {
        true => std::fs::remove_file(&path).or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        }),
        false => std::fs::write(&path, serde_json::to_vec(problems).unwrap_or_default()),
    });
    if let Err(error) = written {
        tracing::error!(%error, "cannot write {}", path.display());
    }
}

/// All that steps have found, in the order of the steps' names.
pub fn all(folder: &Path) -> Vec<Problem> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| one(path)).collect()
}

/// What one step has found.
pub fn one(file: &Path) -> Vec<Problem> {
    let bytes = std::fs::read(file).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_no_problem_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let one = [Problem::new("a", "b")];
        std::fs::write(dir.path().join("2.json"), serde_json::to_vec(&one).unwrap()).unwrap();
        std::fs::write(dir.path().join("1.json"), b"{torn").unwrap();
        assert_eq!(all(dir.path()), one);
        assert!(all(&dir.path().join("none")).is_empty());
    }
}
