use super::*;
use crate::disk::{self, Disk, DiskMut, Extent, ExtentKind};
use crate::error::{Error, Kind, Result};
use crate::units::{GuestOffset, GuestRange};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, atomic::AtomicBool, atomic::Ordering};

/// A disk in memory that fails on demand.
struct Memory {
    bytes: Mutex<Vec<u8>>,
    broken: AtomicBool,
}

impl Memory {
    fn new(size: usize) -> Memory {
        Memory { bytes: Mutex::new(vec![0; size]), broken: AtomicBool::new(false) }
    }
    fn works(&self) -> Result<()> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(Error::io("cannot reach the disk", io::Error::from_raw_os_error(5))),
            false => Ok(()),
        }
    }
}

impl Disk for Memory {
    fn size(&self) -> Bytes {
        Bytes(self.bytes.lock().unwrap().len() as u64)
    }
    fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
        Ok(vec![Extent { range: disk::clip(range, self.size()), kind: ExtentKind::Data }])
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.works()?;
        disk::check_bounds(self.size(), at, buf.len())?;
        let at = usize::try_from(at.0).unwrap();
        buf.copy_from_slice(&self.bytes.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }
}

impl DiskMut for Memory {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.works()?;
        disk::check_bounds(self.size(), at, data.len())?;
        let at = usize::try_from(at.0).unwrap();
        self.bytes.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let len = usize::try_from(range.len().0).unwrap();
        self.write_at(range.start(), &vec![0; len])
    }
    fn flush(&self) -> Result<()> {
        self.works()
    }
}

/// Runs a client against a served disk and returns what the server made of it.
fn with_client(disk: &Memory, export: Export, client: impl FnOnce(UnixStream) + Send) -> Result<Served> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || serve(disk, &ours, export));
        client(theirs);
        server.join().unwrap()
    })
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut out = b"IHAVEOPT".to_vec();
    out.extend(number.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

/// Into transmission by `EXPORT_NAME`, the oldest way.
fn start(stream: &mut UnixStream) {
    let mut hello = [0; 18];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
    stream.write_all(&3u32.to_be_bytes()).unwrap();
    stream.write_all(&option(1, b"")).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
}

fn request(command: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut out = 0x2560_9513u32.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(command.to_be_bytes());
    out.extend(b"cookie!!");
    out.extend(offset.to_be_bytes());
    out.extend(len.to_be_bytes());
    out
}

/// Sends a request with its data and returns the error number.
fn ask(stream: &mut UnixStream, request: &[u8], data: &[u8]) -> u32 {
    stream.write_all(request).unwrap();
    stream.write_all(data).unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], 0x6744_6698u32.to_be_bytes());
    assert_eq!(&reply[8..], b"cookie!!");
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

