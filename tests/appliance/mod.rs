//! The appliance: its image by independent readers, the same bytes twice, and a machine that comes up from it.
//!
//! The packages come from the mirror that apt has here, or from Debian's own, once; they stay in `target/appliance/packages`.

mod boot;
mod cuts;
mod disc;
mod matrix;
mod misfortunes;
mod site;

use landfall_boot::appliance::init::{LIBRARIES, PROGRAMS};
use site::start_of;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where images of this run lie.
fn folder() -> PathBuf {
    root().join("target/appliance/test")
}

#[test]
fn the_licences_are_those_of_what_is_linked() {
    let out = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "-p",
            "landfall",
            "-e",
            "normal",
            "--target",
            "x86_64-unknown-linux-gnu",
        ])
        .args(["--prefix", "none", "--no-dedupe", "-f", "{p}|{l}"])
        .current_dir(root())
        .output();
    let Ok(out) = out.map(|out| text(&out)).map(|said| said.contains("serde v").then_some(said)) else {
        return eprintln!("SKIPPED: the_licences_are_those_of_what_is_linked: no cargo here");
    };
    let said = out.expect("cargo tree lists what is linked");
    let linked: BTreeSet<String> = said
        .lines()
        .filter(|line| !line.contains("(/"))
        .filter_map(|line| line.split_once('|'))
        .map(|(name, _)| name.split(" (").next().unwrap_or(name).to_owned())
        .collect();
    let packed = std::fs::File::open(root().join("packaging/appliance/licences.txt.zst")).unwrap();
    let licences = String::from_utf8(zstd::decode_all(packed).unwrap()).unwrap();
    let listed: BTreeSet<String> = licences
        .lines()
        .take_while(|line| !line.starts_with("---"))
        .filter_map(|line| Some(line.split_once("  ")?.0.to_owned()))
        .collect();
    let differ: Vec<_> = linked.symmetric_difference(&listed).collect();
    assert!(differ.is_empty() && linked.len() > 100, "run tools/licences.sh: {differ:?}");
}

/// Builds images with little compression, by the program that is tested.
fn build(names: &[&str]) -> Output {
    let mirrors = Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).output();
    let mirrors = mirrors.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let mirror =
        mirrors.lines().find_map(|line| Some(line.trim_end_matches('/').strip_suffix("/debian")?.to_owned()));
    std::fs::create_dir_all(folder()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command
        .args(["appliance", "build", "--force", "--level", "1", "--packages"])
        .arg(root().join("target/appliance/packages"));
    // Another build of the program inside than the one that is tested: emulated machines start sooner with optimised ones.
    if let Ok(program) = std::env::var("APPLIANCE_PROGRAM") {
        command.args(["--program", &program]);
    }
    let key = key();
    command.arg("--update-key").arg(key.with_extension("pub")).arg("--sign").arg(key);
    for mirror in mirror
        .iter()
        .map(String::as_str)
        .chain(["http://deb.debian.org", "http://snapshot.debian.org/archive"])
    {
        command.args(["--mirror", mirror]);
    }
    for name in names {
        command.arg("-o").arg(folder().join(name));
    }
    command.output().unwrap()
}

/// The key of updates, made once.
fn key() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let key = folder().join("update-key");
        if !key.exists() {
            let made =
                Command::new(env!("CARGO_BIN_EXE_landfall")).args(["appliance", "key"]).arg(&key).output();
            assert!(made.unwrap().status.success());
        }
        key
    };
    MADE.get_or_init(make).clone()
}

