use super::*;
use crate::create::{Base, CreateOptions};
use crate::formats::{Format, OpenOptions};
use crate::nbd::{Content, Listener, ServeOptions, Server};
use crate::testing::{
    Faults, FaultyDisk, FaultySink, MemDisk, Op, RecordingSink, mixed, noise_bytes, read_all,
};
use crate::{DiskMut, Kind, chain, formats, qcow2};
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const UNIT: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

fn over(base: impl Disk + 'static) -> Overlay {
    Overlay::new(Arc::new(base), &std::env::temp_dir()).unwrap()
}

fn bytes(len: u64) -> usize {
    usize::try_from(len).unwrap()
}

/// Disk size: a few units, the last of them cut in the middle of a block.
const SIZE: u64 = 9 * UNIT + 2 * 4096 + 512;

/// A base with data, holes that begin off every boundary, and zeros.
fn base() -> MemDisk {
    MemDisk::new(Bytes(SIZE))
        .data(0, noise_bytes(1, bytes(2 * UNIT + 1000)))
        .zero(3 * UNIT - 4096, UNIT)
        .data(6 * UNIT + 512, noise_bytes(2, bytes(UNIT)))
        .data(SIZE - 512, noise_bytes(3, 512))
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64, bool),
    Zero(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![1..64u64, 1..9000u64, 1..3 * UNIT];
    prop_oneof![
        (0..SIZE, len.clone(), any::<bool>()).prop_map(|(at, len, zeros)| Step::Write(
            at,
            len.min(SIZE - at),
            zeros
        )),
        (0..SIZE, len).prop_map(|(at, len)| Step::Zero(at, len.min(SIZE - at))),
        (0..9u64, 1..4u64)
            .prop_map(|(unit, units)| Step::Zero(unit * UNIT, (units * UNIT).min(SIZE - unit * UNIT))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever was written: the map has no gap, what is not stored is as the base has it, and what a sink is told makes the
    /// overlay's content out of the base's, in whole units.
    #[test]
    fn base_and_delta_make_the_overlay(steps in prop::collection::vec(step(), 0..12), unit in 12..18u32) {
        let unit = 1u64 << unit;
        let overlay = over(base());
        for step in &steps {
            match *step {
                Step::Write(at, len, zeros) => {
                    let data = if zeros { vec![0; bytes(len)] } else { noise_bytes(at, bytes(len)) };
                    overlay.write_at(GuestOffset(at), &data).unwrap();
                }
                Step::Zero(at, len) => overlay.zero_at(GuestRange::new(GuestOffset(at), Bytes(len))).unwrap(),
            }
        }
        let wanted = read_all(&overlay).unwrap();
        let below = read_all(&base()).unwrap();
        let delta = Delta::new(&overlay, Bytes(unit));
        let mut here = 0;
        while here < SIZE {
            let extents = delta.extents(range(here, SIZE), 3).unwrap();
            prop_assert!(!extents.is_empty() && extents.len() <= 3);
            for extent in extents {
                let (start, end) = (extent.range.start().0, extent.range.end().0);
                prop_assert!(start == here && end > start);
                prop_assert!(start % unit == 0 && (end % unit == 0 || end == SIZE), "{:?}", extent);
                let (now, before) = (&wanted[bytes(start)..bytes(end)], &below[bytes(start)..bytes(end)]);
                match extent.kind {
                    ExtentKind::Unallocated => prop_assert!(now == before, "{:?}", extent),
                    ExtentKind::Zero => prop_assert!(is_zero(now), "{:?}", extent),
                    ExtentKind::Data => {}
                }
                here = end;
            }
        }
        // From the middle of a unit, too.
        let part = delta.extents(range(unit / 2, SIZE), 1).unwrap();
        prop_assert_eq!(part[0].range.start().0, unit / 2);

        let (sink, recording) = RecordingSink::new(Bytes(unit), Bytes(SIZE));
        let finished = write(&overlay, Box::new(sink), &Cancel::default()).unwrap();
        recording.assert_complete(Bytes(SIZE));
        let stored = read_all(&recording.disk(Bytes(SIZE))).unwrap();
        let (mut made, mut data) = (below, 0);
        for op in recording.ops() {
            match op {
                Op::Data(run) => {
                    let run = bytes(run.start().0)..bytes(run.end().0);
                    data += run.len();
                    made[run.clone()].copy_from_slice(&stored[run]);
                }
                Op::Zero(run) => made[bytes(run.start().0)..bytes(run.end().0)].fill(0),
                Op::Keep(_) | Op::Finish => {}
            }
        }
        prop_assert!(made == wanted);
        prop_assert_eq!(finished.data, Bytes(data as u64));
    }
}

/// No more is told than was written, and zeros over zeros are nothing.
#[test]
fn only_what_was_written_is_told() {
    let overlay = over(
        MemDisk::new(Bytes(4 << 40))
            .data(0, noise_bytes(1, 4096))
            .data(1 << 40, noise_bytes(2, 200_000))
            .zero(2 << 40, MIB),
    );
    overlay.write_at(GuestOffset(UNIT + 77), b"in the middle of a unit").unwrap();
    overlay.write_at(GuestOffset(3 << 30), &[0; 3 << 16]).unwrap();
    // Zeros over data, from a unit to a unit and to the middle of one; over a hole; over both.
    overlay.zero_at(range(1 << 40, (1 << 40) + UNIT)).unwrap();
    overlay.zero_at(range(2 << 40, (2 << 40) + (1 << 30))).unwrap();
    overlay.zero_at(range((1 << 40) + 2 * UNIT, (1 << 40) + 20 * UNIT)).unwrap();
    overlay.write_at(GuestOffset((4 << 40) - 1), &[1]).unwrap();
    let (sink, recording) = RecordingSink::new(Bytes(UNIT), Bytes(4 << 40));
    write(&overlay, Box::new(sink), &Cancel::default()).unwrap();
    recording.assert_complete(Bytes(4 << 40));
    let told: Vec<Op> =
        recording.ops().into_iter().filter(|op| !matches!(op, Op::Keep(_) | Op::Finish)).collect();
    assert_eq!(
        told,
        [
            Op::Data(range(UNIT, 2 * UNIT)),
            // Written as zeros: the base is not asked.
            Op::Zero(range(3 << 30, (3 << 30) + 3 * UNIT)),
            Op::Zero(range(1 << 40, (1 << 40) + UNIT)),
            Op::Zero(range((1 << 40) + 2 * UNIT, (1 << 40) + 4 * UNIT)),
            Op::Data(range((4 << 40) - UNIT, 4 << 40)),
        ]
    );
}

#[test]
fn any_failure_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    for n in 0.. {
        let faults = Faults::at(n);
        let base = FaultyDisk { disk: mixed(1, Bytes(8 * MIB)), faults: faults.clone() };
        let overlay = over(base);
        let written = overlay
            .write_at(GuestOffset(12_345), &noise_bytes(7, 300_000))
            .and_then(|()| overlay.zero_at(range(3 * MIB, 4 * MIB)));
        let sink = qcow2::create(&path, Bytes(8 * MIB), &options("base.raw".into(), 8 * MIB)).unwrap();
        let sink = Box::new(FaultySink { sink, faults: faults.clone() });
        let result = written.and_then(|()| write(&overlay, sink, &Cancel::default()));
        if !faults.happened() {
            result.unwrap();
            assert!(path.exists() && n > 10);
            break;
        }
        assert_eq!(result.unwrap_err().kind(), Kind::Io);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "operation {n}");
    }
    let cancel = Cancel::default();
    cancel.cancel();
    let (sink, _) = RecordingSink::new(Bytes(UNIT), Bytes(UNIT));
    let overlay = over(MemDisk::new(Bytes(UNIT)));
    assert_eq!(write(&overlay, Box::new(sink), &cancel).unwrap_err().kind(), Kind::Interrupted);
}

