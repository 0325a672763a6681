//! The client and the sink, with servers of other makers and our own.

use super::*;
use crate::convert::{self, Options};
use crate::create::{Compression, CreateOptions};
use crate::location::Location;
use crate::testing::{MemDisk, mixed, noise_bytes, read_all};
use crate::{Bytes, OpenOptions};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server of another maker that is ended with the test.
pub(super) struct Other {
    child: Child,
    pub uri: String,
    _dir: tempfile::TempDir,
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Other {
    /// `args` come after those that name the socket.
    pub(super) fn start(mut command: Command, socket_arg: &str, args: &[&str], export: &str) -> Other {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let child = command.arg(socket_arg).arg(&socket).args(args).spawn().unwrap();
        let give_up = Instant::now() + Duration::from_secs(20);
        while !socket.exists() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(10));
        }
        Other { child, uri: format!("nbd+unix:///{export}?socket={}", socket.display()), _dir: dir }
    }

    fn nbdkit(args: &[&str]) -> Option<Other> {
        let mut command = program("nbdkit", "nbdkit")?;
        command.arg("-f");
        Some(Other::start(command, "-U", args, ""))
    }

    fn qemu_nbd(args: &[&str]) -> Option<Other> {
        let mut command = program("qemu-nbd", "qemu-utils")?;
        command.arg("-t");
        Some(Other::start(command, "-k", args, "x"))
    }
}

pub(super) fn connect(uri: &str) -> Result<Client> {
    Client::connect(&Uri::parse(uri).unwrap(), &ClientOptions::default())
}

fn write_raw(dir: &std::path::Path, disk: &MemDisk) -> PathBuf {
    let path = dir.join("disk.raw");
    std::fs::write(&path, read_all(disk).unwrap()).unwrap();
    path
}

/// Every way in which a disk is read: whole and parallel, by its map, and in odd pieces.
fn assert_reads(client: &Client, disk: &MemDisk) {
    let options = Options { jobs: 4, ..Options::default() };
    let compared = convert::compare(disk, client, &options).unwrap();
    assert!(compared.is_identical(), "{compared:?}");
    let whole = read_all(disk).unwrap();
    for (at, len) in [(0, 1), (1, 511), (511, 2), (4095, 8194), (1 << 20, 3), (whole.len() - 1, 1)] {
        let mut piece = vec![0xaa; len];
        client.read_at(GuestOffset(at as u64), &mut piece).unwrap();
        assert!(piece == whole[at..at + len], "{at} + {len}");
    }
    assert!(client.read_at(GuestOffset(whole.len() as u64), &mut [0]).is_err());
    assert!(client.extents(GuestRange::new(client_end(client), Bytes(1)), 1).unwrap().is_empty());
}

fn client_end(client: &Client) -> GuestOffset {
    GuestOffset(client.size().0)
}

#[test]
fn other_servers_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let disk = mixed(1, Bytes(6 << 20));
    let raw = write_raw(dir.path(), &disk);
    let raw = raw.to_str().unwrap();
    let mut servers = vec![
        ("qemu-nbd", Other::qemu_nbd(&["-r", "-x", "x", "-f", "raw", "-e", "8", raw])),
        // It announces several connections and takes one at a time.
        ("qemu-nbd -e 1", Other::qemu_nbd(&["-r", "-x", "x", "-f", "raw", raw])),
        ("nbdkit", Other::nbdkit(&["-r", "file", raw])),
        ("nbdkit without structured replies", Other::nbdkit(&["--no-sr", "-r", "file", raw])),
        ("nbdkit, one at a time", Other::nbdkit(&["--filter=noparallel", "-r", "file", raw])),
        (
            "nbdkit, blocks of 4096, small requests",
            Other::nbdkit(&[
                "--filter=blocksize-policy",
                "file",
                raw,
                "blocksize-error-policy=error",
                "blocksize-minimum=4096",
                "blocksize-preferred=4096",
                "blocksize-maximum=65536",
            ]),
        ),
    ];
    for (name, server) in servers.drain(..) {
        let Some(server) = server else { continue };
        eprintln!("{name}");
        assert_reads(&connect(&server.uri).unwrap(), &disk);
    }
}

#[test]
fn an_empty_disk_of_many_tebibytes_costs_few_requests() {
    let Some(server) = Other::nbdkit(&["memory", "16T"]) else { return };
    let client = connect(&server.uri).unwrap();
    let mut here = GuestOffset(0);
    let mut requests = 0u64;
    while here < client_end(&client) {
        let extents = client.extents(GuestRange::between(here, client_end(&client)), 64).unwrap();
        assert!(extents.iter().all(|extent| extent.kind == ExtentKind::Zero));
        here = extents.last().unwrap().range.end();
        requests += 1;
    }
    assert!(requests <= (16 << 40) / (4 << 30) + 1, "{requests}");
}

