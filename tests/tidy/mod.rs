//! The layering, checked: what may import what, who may print, who may read the environment, what a file may not say.
//!
//! Works on the text of the sources. Comments and text behind `#[cfg(test)]` are left out where a rule is about code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

struct File {
    path: String,
    text: String,
}

impl File {
    /// Compiled for tests only: a `tests` module, or what the crates' tests share.
    fn is_test(&self) -> bool {
        const SHARED: [&str; 3] =
            ["image/src/corpus.rs", "boot/src/testing.rs", "boot/src/bin/sandbox_agent.rs"];
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || SHARED.contains(&self.path.as_str())
    }

    /// Lines of code with their numbers: no comments, nothing behind the tests' marker.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_marker = |n: usize| lines.get(n).is_some_and(|line| line.trim() == "#[cfg(test)]");
        // A module in a file of its own is one line; one in braces ends the code.
        let is_declared =
            |n: usize| is_marker(n) && lines.get(n + 1).is_some_and(|line| line.trim_end().ends_with(';'));
        let end = (0..lines.len()).find(|&n| is_marker(n) && !is_declared(n)).unwrap_or(lines.len());
        let end = if self.is_test() { 0 } else { end };
        let kept: Vec<(usize, &str)> = (0..end)
            .filter(|&n| !(is_declared(n) || n > 0 && is_declared(n - 1)))
            .map(|n| (n + 1, lines[n]))
            .collect();
        kept.into_iter().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, ending: &str, out: &mut Vec<File>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, ending, out);
        } else if name.ends_with(ending) {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            out.push(File { path, text });
        }
    }
}

fn sources(folder: &str) -> Vec<File> {
    let mut out = Vec::new();
    walk(&root().join(folder), ".rs", &mut out);
    assert!(!out.is_empty(), "{folder} holds no source");
    out
}

