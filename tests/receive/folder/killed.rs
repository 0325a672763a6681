//! The process is killed at each call to the kernel that changes something: the drop is taken once, all of it.

use super::{Options, Yard, content, fs, program, vmx};
use landfall::receive::folder::Became;
use std::path::{Path, PathBuf};
use std::process::Command;

const CHILD: &str = "LANDFALL_TEST_YARD";
/// What changes files.
const CALLS: &str = "pwritev,write,rename,unlink,fsync,fdatasync,mkdir,fallocate,ftruncate";

/// Takes what lies there, in a process of its own. Does nothing unless it is told where.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let yard = Yard::open(&root, Options::default());
    // From here on the calls count.
    fs::write(root.join("begins"), "").unwrap();
    yard.finish();
    yard.scan();
}

fn two(round: u64) -> [Vec<u8>; 2] {
    [content(round)[..1 << 20].to_vec(), content(round + 10)[..300 << 10].to_vec()]
}

fn put(root: &Path, round: u64) {
    let folder = root.join("drops/web01");
    fs::create_dir_all(&folder).unwrap();
    let [a, b] = two(round);
    fs::write(folder.join("a.raw"), a).unwrap();
    fs::write(folder.join("b.raw"), b).unwrap();
    fs::write(folder.join("web01.vmx"), vmx("web01", &["a.raw", "b.raw"])).unwrap();
}

#[test]
fn a_drop_is_taken_once_wherever_the_process_is_killed() {
    let Some(mut strace) = program("strace", "strace") else { return };
    // Containers without the right to trace.
    if !strace.args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: strace may not trace here");
        return;
    }
    let mut killed = 0;
    let mut when = 1;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        {
            let yard = Yard::open(root, Options::default());
            put(root, 1);
            yard.taken();
        }
        put(root, 2);
        let inject = format!("inject={CALLS}:signal=KILL:when={when}");
        let status = Command::new("strace")
            .args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e", &inject])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "receive::folder::killed::child", "--test-threads=1"])
            .env(CHILD, root)
            .output()
            .unwrap()
            .status;
        let ended = status.success();
        killed += u32::from(root.join("begins").exists() && !ended);
        let yard = Yard::open(root, Options::default());
        for finished in yard.finish() {
            assert!(finished.error.is_none(), "call {when}: {finished:?}");
        }
        for outcome in yard.scan() {
            assert!(matches!(outcome.became, Became::Taken(_)), "call {when}: {outcome:?}");
        }
        let machine = yard.vault.machine(&"web01".parse().unwrap()).unwrap();
        let points = machine.points().unwrap();
        assert_eq!(points.len(), 2, "call {when}");
        for (round, point) in (1..).zip(&points) {
            for (disk, wanted) in ["scsi0-0", "scsi0-1"].iter().zip(two(round)) {
                assert!(
                    yard.at("web01", disk, point.sequence) == wanted,
                    "call {when}: {disk} at point {round}"
                );
            }
        }
        assert_eq!(fs::read_dir(root.join("drops/.done/web01")).unwrap().count(), 2, "call {when}");
        assert!(!root.join("drops/web01").exists() && yard.scan().is_empty());
        assert!(fs::read_dir(root.join("vault/incoming")).unwrap().next().is_none(), "call {when}");
        if ended {
            break;
        }
        when += 1;
    }
    assert!(killed > 5, "{killed}");
}
