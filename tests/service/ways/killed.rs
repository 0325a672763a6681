//! The service, or whoever sends, is killed in the middle.

use super::*;

/// A stream with so much data that it cannot be taken at once.
fn large(
    ceph: &crate::receive::rbd::Site,
    dir: &Path,
    len: u64,
) -> (std::path::PathBuf, std::path::PathBuf, Vec<u8>, Vec<u8>) {
    use landfall::vault::journal::{DiskInfo, Mark};
    use landfall_image::{DiskMut, GuestOffset};
    let machine = ceph.machine();
    machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: len, sector: 512 }).unwrap();
    let live = machine.live("sda").unwrap();
    let fill = |seed: u64| {
        let content = noise(seed, usize::try_from(len).unwrap());
        content
            .chunks(1 << 20)
            .enumerate()
            .for_each(|(at, piece)| live.write_at(GuestOffset((at as u64) << 20), piece).unwrap());
        (machine.checkpoint(seed, &Mark::default()).unwrap(), content)
    };
    let ((one, before), (two, after)) = (fill(1), fill(2));
    let first = exported(ceph, dir, None, (one, "s0"), Version::V1);
    let second = exported(ceph, dir, Some((one, "s0")), (two, "s1"), Version::V1);
    (first, second, before, after)
}

/// An upload that is cut off leaves nothing, whichever side was killed; sent again, it is taken.
#[test]
fn an_upload_that_is_cut_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ceph = crate::receive::rbd::Site::new();
    let (first, second, _, _) = large(&ceph, dir.path(), 8 << 20);
    let mut site = Site::new(ROOM);
    site.start();
    site.verb(&["receive", "rbd", "web01/sda", text(&first)]);
    let points = site.points_of("web01");
    let stream = std::fs::read(&second).unwrap();
    let half = |site: &Site| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
        command.env("LANDFALL_SERVICE", site.path("sockets/api.sock")).args([
            "receive",
            "rbd",
            "web01/sda",
            "-",
        ]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&stream[..stream.len() / 2]).unwrap();
        site.until("half of an upload", || {
            let len = |name: String| {
                std::fs::metadata(site.path("vault/incoming").join(name)).map_or(0, |meta| meta.len())
            };
            site.left().into_iter().filter(|name| name.ends_with(".data")).any(|name| len(name) > 1 << 20)
        });
        (child, stdin)
    };
    // Whoever sends is killed.
    let (mut child, stdin) = half(&site);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    site.until("the rest of an upload to go", || site.left().is_empty());
    // The service is killed.
    let (mut child, mut stdin) = half(&site);
    site.kill();
    // It may have noticed already.
    let _ = stdin.write_all(&stream[stream.len() / 2..]);
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    site.start();
    assert!(site.left().is_empty(), "{:?}", site.left());
    assert_eq!(site.points_of("web01"), points);
    site.verb(&["receive", "rbd", "web01/sda", text(&second)]);
    assert_eq!(site.points_of("web01").len(), 2);
}

/// The service is killed while a delta is on the disks in part: the point before stays, and after the start the delta is in the vault as a
/// whole.
#[test]
fn a_delta_that_is_cut_off_is_finished_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let ceph = crate::receive::rbd::Site::new();
    let (first, second, before, after) = large(&ceph, dir.path(), 48 << 20);
    let mut site = Site::new(&format!("[protect]\ncheckpoint = \"1s\"\n{ROOM}"));
    site.start();
    site.verb(&["receive", "rbd", "web01/sda", text(&first)]);
    let points = site.points_of("web01");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
    command.env("LANDFALL_SERVICE", site.path("sockets/api.sock")).args([
        "receive",
        "rbd",
        "web01/sda",
        text(&second),
    ]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let batch = |site: &Site| site.left().iter().any(|name| name.ends_with(".batch"));
    let begin = Instant::now();
    while !batch(&site) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", site.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    site.kill();
    assert!(batch(&site), "it was not in the middle");
    {
        // Half of it is on the disk, and nothing is offered of that.
        let vault = site.vault();
        let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
        let there: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
        assert_eq!(there, points);
        assert!(of_point(&machine.at(points[0]).unwrap(), "sda") == before);
    }
    site.start();
    // Whoever sent it hears that it is not known, or that it is done; not that it failed for good.
    let told = child.wait_with_output().unwrap();
    assert!([Some(0), Some(2)].contains(&told.status.code()), "{}", err(&told));
    site.until("the rest of it", || site.log().contains("was cut off, and is in the vault now"));
    assert!(site.left().is_empty(), "{:?}", site.left());
    assert_eq!(site.points_of("web01").len(), 2);
    let status = site.document(&["status", "web01"]);
    assert_eq!(status["machine"]["disks"][0]["delta"]["source"], "s1", "{status}");
    assert!(!site.has_alarm("delta-cut-off"));
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let newest = machine.points().unwrap().last().unwrap().sequence;
    assert!(of_point(&machine.at(newest).unwrap(), "sda") == after);
    assert!(of_point(&machine.at(points[0]).unwrap(), "sda") == before);
}
