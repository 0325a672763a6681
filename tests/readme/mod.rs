//! The README keeps its word: its commands are commands, its promises have tests, its files exist.

use clap::Parser;
use landfall::cli::args::Cli;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

#[test]
fn every_command_in_it_is_one() {
    let mut commands = 0;
    for line in readme().lines() {
        let Some(command) = line.strip_prefix("$ landfall ") else { continue };
        let words = ["landfall"].into_iter().chain(command.split_whitespace());
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{line}: {error}");
        }
        commands += 1;
    }
    assert!(commands >= 5, "only {commands} examples");
}

/// The last column of the table of promises names tests as `file::function`.
#[test]
fn every_promise_has_its_test() {
    let text = readme();
    let table = text.split("## Promises").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut promises = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")) {
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
        assert!(!tests.is_empty(), "no test in {row}");
        for test in tests {
            let (file, function) = test.split_once("::").unwrap();
            let source =
                fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(source.contains(&format!("fn {function}(")), "there is no {function} in {file}");
        }
        promises += 1;
    }
    assert!(promises >= 10, "only {promises} promises");
}

#[test]
fn every_file_it_names_exists() {
    for document in ["README.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for word in text.split(['`', '(', ')', ' ', '\n']) {
            let is_path = ["tools/", "tests/", "image/src/", "boot/src/", "src/"]
                .iter()
                .any(|start| word.starts_with(start));
            // Names in capitals stand for others.
            if is_path
                && !word.contains("::")
                && !word.contains('…')
                && !word.contains(|c: char| c.is_ascii_uppercase())
            {
                assert!(root().join(word.trim_end_matches(['.', ','])).exists(), "{document} names {word}");
            }
        }
    }
}

#[test]
fn its_network_map_is_the_one_that_is_tested() {
    let map = fs::read_to_string(root().join("tests/network-maps/site-b.toml")).unwrap();
    assert!(readme().contains(&map));
}

#[test]
fn what_it_leaves_open_is_filled() {
    assert!(!readme().contains("@EXAMPLES@") && !readme().contains("@PROMISES@"));
}