/// Fails with every line of code of `files` that holds one of `words`.
fn forbid(files: &[File], words: &[&str], why: &str) {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.code() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: {word}: {}", file.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

fn under(files: Vec<File>, folder: &str) -> Vec<File> {
    files.into_iter().filter(|file| file.path.starts_with(folder)).collect()
}

const FORMATS: &[&str] = &["qcow2", "vmdk", "vhdx", "vhd", "raw"];

#[test]
fn image_imports_nothing_of_ours_and_names_no_operating_system() {
    let files = sources("image/src");
    forbid(&files, &["landfall_boot", "landfall::"], "image is the lowest layer");
    forbid(
        &files,
        &["debian", "Debian", "ubuntu", "Ubuntu", "\"linux\"", "initramfs", "fstab", "grub"],
        "image names no operating system",
    );
}

#[test]
fn boot_imports_only_image_and_names_no_disk_format() {
    let files = sources("boot/src");
    forbid(&files, &["landfall::"], "boot imports only image");
    let words: Vec<String> = FORMATS
        .iter()
        .filter(|name| **name != "raw")
        .flat_map(|name| [format!("::{name}"), format!("\"{name}\"")])
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    forbid(&files, &words, "boot knows disks, not their formats");
}

#[test]
fn a_format_never_imports_another_format() {
    for file in sources("image/src") {
        let Some(own) = FORMATS.iter().find(|name| {
            file.path.starts_with(&format!("image/src/{name}/"))
                || file.path == format!("image/src/{name}.rs")
        }) else {
            continue;
        };
        // What is called raw is also what flat extents of other formats are made of.
        let others: Vec<String> = FORMATS
            .iter()
            .filter(|name| *name != own && **name != "raw")
            .flat_map(|name| [format!("crate::{name}"), format!("super::{name}::")])
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        forbid(std::slice::from_ref(&file), &others, "formats meet through Disk");
    }
}

#[test]
fn hypervisors_are_text_in_text_out() {
    let files = under(sources("src"), "src/hypervisor/");
    forbid(
        &files,
        &["std::fs", "File::", "Disk", "formats::open", "Source::open"]
            .map(|w| if w == "Disk" { "dyn Disk" } else { w }),
        "hypervisor/ never opens anything",
    );
}

#[test]
fn only_the_command_line_prints() {
    let rest: Vec<File> = ["src", "image/src", "boot/src"]
        .into_iter()
        .flat_map(sources)
        // PID 1 of the sandbox and of the appliance's initrd print to their consoles; nobody else is there.
        .filter(|file| {
            !file.path.starts_with("src/cli/")
                && file.path != "src/main.rs"
                && !file.path.starts_with("src/console/")
                && !file.path.contains("/sandbox/agent")
                && !file.path.contains("/appliance/init/")
        })
        .collect();
    forbid(&rest, &["println!", "eprint!", "print!(", "eprintln!", "dbg!"], "only cli/ and console/ print");
}

#[test]
fn only_main_reads_the_environment_or_exits() {
    let rest: Vec<File> = ["src", "image/src", "boot/src"]
        .into_iter()
        .flat_map(sources)
        .filter(|file| file.path != "src/main.rs" && !file.path.contains("/sandbox/agent"))
        .collect();
    forbid(
        &rest,
        &["env::var", "env::args", "process::exit", "env::current_dir"],
        "only main.rs knows the surroundings",
    );
}

#[test]
fn the_command_line_goes_through_ops() {
    let files = under(sources("src"), "src/cli/");
    forbid(
        &files,
        &[
            "landfall_boot::session",
            "landfall_boot::sandbox",
            "formats::open",
            "landfall_image::convert::convert",
        ],
        "cli calls only ops",
    );
    let ops = under(sources("src"), "src/ops/");
    forbid(&ops, &["crate::cli"], "ops does not know who calls it");
}

#[test]
fn the_console_goes_through_ops_and_the_command_line_does_not_know_it() {
    let console = under(sources("src"), "src/console/");
    forbid(
        &console,
        &["crate::cli", "crate::appliance", "crate::service", "crate::vault", "std::fs", "landfall_boot"],
        "console calls only ops",
    );
    forbid(&under(sources("src"), "src/cli/"), &["crate::console"], "cli does not know the console");
    forbid(&under(sources("src"), "src/ops/"), &["crate::console"], "ops does not know who calls it");
    let terminals: Vec<_> =
        console.into_iter().filter(|file| file.path != "src/console/terminal.rs").collect();
    forbid(&terminals, &["crossterm"], "the terminal is adapted in one file");
}

#[test]
fn a_third_party_format_crate_is_named_in_one_file() {
    let files: Vec<File> = ["src", "image/src", "boot/src"].into_iter().flat_map(sources).collect();
    for name in
        ["ext4_view", "gpt::", "fatfs", "hadris_fat", "quick_xml", "libdeflater", "liblzma", "lz4_flex"]
    {
        let users: BTreeSet<&str> = files
            .iter()
            .filter(|file| file.code().any(|(_, line)| line.contains(name) && !line.contains("crate::")))
            .filter(|file| !file.path.contains(&format!("/{}/", name.trim_end_matches("::"))))
            .map(|file| file.path.as_str())
            .collect();
        // A codec may serve one place per crate and format; a reader of structures is adapted once.
        let at_most = if ["libdeflater", "liblzma", "lz4_flex", "quick_xml"].contains(&name) { 5 } else { 1 };
        assert!(users.len() <= at_most, "{name} is used in {users:?}");
    }
}

#[test]
fn no_unsafe_and_no_unfinished_work() {
    let mut files: Vec<File> = ["src", "image", "boot", "tests"].into_iter().flat_map(sources).collect();
    files.retain(|file| file.path != "tests/tidy/mod.rs");
    for marker in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
        let found: Vec<_> =
            files.iter().filter(|file| file.text.contains(marker)).map(|file| &file.path).collect();
        assert!(found.is_empty(), "{marker} in {found:?}");
    }
    forbid(&files, &["unsafe {", "unsafe fn", "allow(unsafe_code)"], "unsafe is forbidden");
}

#[test]
fn files_stay_of_a_size_to_read() {
    const AT_MOST: usize = 900;
    let long: Vec<String> = ["src", "image/src", "boot/src", "tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|file| file.text.lines().count() > AT_MOST)
        .map(|file| format!("{}: {} lines", file.path, file.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "longer than {AT_MOST} lines:\n{}", long.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let bare: Vec<String> = ["src", "image/src", "boot/src"]
        .into_iter()
        .flat_map(sources)
        .filter(|file| !file.is_test() && !file.text.starts_with("//!"))
        .map(|file| file.path)
        .collect();
    assert!(bare.is_empty(), "without module documentation: {bare:?}");
}

/// The rules above can fail.
#[test]
fn the_rules_bite() {
    let file = |text: &str| vec![File { path: "image/src/x.rs".into(), text: text.into() }];
    let bites = |text: &str, words: &[&str]| {
        let files = file(text);
        let words: Vec<&str> = words.to_vec();
        std::panic::catch_unwind(move || forbid(&files, &words, "test")).is_err()
    };
    assert!(bites("use landfall_boot::x;\n", &["landfall_boot"]));
    assert!(!bites(
        "// use landfall_boot::x;\n#[cfg(test)]\nmod tests { use landfall_boot::x; }\n",
        &["landfall_boot"]
    ));
}