#[test]
fn disks_are_written_to_other_servers() {
    for (name, server) in [
        ("memory", Other::nbdkit(&["memory", "8M"])),
        ("no zeroes", Other::nbdkit(&["--filter=nozero", "memory", "8M"])),
        ("no extents, no zeroes", Other::nbdkit(&["--filter=nozero", "--filter=noextents", "memory", "8M"])),
        (
            "blocks of 4096",
            Other::nbdkit(&[
                "--filter=blocksize-policy",
                "memory",
                "8M",
                "blocksize-error-policy=error",
                "blocksize-minimum=4096",
                "blocksize-preferred=4096",
                "blocksize-maximum=1M",
            ]),
        ),
    ] {
        let Some(server) = server else { continue };
        let location = Location::of(server.uri.as_ref()).unwrap();
        // What is there must go, what lies behind the disk must stay.
        connect(&server.uri).unwrap().write_at(GuestOffset(0), &noise_bytes(7, 8 << 20)).unwrap();
        for (seed, size) in [(1, (7 << 20) + 512), (2, 6 << 20)] {
            let disk = mixed(seed, Bytes(size));
            let kind = crate::formats::kind("raw").unwrap();
            let sink = location
                .create(kind, disk.size(), &CreateOptions::default(), &ClientOptions::default())
                .unwrap();
            let done = convert::convert(&disk, sink, &Options { jobs: 3, ..Options::default() }).unwrap();
            assert_eq!(done.receipt.files, [PathBuf::from(&server.uri)], "{name}");
            let client = connect(&server.uri).unwrap();
            let mut back = vec![0; usize::try_from(size).unwrap()];
            client.read_at(GuestOffset(0), &mut back).unwrap();
            assert!(back == read_all(&disk).unwrap(), "{name}");
            let mut behind = vec![0; (8 << 20) - usize::try_from(7 << 20).unwrap() - 512];
            client.read_at(GuestOffset((7 << 20) + 512), &mut behind).unwrap();
            assert!(
                behind == noise_bytes(7, 8 << 20)[(7 << 20) + 512..],
                "{name}: what lies behind the disk"
            );
        }
    }
}

#[test]
fn a_target_that_cannot_hold_the_disk_is_refused_before_anything_is_written() {
    let disk: Arc<dyn DiskMut> = Arc::new(Memory::new(4096));
    let kind = crate::formats::kind("raw").unwrap();
    let client = ClientOptions::default();
    let refused = |uri: &str, kind, size, options: &CreateOptions, says: &str| {
        let location = Location::of(uri.as_ref()).unwrap();
        let error = location.create(kind, Bytes(size), options, &client).err().expect(says);
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.hint_text().is_some());
    };
    served(Content::Writable(disk.clone()), ServeOptions::default(), localhost(), |uri| {
        refused(uri, kind, 4097, &CreateOptions::default(), "has 4096 bytes; the disk needs 4097");
        let zlib = CreateOptions { compression: Some(Compression::Zlib), ..Default::default() };
        refused(uri, kind, 4096, &zlib, "cannot be compressed");
        let qcow2 = crate::formats::kind("qcow2").unwrap();
        refused(uri, qcow2, 4096, &CreateOptions::default(), "an NBD export is a disk");
    });
    served(Content::ReadOnly(disk), ServeOptions::default(), localhost(), |uri| {
        refused(uri, kind, 4096, &CreateOptions::default(), "takes no writes");
    });
}

#[test]
fn an_export_is_raw_and_an_image_in_one_is_not_read_by_mistake() {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    let disk = Arc::new(Memory::of(bytes));
    served(Content::ReadOnly(disk), ServeOptions::default(), localhost(), |uri| {
        let location = Location::of(uri.as_ref()).unwrap();
        let open = |format| {
            location.open(&OpenOptions { format, ..OpenOptions::default() }, &ClientOptions::default())
        };
        let error = open(None).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.says().contains("qcow2"), "{error}");
        assert_eq!(open(Some(crate::Format::Qcow2)).err().unwrap().kind(), Kind::Unsupported);
        let image = open(Some(crate::Format::Raw)).unwrap();
        assert_eq!(image.disk.size(), Bytes(4096));
        assert_eq!(image.layers[0].path, PathBuf::from(uri));
    });
}

#[test]
fn errors_name_the_export_the_offset_and_what_the_server_said() {
    let disk = Arc::new(Memory::new(1 << 20));
    served(Content::Writable(disk.clone()), ServeOptions::default(), localhost(), |uri| {
        let client = connect(uri).unwrap();
        disk.broken.store(true, Ordering::Relaxed);
        let error = client.read_at(GuestOffset(4096), &mut [0; 512]).unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        let text = error.to_string();
        assert!(
            text.contains(uri) && text.contains("0x1000") && text.contains("cannot reach the disk"),
            "{text}"
        );
        assert_eq!(client.write_at(GuestOffset(0), &[0; 512]).unwrap_err().kind(), Kind::Io);
        // The connection outlives it.
        disk.broken.store(false, Ordering::Relaxed);
        client.read_at(GuestOffset(4096), &mut [0; 512]).unwrap();
        let error = connect(&format!("{uri}other")).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.says().contains("no export named \"other\""), "{error}");
        assert_eq!(error.hint_text(), Some("it has \"\""));
    });
    let error = connect("nbd+unix:///?socket=/nowhere/at/all").err().unwrap();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.hint_text().unwrap().contains("/nowhere/at/all"));
    if let Some(server) =
        Other::nbdkit(&["--filter=error", "memory", "1M", "error-pread=EPERM", "error-rate=100%"])
    {
        let error = connect(&server.uri).unwrap().read_at(GuestOffset(0), &mut [0; 512]).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}

