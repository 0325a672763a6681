//! The matcher against libselinux, and the labels of a plan.

use super::*;
use crate::family::Scene;
use crate::guest::Mount;
use crate::patch::PatchPlan;
use crate::tree::mem::MemTree;
use crate::volume::VolumeId;
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;

/// Lines in the manner of the targeted policy: ordered from general to special, as its tools do it.
const POLICY: &str = "\
/.*\tsystem_u:object_r:default_t:s0
/[^/]+\t--\tsystem_u:object_r:etc_runtime_t:s0
/a?quota\\.(user|group)\t--\tsystem_u:object_r:quota_db_t:s0
/etc/.*\tsystem_u:object_r:etc_t:s0
/boot/.*\tsystem_u:object_r:boot_t:s0
/tmp/.*\t<<none>>
/usr/.*\tsystem_u:object_r:usr_t:s0
/usr/lib/.*\tsystem_u:object_r:lib_t:s0
/usr/(.*/)?sbin(/.*)?\tsystem_u:object_r:bin_t:s0
/etc/systemd/system(/.*)?\tsystem_u:object_r:systemd_unit_file_t:s0
/usr/lib/systemd/system(/.*)?\tsystem_u:object_r:systemd_unit_file_t:s0
/etc/modprobe\\.d(/.*)?\tsystem_u:object_r:modules_conf_t:s0
/etc/(lvm|lvm2)(/.*)?\t-d\tsystem_u:object_r:lvm_etc_t:s0
/etc/lvm/.*\t--\tsystem_u:object_r:lvm_etc_t:s0
/etc/rc\\d?\\.d(/.*)?\tsystem_u:object_r:rc_t:s0
/dev/[shmxv]d[^/]*\t-b\tsystem_u:object_r:fixed_disk_device_t:s0
/etc\t-d\tsystem_u:object_r:etc_t:s0
/etc/fstab\\.REVOKE\t--\tsystem_u:object_r:device_t:s0
/etc/resolv\\.conf\tsystem_u:object_r:net_conf_t:s0
/etc/network[0-9]+|/x\tsystem_u:object_r:net_conf_t:s0

# a comment
/etc/alone
";

const LOCAL: &str = "/etc/dracut\\.conf\\.d(/.*)?\tsystem_u:object_r:mine_t:s0\n";
const SUBS_DIST: &str = "/lib /usr/lib\n/sbin /usr/sbin\n/var/run /run\n";
const SUBS: &str = "/srv/etc /etc\n/root2 /\n";

const PATHS: &[&str] = &[
    "/.autorelabel",
    "/aquota.user",
    "/quota.group",
    "/etc",
    "/etc/dracut.conf.d",
    "/etc/dracut.conf.d/90-landfall.conf",
    "/etc/dracutxconf.d/x",
    "/etc/lvm",
    "/etc/lvm/devices",
    "/etc/lvm/lvmlocal.conf",
    "/etc/lvm2/a",
    "/etc/modprobe.d/landfall.conf",
    "/etc/modprobexd/landfall.conf",
    "/etc/multipath/conf.d/landfall.conf",
    "/etc/network17",
    "/etc/rc2.d/S01x",
    "/etc/rc.d/x",
    "/etc/resolv.conf",
    "/etc/systemd/system/vmware-tools.service",
    "/etc/udev/rules.d/70-landfall-net.rules",
    "/boot/grub2/x",
    "/lib/systemd/system/a.service",
    "/usr/lib/systemd/system/a.service",
    "/usr/local/sbin/a",
    "/sbin/a",
    "/srv/etc/resolv.conf",
    "/root2/etc/resolv.conf",
    "/root2",
    "/tmp/a",
    "/x",
    "/xy",
];