fn options(path: std::path::PathBuf, size: u64) -> CreateOptions {
    let base = Base { path, format: Format::Raw, size: Bytes(size), identity: None };
    CreateOptions { base: Some(base), ..CreateOptions::default() }
}

fn run(folder: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(folder).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {said}");
    said
}

fn have_qemu_img(test: &str) -> bool {
    let is_there = Command::new("qemu-img").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("SKIPPED: {test}: qemu-img is not installed");
    }
    is_there
}

/// What it serves, read-only, on a socket in `folder`, while `work` runs.
fn served(disk: Arc<dyn Disk>, export: &str, folder: &Path, work: impl FnOnce()) {
    let options = ServeOptions { export: export.into(), ..ServeOptions::default() };
    let listener = Listener::unix(&folder.join("points.sock")).unwrap();
    let server = Server::new(Content::ReadOnly(disk), options).unwrap();
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.run(&listener, &cancel));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        cancel.cancel();
        serving.join().unwrap().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A qcow2 over an NBD export, by its URI and by QEMU's own notation: QEMU reads the overlay's content through both, and so
/// does this crate, which is given the export.
#[test]
fn qemu_reads_a_delta_over_an_export() {
    if !have_qemu_img("qemu_reads_a_delta_over_an_export") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let size = 20 * MIB + 512;
    let base = Arc::new(mixed(5, Bytes(size)));
    let overlay = Overlay::new(base.clone(), folder).unwrap();
    overlay.write_at(GuestOffset(UNIT + 77), &noise_bytes(1, 300_000)).unwrap();
    overlay.zero_at(range(3 * MIB, 4 * MIB)).unwrap();
    overlay.zero_at(range(10 * MIB, 12 * MIB)).unwrap();
    overlay.write_at(GuestOffset(size - 700), &[9; 700]).unwrap();
    let wanted = read_all(&overlay).unwrap();
    std::fs::write(folder.join("wanted.raw"), &wanted).unwrap();
    let socket = folder.join("points.sock");
    let socket = socket.to_str().unwrap();
    let by_uri = format!("nbd+unix:///web01/sda@1234?socket={socket}");
    let by_json = format!(
        r#"json:{{"driver":"raw","file":{{"driver":"nbd","server":{{"type":"unix","path":"{socket}"}},"export":"web01/sda@1234","reconnect-delay":10}}}}"#
    );
    for backing in [&by_uri, &by_json] {
        let path = folder.join("a.qcow2");
        let sink = qcow2::create(&path, Bytes(size), &options(backing.into(), size)).unwrap();
        let finished = write(&overlay, sink, &Cancel::default()).unwrap();
        assert!(finished.data.0 < 8 * UNIT, "{finished:?}");
        served(base.clone(), "web01/sda@1234", folder, || {
            let check = run(folder, "qemu-img", &["check", "-f", "qcow2", "a.qcow2"]);
            assert!(check.contains("No errors"), "{check}");
            let info = run(folder, "qemu-img", &["info", "--output=json", "a.qcow2"]);
            let info: serde_json::Value = serde_json::from_str(&info).unwrap();
            assert_eq!(info["backing-filename-format"], "raw", "{info:#}");
            assert_eq!(info["full-backing-filename"].as_str(), Some(backing.as_str()), "{info:#}");
            let compare = ["compare", "-f", "raw", "-F", "qcow2", "wanted.raw", "a.qcow2"];
            assert!(run(folder, "qemu-img", &compare).contains("identical"));
            let map = run(folder, "qemu-img", &["map", "--output=json", "a.qcow2"]);
            let map: serde_json::Value = serde_json::from_str(&map).unwrap();
            let own = |entry: &&serde_json::Value| entry["depth"] == 0;
            let own: u64 =
                map.as_array().unwrap().iter().filter(own).filter_map(|entry| entry["length"].as_u64()).sum();
            // Data, and the zeros that hide data; the last cluster ends with the disk.
            assert!(own <= finished.data.0 + MIB, "{own}: {map:#}");
        });
        let error = formats::open(&path, &OpenOptions::default()).err().unwrap();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        let alone = formats::open(&path, &OpenOptions { alone: true, ..OpenOptions::default() }).unwrap();
        assert!(alone.disk.extents(range(0, size), 1).unwrap()[0].kind == ExtentKind::Unallocated);
        let parent = formats::Image { disk: base.clone(), layers: Vec::new() };
        let all = read_all(&*chain::over(alone, parent).disk).unwrap();
        assert!(all[..bytes(size)] == wanted);
        std::fs::remove_file(path).unwrap();
    }
}