/// The image of this run, with the disc and the update beside it (`landfall.iso`, `landfall.update`); `None`, said aloud, where the packages cannot be had.
fn image() -> Option<PathBuf> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let path = folder().join("landfall.raw");
    let built = *BUILT.get_or_init(|| {
        let out = build(&["landfall.raw", "landfall.iso", "landfall.update"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if !out.status.success() && said.contains("cannot fetch") {
            eprintln!("SKIPPED: the appliance: its packages cannot be fetched here: {said}");
            return false;
        }
        assert!(out.status.success(), "{said}");
        true
    });
    built.then_some(path)
}

/// What the initrd reads before it hands over is all that the first programs are linked with.
#[test]
fn what_the_system_starts_with_is_read_before_it_is_started() {
    let Some(image) = image() else { return };
    let out = tempfile::tempdir().unwrap();
    let at = |path: &str| out.path().join(path.trim_start_matches('/'));
    let offset = start_of(&image, "landfall-root-a").to_string();
    let mut wanted: Vec<String> =
        PROGRAMS.iter().map(|path| path.trim_start_matches('/').to_owned()).collect();
    for (folder, names) in LIBRARIES {
        wanted.extend(names.iter().map(|name| format!("{}/{name}*", folder.trim_start_matches('/'))));
    }
    let to = out.path().to_str().unwrap();
    let mut args = vec!["-q", "-n", "-f", "-o", &offset, "-d", to, image.to_str().unwrap()];
    args.extend(wanted.iter().map(String::as_str));
    let Some(done) = tool("unsquashfs", &args) else { return };
    assert!(done.status.success(), "{}", text(&done));
    let mut files: Vec<PathBuf> = PROGRAMS.iter().map(|path| at(path)).collect();
    for (folder, names) in LIBRARIES {
        let there: Vec<PathBuf> =
            std::fs::read_dir(at(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.extend(there.iter().filter(|path| path.is_file()).cloned());
        for name in *names {
            let is_there =
                there.iter().any(|path| path.file_name().unwrap().to_string_lossy().starts_with(name));
            assert!(is_there, "the image has no {folder}/{name}*");
        }
    }
    let mut linked = 0;
    for file in files {
        let Some(told) = tool("readelf", &["-d", file.to_str().unwrap()]) else { return };
        assert!(told.status.success(), "{}", text(&told));
        for line in text(&told).lines().filter(|line| line.contains("(NEEDED)")) {
            let name = line.split(['[', ']']).nth(1).unwrap();
            let is_read = LIBRARIES.iter().flat_map(|(_, names)| *names).any(|start| name.starts_with(start));
            assert!(is_read, "{} needs {name}", file.display());
            linked += 1;
        }
    }
    assert!(linked > 20, "{linked}");
}

/// Runs a tool, where it is there.
fn tool(program: &str, args: &[&str]) -> Option<Output> {
    let out = Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
    if out.is_err() {
        eprintln!("SKIPPED: the appliance: no {program} here");
    }
    out.ok()
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn independent_readers_agree_with_the_image_and_a_second_one_is_the_same() {
    let Some(image) = image() else { return };
    let path = image.to_str().unwrap();
    if let Some(out) = tool("sgdisk", &["-v", path]) {
        assert!(text(&out).contains("No problems found"), "{}", text(&out));
    }
    // The ESP, as mtools and fsck see it: the second partition, from 2 MiB on.
    let esp = folder().join("esp.fat");
    let cut = Command::new("dd")
        .args(["bs=1M", "skip=2", "count=64", "conv=sparse", "status=none"])
        .args([format!("if={path}"), format!("of={}", esp.display())])
        .status()
        .unwrap();
    assert!(cut.success());
    if let Some(out) = tool("fsck.fat", &["-n", esp.to_str().unwrap()]) {
        assert!(out.status.success(), "{}", text(&out));
    }
    if let Some(out) = tool("mdir", &["-/", "-b", "-i", esp.to_str().unwrap(), "::/"]) {
        let listed = text(&out);
        for file in ["EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "landfall/grub.cfg", "landfall/grubenv"]
        {
            assert!(listed.to_lowercase().contains(&file.to_lowercase()), "{file}: {listed}");
        }
    }
    if let Some(out) =
        tool("unsquashfs", &["-o", &start_of(&image, "landfall-root-a").to_string(), "-lls", path])
    {
        let listed = text(&out);
        let line = |name: &str| listed.lines().find(|line| line.ends_with(name)).map(str::to_owned);
        assert!(
            line("/usr/bin/landfall").is_some_and(|line| line.starts_with("-rwxr-xr-x root/root")),
            "{listed:.2000}"
        );
        assert!(line("/etc/shadow").is_some_and(|line| line.starts_with("-rw-------")));
        assert!(
            line("/usr/share/landfall/sbom.spdx.json").is_some()
                && line("/usr/share/doc/bash/copyright").is_some()
        );
        // The sandbox's and the proofs'; the shell is a link that no package makes.
        for program in ["bwrap", "qemu-system-x86_64", "qemu-img", "bash"] {
            let name = format!("/usr/bin/{program}");
            assert!(line(&name).is_some_and(|line| line.starts_with("-rwxr-xr-x")), "{name}");
        }
        assert!(line("/usr/bin/sh -> bash").is_some());
        // Nobody has a password, and nothing of a packager's is left to be run.
        assert!(line("/usr/bin/dpkg").is_none() && line("/usr/bin/perl").is_none());
    }
    let out = build(&["again.raw", "again.iso", "again.update"]);
    assert!(out.status.success(), "{}", text(&out));
    for ending in ["raw", "iso", "update"] {
        let (first, second) = (image.with_extension(ending), folder().join(format!("again.{ending}")));
        let (one, two) = (std::fs::read(first).unwrap(), std::fs::read(&second).unwrap());
        // By pieces: a debug build looks at single bytes for minutes.
        let differs = one.chunks(4096).zip(two.chunks(4096)).position(|(one, two)| one != two);
        assert!(
            differs.is_none() && one.len() == two.len(),
            "the second {ending} differs from page {differs:?} on"
        );
        let _ = std::fs::remove_file(second);
    }
}

/// The signature by OpenSSL, the digests by coreutils, and the same system as on the image.
#[test]
fn independent_readers_agree_with_the_update() {
    let Some(image) = image() else { return };
    let update = folder().join("landfall.update");
    let bytes = std::fs::read(&update).unwrap();
    assert!(bytes.starts_with(b"LANDFALL-UPDATE1"));
    let len = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
    let (head, rest) = bytes.split_at(20 + len);
    let manifest: serde_json::Value = serde_json::from_slice(&head[20..]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // A public key as RFC 8410 has it: a fixed beginning and the 32 bytes.
    let mut public = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    public.extend(std::fs::read(key().with_extension("pub")).unwrap());
    let (public, signed, signature) =
        (file("public.der", &public), file("head", head), file("signature", &rest[..64]));
    if let Some(out) = tool(
        "openssl",
        &[
            "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", &public, "-rawin", "-in", &signed,
            "-sigfile", &signature,
        ],
    ) {
        assert!(out.status.success(), "{}", text(&out));
    }
    let mut at = 64;
    for part in ["root", "boot"] {
        let size = usize::try_from(manifest[part]["size"].as_u64().unwrap()).unwrap();
        let content = &rest[at..at + size];
        at += size;
        let out = tool("sha256sum", &[&file(part, content)]).unwrap();
        assert!(text(&out).starts_with(manifest[part]["sha256"].as_str().unwrap()), "{part}: {}", text(&out));
    }
    assert_eq!(at, rest.len(), "something follows the update");
    for (part, place) in [("boot", "landfall-boot-a"), ("root", "landfall-root-a")] {
        let same = Command::new("cmp")
            .args([
                "-n",
                &manifest[part]["size"].to_string(),
                "-i",
                &format!("{}:0", start_of(&image, place)),
            ])
            .arg(&image)
            .arg(dir.path().join(part))
            .output()
            .unwrap();
        assert!(same.status.success(), "{part}: {}", text(&same));
    }
    // As libisofs reads it: the kernel is the root's own.
    let (boot, kernel) = (dir.path().join("boot"), dir.path().join("vmlinuz"));
    let boot = boot.to_str().unwrap();
    let whole = format!("{}", dir.path().join("root").display());
    let copied = tool(
        "xorriso",
        &["-osirrox", "on", "-indev", boot, "-extract", "/vmlinuz", kernel.to_str().unwrap()],
    );
    let list = tool("unsquashfs", &["-l", "-d", "", &whole, "boot"]);
    if let (Some(copied), Some(list)) = (copied, list) {
        assert!(copied.status.success(), "{}", text(&copied));
        let name = text(&list).lines().find(|line| line.starts_with("/boot/vmlinuz-")).map(str::to_owned);
        let name = name.expect("the root has a kernel");
        let own = tool("unsquashfs", &["-cat", &whole, &name]).unwrap();
        assert!(own.stdout == std::fs::read(&kernel).unwrap(), "{name}: another kernel");
    }
}