/// With `st_mode` as the tool takes it: in decimal digits.
fn kinds() -> [(Kind, &'static str); 3] {
    [(Kind::File, "32768"), (Kind::Folder, "16384"), (Kind::Link, "40960")]
}

/// What libselinux says; `None` where the tool says nothing.
fn ask(tool: &Path, file: &Path, path: &str, mode: &str) -> Option<String> {
    let out = Command::new(tool)
        .args(["-r", "-b", "file", "-k", path, "-t", mode, "-f"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.trim().strip_prefix("Default context: ").map(str::to_owned)
}

fn context(found: Found) -> Option<String> {
    match found {
        Found::Context(context) => Some(context),
        Found::Nothing => None,
        Found::Unknown => panic!("the expression could not be compiled"),
    }
}

#[test]
fn libselinux_agrees() {
    let contexts = Contexts::parse(&format!("{POLICY}\n{LOCAL}"), SUBS_DIST, SUBS).unwrap();
    let of = |path: &str, kind| context(contexts.find(path, kind));
    let is = |name: &str| Some(format!("system_u:object_r:{name}:s0"));
    assert_eq!(of("/etc/dracut.conf.d/90-landfall.conf", Kind::File), is("mine_t"));
    assert_eq!(of("/lib/systemd/system/a.service", Kind::File), is("systemd_unit_file_t"));
    assert_eq!(of("/etc/lvm", Kind::Folder), is("lvm_etc_t"));
    assert_eq!(of("/etc/lvm", Kind::File), is("etc_t"));
    assert_eq!(of("/tmp/a", Kind::File), None);
    let Some(tool) = crate::testing::tool("selabel_lookup") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file_contexts");
    for (end, text) in [("", POLICY), (".local", LOCAL), (".subs_dist", SUBS_DIST), (".subs", SUBS)] {
        // What is no line stops libselinux, and is skipped here.
        let text = text.replace("/etc/alone\n", "");
        std::fs::write(folder.path().join(format!("file_contexts{end}")), text).unwrap();
    }
    for path in PATHS {
        for (kind, mode) in kinds() {
            assert_eq!(of(path, kind), ask(&tool, &file, path, mode), "{path} {kind:?}");
        }
    }
}

/// A whole policy: Debian's, as its package manager builds it (`tools/make-trees.sh`).
#[test]
fn libselinux_agrees_on_a_real_policy() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/guests/selinux-bookworm/etc/selinux/default/contexts/files");
    let file = folder.join("file_contexts");
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("SKIPPED: no {}; tools/make-trees.sh makes it", file.display());
        return;
    };
    let Some(tool) = crate::testing::tool("selabel_lookup") else { return };
    let more = |end: &str| std::fs::read_to_string(format!("{}.{end}", file.display())).unwrap_or_default();
    let text = format!("{text}\n{}\n{}", more("homedirs"), more("local"));
    let contexts = Contexts::parse(&text, &more("subs_dist"), &more("subs")).unwrap();
    let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_owned()).collect();
    // Paths that lines of the policy mean: their fixed beginnings, and something below.
    for line in text.lines().filter(|line| line.starts_with('/')).step_by(97) {
        let fixed = line.split(['(', '[', '.', '*', '\t', ' ', '\\', '?', '+']).next().unwrap();
        paths.extend([fixed.trim_end_matches('/').to_owned(), format!("{fixed}/landfall")]);
    }
    paths.retain(|path| path.starts_with('/') && !path.contains("//"));
    let mut compared = 0;
    for path in &paths {
        for (kind, mode) in kinds() {
            // The tool takes a context of nothing for none.
            assert_eq!(context(contexts.find(path, kind)), ask(&tool, &file, path, mode), "{path} {kind:?}");
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared}");
}

fn run(tree: &MemTree, change: impl FnOnce(&mut Draft<'_>)) -> PatchPlan {
    let mounts = [Mount {
        at: "/boot/efi".into(),
        volume: VolumeId("disk0p1".into()),
        file_system: "vfat".into(),
        subvolume: None,
        spec: None,
    }];
    let scene = Scene { tree, volumes: &[], mounts: &mounts };
    let mut draft = Draft::new(&scene);
    change(&mut draft);
    plan(&mut draft).unwrap();
    draft.finish()
}

fn guest(config: &str) -> MemTree {
    MemTree::new()
        .file("/etc/selinux/config", config)
        .file("/etc/selinux/targeted/contexts/files/file_contexts", POLICY)
        .file("/etc/selinux/targeted/contexts/files/file_contexts.subs_dist", SUBS_DIST)
        .file("/etc/fstab", "old")
        .symlink("/etc/dangling.conf", "modprobe.d/real.conf")
        .symlink("/lib", "usr/lib")
        .symlink("/lib64", "lib")
        .dir("/usr/lib/systemd")
        .dir("/boot/efi/EFI")
}

fn labels(plan: &PatchPlan) -> Vec<String> {
    let labels = plan.edits.iter().flat_map(|edit| &edit.labels);
    labels.map(|label| format!("{} {}", label.path, label.context)).collect()
}

const ENFORCING: &str = "SELINUX=enforcing\nSELINUXTYPE=targeted\n";

#[test]
fn only_what_is_new_gets_a_label() {
    let change = |draft: &mut Draft<'_>| {
        draft.write("/etc/fstab", "new", "").unwrap();
        draft.write("/etc/multipath/conf.d/landfall.conf", "x", "").unwrap();
        draft.write("/etc/multipath/conf.d/other.conf", "x", "").unwrap();
        draft.write("/lib/systemd/system/a.service", "x", "").unwrap();
        draft.write("/etc/dangling.conf", "x", "").unwrap();
        draft.write("/boot/efi/EFI/x.efi", "x", "").unwrap();
        draft.symlink("/etc/systemd/system/vmtoolsd.service", "/dev/null", "").unwrap();
        // It takes the place of another link, whose label goes with it.
        draft.symlink("/lib64", "usr/lib64", "").unwrap();
        draft.remove("/etc/fstab", "").unwrap();
    };
    let plan = run(&guest(ENFORCING), change);
    assert_eq!(
        labels(&plan),
        [
            "/etc/multipath system_u:object_r:etc_t:s0",
            "/etc/multipath/conf.d system_u:object_r:etc_t:s0",
            "/etc/multipath/conf.d/landfall.conf system_u:object_r:etc_t:s0",
            "/etc/multipath/conf.d/other.conf system_u:object_r:etc_t:s0",
            "/usr/lib/systemd/system system_u:object_r:systemd_unit_file_t:s0",
            "/usr/lib/systemd/system/a.service system_u:object_r:systemd_unit_file_t:s0",
            "/etc/modprobe.d system_u:object_r:modules_conf_t:s0",
            "/etc/modprobe.d/real.conf system_u:object_r:modules_conf_t:s0",
            "/etc/systemd system_u:object_r:etc_t:s0",
            "/etc/systemd/system system_u:object_r:systemd_unit_file_t:s0",
            "/etc/systemd/system/vmtoolsd.service system_u:object_r:systemd_unit_file_t:s0",
            "/lib64 system_u:object_r:default_t:s0",
        ]
    );
    assert!(plan.findings.is_empty());
    for off in ["SELINUX=disabled\n", "SELINUXTYPE=targeted\n", "#SELINUX=enforcing\n"] {
        assert!(labels(&run(&guest(off), change)).is_empty(), "{off}");
    }
}

#[test]
fn without_contexts_everything_is_labelled_at_the_next_start() {
    let change = |draft: &mut Draft<'_>| draft.write("/etc/new", "x", "").unwrap();
    for config in ["SELINUX=enforcing\nSELINUXTYPE=mls\n", "SELINUX=Enforcing\nSELINUXTYPE=../x\n"] {
        let plan = run(&guest(config), change);
        assert!(labels(&plan).is_empty());
        assert_eq!(plan.edits.last().unwrap().path, "/.autorelabel");
        assert_eq!(plan.findings[0].id, "linux-selinux-relabel");
    }
    // Nothing new, or nothing enforced: nothing to relabel.
    let edit = |draft: &mut Draft<'_>| draft.write("/etc/fstab", "new", "").unwrap();
    assert_eq!(run(&guest("SELINUX=enforcing\nSELINUXTYPE=mls\n"), edit).edits.len(), 1);
    assert_eq!(run(&guest("SELINUX=permissive\nSELINUXTYPE=mls\n"), change).edits.len(), 1);
}

#[test]
fn what_cannot_be_compiled_is_unknown_and_costs_little() {
    let unknown = |expression: &str| {
        let text = format!("/.*\tgeneral\n{expression}\tspecial\n");
        Contexts::parse(&text, "", "").unwrap().find("/etc/x", Kind::File)
    };
    assert_eq!(unknown("/etc/(?!y)x"), Found::Unknown);
    assert_eq!(unknown("/etc/((x{1,999}){1,999}){1,999}"), Found::Unknown);
    assert_eq!(unknown(&format!("/etc/{}", "(x|y)".repeat(4096))), Found::Unknown);
    assert_eq!(unknown("/usr/(?!y)x"), Found::Context("general".into()));
    // A flood of lines that all could fit ends at the bound.
    let flood: String = (0..LINES).map(|n| format!("/etc/(x|{n})y+\tc\n")).collect();
    let contexts = Contexts::parse(&flood, "", "").unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(contexts.find("/etc/x", Kind::File), Found::Unknown);
    assert!(begin.elapsed().as_secs() < 20);
    assert!(Contexts::parse(&"/x y\n".repeat(LINES * 2), "", "").is_none());
}

const LINES: usize = 60_000;

proptest! {
    #[test]
    fn no_policy_panics(text in "(/etc|/x|[(|)*?.\\\\\\[{^$+\\]]|\t|--|-d|<<none>>|\n|é){0,40}", path in "/[a-zé/]{0,12}") {
        if let Some(contexts) = Contexts::parse(&text, &text, &text) {
            contexts.find(&path, Kind::File);
        }
    }
    /// Wherever an expression fits, its fixed beginning is the path's: leaving out what does not begin so loses nothing.
    #[test]
    fn the_beginning_is_no_guess(text in "/(etc|e|x|\\.|\\\\\\.|\\(a\\|b\\)|[a-c?*+.|{}1,]){0,8}", path in "/[a-cetx.]{0,6}") {
        if let Ok(regex) = regex::Regex::new(&format!("^(?:{text})$")) && regex.is_match(&path) {
            let all = Contexts::parse(&format!("{text}\tfound\n"), "", "").unwrap();
            let anchored = regex::Regex::new(&format!("^{text}$")).unwrap().is_match(&path);
            prop_assert_eq!(all.find(&path, Kind::File) == Found::Context("found".into()), anchored);
        }
    }
}