/// Tables and time for what was written, not for the disk: QEMU's check of 8 TiB finds a few clusters.
#[test]
fn a_delta_of_a_huge_disk_is_small() {
    if !have_qemu_img("a_delta_of_a_huge_disk_is_small") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let size = 8u64 << 40;
    let faults = Faults::never();
    let base =
        FaultyDisk { disk: MemDisk::new(Bytes(size)).data(0, noise_bytes(1, 8192)), faults: faults.clone() };
    let overlay = over(base);
    for n in 0..64 {
        overlay.write_at(GuestOffset(n * (size / 64) + 12_345), &noise_bytes(n, 5000)).unwrap();
    }
    let path = dir.path().join("a.qcow2");
    let sink = qcow2::create(&path, Bytes(size), &options("base.raw".into(), size)).unwrap();
    let before = faults.count();
    let finished = write(&overlay, sink, &Cancel::default()).unwrap();
    assert_eq!(finished.data, Bytes(64 * UNIT));
    // A unit that was written in part is read around that, and nothing else is.
    assert!(faults.count() - before <= 3 * 64, "{} operations", faults.count() - before);
    // A table for each, since they lie far apart.
    assert!(finished.receipt.allocated.0 <= 64 * 2 * UNIT + MIB, "{:?}", finished.receipt);
    std::fs::File::create(dir.path().join("base.raw")).unwrap().set_len(size).unwrap();
    let check = run(dir.path(), "qemu-img", &["check", "-f", "qcow2", "a.qcow2"]);
    assert!(check.contains("No errors") && check.contains("64/134217728"), "{check}");
}