#[test]
fn ranges_sizes_and_commands_are_checked_one_step_beyond_each_bound() {
    let disk = Memory::new(10_000);
    let served = with_client(&disk, Export::default(), |mut stream| {
        start(&mut stream);
        assert_eq!(ask(&mut stream, &request(1, 0, 9_999, 1), b"x"), 0);
        assert_eq!(ask(&mut stream, &request(1, 0, 9_999, 2), b"xy"), 28, "write past the end");
        assert_eq!(ask(&mut stream, &request(1, 0, u64::MAX, 2), b"xy"), 28, "wraps around");
        assert_eq!(ask(&mut stream, &request(0, 0, 9_999, 2), b""), 22, "read past the end");
        assert_eq!(ask(&mut stream, &request(0, 0, u64::MAX, u32::MAX), b""), 75);
        assert_eq!(ask(&mut stream, &request(0, 0, 0, (32 << 20) + 1), b""), 75, "too long");
        assert_eq!(ask(&mut stream, &request(0, 0, 0, 32 << 20), b""), 22, "longest, but past the end");
        assert_eq!(ask(&mut stream, &request(4, 0, 10_000, 1), b""), 28, "trim past the end");
        assert_eq!(ask(&mut stream, &request(6, 2, 0, 10_000), b""), 0, "write zeroes, no hole");
        assert_eq!(ask(&mut stream, &request(6, 4, 0, 1), b""), 22, "unknown flag");
        assert_eq!(ask(&mut stream, &request(3, 0, 0, 0), b""), 0);
        assert_eq!(ask(&mut stream, &request(3, 0, 1, 0), b""), 22, "flush with an offset");
        assert_eq!(ask(&mut stream, &request(7, 0, 0, 0), b""), 22, "unknown command");
        stream.write_all(&request(2, 0, 0, 0)).unwrap();
    });
    assert_eq!(served.unwrap().requests, 13);
    assert!(disk.bytes.lock().unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn a_read_only_export_takes_no_write() {
    let disk = Memory::new(4096);
    with_client(&disk, Export { read_only: true }, |mut stream| {
        start(&mut stream);
        for (command, data) in [(1, &b"x"[..]), (4, b""), (6, b"")] {
            assert_eq!(ask(&mut stream, &request(command, 0, 0, 1), data), 1);
        }
        assert_eq!(ask(&mut stream, &request(0, 0, 0, 1), b""), 0);
    })
    .unwrap();
}

#[test]
fn a_broken_disk_is_an_error_for_the_client_and_for_the_caller() {
    let disk = Memory::new(4096);
    let error = with_client(&disk, Export::default(), |mut stream| {
        start(&mut stream);
        disk.broken.store(true, Ordering::Relaxed);
        for command in [0, 1, 4, 6] {
            let data: &[u8] = if command == 1 { b"x" } else { b"" };
            assert_eq!(ask(&mut stream, &request(command, 0, 0, 1), data), 5);
        }
        assert_eq!(ask(&mut stream, &request(3, 0, 0, 0), b""), 5);
    })
    .unwrap_err();
    assert_eq!(error.says(), "cannot reach the disk");
}

#[test]
fn a_client_that_breaks_the_protocol_is_cut_off() {
    let cases: [(&str, Vec<u8>, Option<Kind>); 9] = [
        ("hangs up", vec![], None),
        ("half of the flags", vec![0, 0], None),
        ("old style", 0u32.to_be_bytes().to_vec(), Some(Kind::Unsupported)),
        ("unknown flags", 0xffu32.to_be_bytes().to_vec(), Some(Kind::Unsupported)),
        ("bad option magic", [&3u32.to_be_bytes()[..], &[b'x'; 16]].concat(), Some(Kind::Corrupt)),
        (
            "4 GiB of option data",
            [&3u32.to_be_bytes()[..], b"IHAVEOPT", &7u32.to_be_bytes(), &[0xff; 4]].concat(),
            Some(Kind::Refused),
        ),
        (
            "endless options",
            [3u32.to_be_bytes().to_vec(), option(99, b"").repeat(65)].concat(),
            Some(Kind::Refused),
        ),
        (
            "an export that is not there",
            [3u32.to_be_bytes().to_vec(), option(1, b"a")].concat(),
            Some(Kind::Refused),
        ),
        (
            "bad request magic",
            [3u32.to_be_bytes().to_vec(), option(1, b""), vec![9; 28]].concat(),
            Some(Kind::Corrupt),
        ),
    ];
    for (what, sends, kind) in cases {
        let disk = Memory::new(512);
        let served = with_client(&disk, Export::default(), |mut stream| {
            // The server may be gone before all of it is sent.
            let _ = stream.write_all(&sends);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert_eq!(served.err().map(|error| error.kind()), kind, "{what}");
    }
}

#[test]
fn a_write_longer_than_the_bound_is_not_taken_into_memory() {
    let disk = Memory::new(512);
    let error = with_client(&disk, Export::default(), |mut stream| {
        start(&mut stream);
        stream.write_all(&request(1, 0, 0, u32::MAX)).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    })
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}

/// The option data of `GO` comes in any shape; none of them panics or starts with a bad name.
#[test]
fn info_data_is_parsed_within_its_bounds() {
    let disk = Memory::new(512);
    for (data, reply) in [
        (&b""[..], 0x8000_0003u32),
        (&[0, 0, 0], 0x8000_0003),
        (&[0xff; 6], 0x8000_0003),
        (&[0, 0, 0, 0, 0, 1], 0x8000_0003),
        (&[0, 0, 0, 1, b'a', 0, 0], 0x8000_0006),
        (&[0, 0, 0, 0, 0, 1, 0, 3], 3),
    ] {
        with_client(&disk, Export::default(), |mut stream| {
            stream.read_exact(&mut [0; 18]).unwrap();
            stream.write_all(&3u32.to_be_bytes()).unwrap();
            stream.write_all(&option(7, data)).unwrap();
            let mut head = [0; 20];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(head[12..16], reply.to_be_bytes(), "{data:?}");
            // What the server still has to say is taken, so that it does not meet a closed socket.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        })
        .unwrap();
    }
}

/// QEMU's own client copies a disk in and out.
#[test]
fn qemu_img_writes_and_reads_the_disk() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("SKIPPED: qemu_img_writes_and_reads_the_disk: no qemu-img here (Debian: qemu-utils)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nbd.sock");
    let url = format!("nbd+unix:///?socket={}", socket.display());
    let size = (5 << 20) + 512;
    let mut content: Vec<u8> = (0..size).map(|n: u32| u8::try_from(n / 7 % 251).unwrap()).collect();
    content[1 << 20..3 << 20].fill(0);
    std::fs::write(dir.path().join("in.raw"), &content).unwrap();
    let disk = Memory { bytes: Mutex::new(vec![0xee; content.len()]), broken: AtomicBool::new(false) };

    let run = |program: &str, args: &[&str]| {
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                serve(&disk, &stream, Export::default())
            });
            let out = Command::new(program).args(args).current_dir(dir.path()).output().unwrap();
            // A client that never came must not leave the server waiting.
            drop(UnixStream::connect(&socket));
            let served = server.join().unwrap().unwrap();
            std::fs::remove_file(&socket).unwrap();
            assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
            (String::from_utf8_lossy(&out.stdout).into_owned(), served)
        })
    };
    let (info, _) = run("qemu-img", &["info", &url]);
    assert!(info.contains(&format!("({size} bytes)")), "{info}");
    let (_, served) = run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "in.raw", &url]);
    assert!(disk.bytes.lock().unwrap()[..] == content[..]);
    assert!(served.written.0 < 4 << 20, "the zeros came as WRITE_ZEROES: {served:?}");
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &url, "out.raw"]);
    assert!(std::fs::read(Path::new(&dir.path().join("out.raw"))).unwrap() == content);
    run("qemu-io", &["-f", "raw", "-c", "discard 0 1M", "-c", "write -P 7 2M 64k", "-c", "flush", &url]);
    let bytes = disk.bytes.lock().unwrap();
    assert!(bytes[..1 << 20].iter().all(|&byte| byte == 0));
    assert!(bytes[2 << 20..(2 << 20) + 65_536].iter().all(|&byte| byte == 7));
}

mod client;
mod hostile;
mod server;
mod tls;

/// A program of another maker, or a loud word that it is not here.
fn program(name: &str, package: &str) -> Option<Command> {
    match Command::new(name).arg("--version").output() {
        Ok(_) => Some(Command::new(name)),
        Err(_) => {
            eprintln!("SKIPPED: no {name} here (Debian: {package})");
            None
        }
    }
}

/// Runs `body` while `content` is served; it gets the URI. Returns what was served.
fn served(content: Content, options: ServeOptions, listener: Listener, body: impl FnOnce(&str)) -> Served {
    struct Stop(crate::convert::Cancel);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }
    let uri = listener.uri(&options);
    let server = Server::new(content, options).unwrap();
    let cancel = crate::convert::Cancel::default();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.run(&listener, &cancel));
        // A test that fails stops the server, too.
        let stop = Stop(cancel.clone());
        body(&uri);
        drop(stop);
        running.join().unwrap().unwrap()
    })
}

fn localhost() -> Listener {
    Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap()
}

impl Memory {
    fn of(bytes: Vec<u8>) -> Memory {
        Memory { bytes: Mutex::new(bytes), broken: AtomicBool::new(false) }
    }
}
