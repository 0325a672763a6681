//! Clients of other makers on our server.

use super::*;
use crate::overlay::Overlay;
use crate::testing::{MemDisk, mixed, read_all};
use std::sync::Arc;

fn output(mut command: Command, args: &[&str]) -> String {
    let out = command.args(args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command:?}: {text} {}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Runs a script with libnbd's handle `h`; false, after a loud word, where there is no libnbd for Python.
pub(super) fn libnbd(path: &Path, script: &str) -> bool {
    // Debian's own interpreter has Debian's modules, whatever else is called python3.
    let python = || Command::new("/usr/bin/python3");
    if !python().args(["-c", "import nbd"]).output().is_ok_and(|out| out.status.success()) {
        eprintln!("SKIPPED: no libnbd for Python here (Debian: python3-libnbd)");
        return false;
    }
    std::fs::write(path, format!("import nbd\nh = nbd.NBD()\n{script}")).unwrap();
    output(python(), &[path.to_str().unwrap()]);
    true
}

fn overlay(size: u64) -> Arc<dyn DiskMut> {
    let scratch = tempfile::tempdir().unwrap();
    Arc::new(Overlay::new(Arc::new(MemDisk::new(Bytes(size))), scratch.path()).unwrap())
}

fn unix(dir: &Path) -> Listener {
    Listener::unix(&dir.join("socket with spaces?")).unwrap()
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    let Some(nbdinfo) = program("nbdinfo", "libnbd-bin") else { return };
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(mixed(1, Bytes(6 << 20)));
    let options = ServeOptions {
        export: "disk 1".into(),
        description: Some("the first disk".into()),
        ..ServeOptions::default()
    };
    served(Content::ReadOnly(disk), options, unix(dir.path()), |uri| {
        let text = output(nbdinfo, &[uri]);
        for says in [
            "protocol: newstyle-fixed without TLS, using structured packets",
            "export=\"disk 1\"",
            "description: the first disk",
            "export-size: 6291456",
            "base:allocation",
            "is_read_only: true",
            "can_multi_conn: true",
            "can_cache: true",
            "can_df: true",
            "block_size_maximum: 33554432",
        ] {
            assert!(text.contains(says), "{says}: {text}");
        }
        let list = output(program("nbdinfo", "").unwrap(), &["--list", uri]);
        assert!(list.contains("export=\"disk 1\""), "{list}");
        let totals = output(program("nbdinfo", "").unwrap(), &["--map", "--totals", uri]);
        assert!(totals.contains("hole,zero"), "{totals}");
    });
    assert!(!dir.path().join("socket with spaces?").exists(), "the socket goes with the server");
}

#[test]
fn nbdcopy_and_qemu_img_copy_a_disk_out() {
    let dir = tempfile::tempdir().unwrap();
    let source = mixed(2, Bytes((6 << 20) + 512));
    let whole = read_all(&source).unwrap();
    let disk = Arc::new(source);
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let total = served(Content::ReadOnly(disk), ServeOptions::default(), localhost(), |uri| {
        if let Some(nbdcopy) = program("nbdcopy", "libnbd-bin") {
            output(nbdcopy, &["--connections=4", "--requests=32", uri, &out("nbdcopy.raw")]);
            assert!(std::fs::read(out("nbdcopy.raw")).unwrap() == whole);
        }
        if let Some(qemu_img) = program("qemu-img", "qemu-utils") {
            output(qemu_img, &["convert", "-f", "raw", "-O", "raw", uri, &out("qemu.raw")]);
            let got = std::fs::read(out("qemu.raw")).unwrap();
            assert!(got == whole);
            let text = output(
                Command::new("qemu-img"),
                &["compare", "-f", "raw", "-F", "raw", uri, &out("qemu.raw")],
            );
            assert!(text.contains("identical"), "{text}");
            let map = output(Command::new("qemu-img"), &["map", "--output=json", "-f", "raw", uri]);
            assert!(map.contains("\"zero\": true"), "{map}");
        }
    });
    // Zeros are told of, not sent.
    assert!(total.read.0 <= 4 * whole.len() as u64, "{total:?}");
}

#[test]
fn nbdcopy_and_qemu_img_copy_a_disk_in() {
    let dir = tempfile::tempdir().unwrap();
    let source = mixed(3, Bytes(6 << 20));
    let whole = read_all(&source).unwrap();
    let raw = dir.path().join("in.raw");
    std::fs::write(&raw, &whole).unwrap();
    let raw = raw.to_str().unwrap();
    let copies: [(&str, &str, &[&str]); 2] = [
        ("nbdcopy", "libnbd-bin", &["--connections=4", "--destination-is-zero"]),
        ("qemu-img", "qemu-utils", &["convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8"]),
    ];
    for (name, package, args) in copies {
        let Some(command) = program(name, package) else { continue };
        let disk = overlay(6 << 20);
        served(Content::Writable(disk.clone()), ServeOptions::default(), unix(dir.path()), |uri| {
            let mut args = args.to_vec();
            args.extend([raw, uri]);
            output(command, &args);
        });
        assert!(read_all(&*disk).unwrap() == whole, "{name}");
    }
}

/// Commands one by one, as libnbd sends them, those that break rules included.
#[test]
fn libnbd_gets_every_command_answered() {
    let dir = tempfile::tempdir().unwrap();
    let disk = overlay(4 << 20);
    let script = r#"
h.add_meta_context("base:allocation")
h.connect_uri(uri)
assert h.get_structured_replies_negotiated()
assert h.can_fast_zero() and h.can_trim() and h.can_multi_conn() and h.can_cache() and h.can_flush()
h.set_strict_mode(0)
h.pwrite(b"a" * 65536, 65536)
h.zero(4096, 69632, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 65536, nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 77824)
h.cache(65536, 0)
h.flush()
data = h.pread(131072, 0)
assert data == b"\0" * (65536 + 4096 * 2) + b"a" * 4096 + b"\0" * 4096 + b"a" * (65536 - 4096 * 4)
assert h.pread(8, 73728, nbd.CMD_FLAG_DF) == b"a" * 8
extents = []
def f(context, offset, entries, error):
    extents.append(entries)
h.block_status(4 << 20, 0, f)
assert extents[0][:4] == [73728, 3, 4096, 0], extents
assert sum(extents[0][::2]) == 4 << 20
extents.clear()
h.block_status(4 << 20, 0, f, nbd.CMD_FLAG_REQ_ONE)
assert len(extents[0]) == 2 and extents[0][0] in (65536, 73728) and extents[0][1] == 3, extents
chunks = []
def g(data, offset, status, error):
    chunks.append((offset, len(data), status))
h.pread_structured(131072, 0, g)
assert (0, 73728, nbd.READ_HOLE) in chunks or (0, 0, nbd.READ_HOLE) in chunks or len(chunks) > 2, chunks
for bad in [lambda: h.pread(2, (4 << 20) - 1), lambda: h.pwrite(b"ab", (4 << 20) - 1),
            lambda: h.zero(2, (4 << 20) - 1), lambda: h.trim(2, (4 << 20) - 1),
            lambda: h.block_status(2, (4 << 20) - 1, f), lambda: h.cache(2, (4 << 20) - 1)]:
    try:
        bad()
    except nbd.Error as ex:
        assert ex.errno in ("EINVAL", "ENOSPC"), ex.errno
    else:
        raise AssertionError("was done")
h.pread(1, (4 << 20) - 1)
h.shutdown()
"#;
    let path = dir.path().join("script.py");
    served(Content::Writable(disk), ServeOptions::default(), localhost(), |uri| {
        libnbd(&path, &format!("uri = {uri:?}\n{script}"));
    });
}

#[test]
fn a_stop_hangs_up_and_once_ends_with_the_last_client() {
    let cancel = crate::convert::Cancel::default();
    let disk = Arc::new(MemDisk::new(Bytes(4096)));
    let options = ServeOptions { once: true, ..ServeOptions::default() };
    let server = Server::new(Content::ReadOnly(disk.clone()), options.clone()).unwrap();
    let listener = localhost();
    let uri = listener.uri(&options);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.run(&listener, &cancel));
        let client = super::client::connect(&uri).unwrap();
        client.read_at(GuestOffset(0), &mut [0; 512]).unwrap();
        drop(client);
        assert_eq!(running.join().unwrap().unwrap().requests, 1);
    });
    let server = Server::new(Content::ReadOnly(disk), ServeOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.run(&listener, &cancel));
        let client = super::client::connect(&uri).unwrap();
        cancel.cancel();
        running.join().unwrap().unwrap();
        assert_eq!(client.read_at(GuestOffset(0), &mut [0; 512]).unwrap_err().kind(), Kind::Io);
    });
    assert!(Listener::unix(Path::new("/nowhere/socket")).is_err());
}