/// Requests of many threads are under way at once, over few connections, and none gets another's answer.
#[test]
fn many_threads_share_few_connections() {
    let whole = noise_bytes(3, 4 << 20);
    let disk = Arc::new(Memory::of(whole.clone()));
    for connections in [1, 3] {
        served(Content::ReadOnly(disk.clone()), ServeOptions::default(), localhost(), |uri| {
            let options = ClientOptions { connections, ..ClientOptions::default() };
            let client = Client::connect(&Uri::parse(uri).unwrap(), &options).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..16usize {
                    let (client, whole) = (&client, &whole);
                    scope.spawn(move || {
                        for n in 0..100usize {
                            let len = 1 + (thread * 7919 + n * 104_729) % 70_000;
                            let at = (thread * 15_485_863 + n * 32_452_843) % (whole.len() - len);
                            let mut buf = vec![0; len];
                            client.read_at(GuestOffset(at as u64), &mut buf).unwrap();
                            assert!(buf == whole[at..at + len]);
                        }
                    });
                }
            });
        });
    }
}

/// Names are resolved, in a static program too, and each address of one is tried.
#[test]
fn a_host_is_found_by_its_name() {
    let disk = Arc::new(MemDisk::new(Bytes(4096)));
    served(Content::ReadOnly(disk), ServeOptions::default(), localhost(), |uri| {
        assert_eq!(connect(&uri.replace("127.0.0.1", "localhost")).unwrap().size(), Bytes(4096));
    });
    let error = connect("nbd://no-such-host.invalid/").err().unwrap();
    assert_eq!(error.kind(), Kind::Io);
}

/// Requests of the largest size, on more connections than there is memory for at once.
#[test]
fn long_requests_take_turns() {
    let disk = Arc::new(Memory::of(noise_bytes(1, 33 << 20)));
    served(Content::Writable(disk.clone()), ServeOptions::default(), localhost(), |uri| {
        let client = connect(uri).unwrap();
        std::thread::scope(|scope| {
            for n in 0..8u8 {
                let client = &client;
                scope.spawn(move || {
                    let mut buf = vec![0; 32 << 20];
                    client.read_at(GuestOffset(u64::from(n)), &mut buf).unwrap();
                    assert!(buf[..100] == noise_bytes(1, 200)[usize::from(n)..usize::from(n) + 100]);
                    // The same bytes, so that the others go on reading what they expect.
                    client.write_at(GuestOffset(u64::from(n)), &buf[..3 << 20]).unwrap();
                });
            }
        });
    });
}

/// Whichever request a server fails, the conversion fails with its error.
#[test]
fn a_server_that_fails_in_the_middle_fails_the_conversion() {
    for error in ["pwrite", "zero"] {
        let rate = format!("error-{error}-rate=30%");
        let args = ["--filter=error", "memory", "8M", "error=ENOSPC", &rate];
        let Some(server) = Other::nbdkit(&args) else { return };
        let location = Location::of(server.uri.as_ref()).unwrap();
        let kind = crate::formats::kind("raw").unwrap();
        let options = ClientOptions::default();
        let disk = mixed(1, Bytes(7 << 20));
        let run = || {
            let sink = location.create(kind, disk.size(), &CreateOptions::default(), &options)?;
            convert::convert(&disk, sink, &Options { jobs: 2, ..Options::default() })
        };
        // By chance a run may go through.
        let failed = (0..20).find_map(|_| run().err()).unwrap();
        assert_eq!(failed.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull), "{failed}");
        assert!(failed.hint_text().is_some());
    }
}

/// A resumed run reads back what it wrote.
#[test]
fn what_was_stored_can_be_loaded() {
    use crate::sink::Sink;
    let disk: Arc<dyn DiskMut> = Arc::new(Memory::new(10_000));
    served(Content::Writable(disk), ServeOptions::default(), localhost(), |uri| {
        let options = CreateOptions::default();
        let sink: Box<dyn Sink> =
            crate::nbd::create(&Uri::parse(uri).unwrap(), Bytes(9_999), &options, &ClientOptions::default())
                .unwrap();
        let range = GuestRange::new(GuestOffset(8192), Bytes(9_999 - 8192));
        sink.zero(GuestRange::new(GuestOffset(0), Bytes(8192))).unwrap();
        let [placed] = sink.place(range, &[]).unwrap()[..] else { panic!() };
        let bytes = noise_bytes(4, placed.len);
        sink.store(placed, &bytes).unwrap();
        let mut back = vec![0; placed.len];
        sink.load(placed, &mut back).unwrap();
        assert!(back == bytes);
        assert_eq!(sink.finish().unwrap().files, [PathBuf::from(uri)]);
    });
}
