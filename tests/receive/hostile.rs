//! Clients that are malformed, slow, silent or too many: each loses its own connection, and nobody else notices.

use super::*;
use landfall_image::nbd::protocol::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// A client made by hand.
pub struct Raw {
    pub stream: UnixStream,
}

pub fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut out = option_head(number, data.len());
    out.extend(data);
    out
}

/// The data of `GO` and `INFO`.
pub fn go(name: &str) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name.bytes());
    data.extend([0, 0]);
    data
}

impl Raw {
    pub fn connect(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Raw { stream }
    }

    /// With simple replies, in transmission.
    pub fn start(socket: &Path, name: &str) -> Raw {
        let mut raw = Raw::connect(socket);
        raw.stream.read_exact(&mut [0; 18]).unwrap();
        raw.stream.write_all(&3u32.to_be_bytes()).unwrap();
        raw.stream.write_all(&option(OPT_EXPORT_NAME, name.as_bytes())).unwrap();
        raw.stream.read_exact(&mut [0; 10]).unwrap();
        raw
    }

    pub fn request(&mut self, request: Request) {
        self.stream.write_all(&request.to_bytes()).unwrap();
    }

    pub fn write(&mut self, cookie: u64, offset: u64, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        self.request(Request { flags: 0, command: CMD_WRITE, cookie, offset, len });
        self.stream.write_all(data).unwrap();
    }

    /// Cookie and error number of the next reply.
    pub fn reply(&mut self) -> (u64, u32) {
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply).unwrap();
        let mut fields = Fields(&reply);
        assert_eq!(fields.u32(), Some(SIMPLE_REPLY_MAGIC));
        let errno = fields.u32().unwrap();
        (fields.u64().unwrap(), errno)
    }

    /// True where the server hangs up; what it says before is passed over.
    fn hears_the_end(&mut self) -> bool {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

fn quick() -> Limits {
    Limits {
        handshake: Duration::from_millis(600),
        handshake_idle: Duration::from_millis(300),
        stall: Duration::from_millis(400),
        shutdown: Duration::from_secs(2),
        ..Limits::default()
    }
}

fn unix(limits: Limits) -> Running {
    Running::with(limits, |dir| vec![Listen::Unix(dir.join("socket"))])
}

/// A machine can be so busy that the time for gathering replies is over before the first request is looked at. A client that waits for its
/// replies sends nothing more: what is here has to be done all the same.
#[test]
fn requests_are_answered_when_no_time_is_left_for_gathering() {
    let running = unix(Limits { gather: Duration::ZERO, stall: Duration::from_secs(5), ..Limits::default() });
    let disk = running.disk("web01/sda", 1 << 20);
    let mut raw = Raw::start(&running.socket(), "web01/sda");
    let one = |cookie: u64, len: u32| {
        let request = Request { flags: 0, command: CMD_WRITE, cookie, offset: cookie * 8192, len };
        [&request.to_bytes()[..], &vec![7; usize::try_from(len).unwrap()]].concat()
    };
    // All at once: short ones, and one that is longer than the inbox.
    let all: Vec<u8> =
        (0..40).flat_map(|cookie| one(cookie, if cookie == 20 { 300 << 10 } else { 512 })).collect();
    raw.stream.write_all(&all).unwrap();
    for cookie in 0..40 {
        assert_eq!(raw.reply(), (cookie, 0));
    }
    assert_eq!(disk.ops().len(), 40);
}

#[test]
fn whoever_breaks_the_protocol_loses_its_own_connection_alone() {
    let running = unix(Limits::default());
    let disk = running.disk("web01/sda", 1 << 20);
    let mut good = Raw::start(&running.socket(), "web01/sda");
    let flags = 3u32.to_be_bytes();
    let requested = |bytes: &[u8]| [&flags[..], &option(OPT_EXPORT_NAME, b"web01/sda"), bytes].concat();
    let write = |len: u32| Request { flags: 0, command: CMD_WRITE, cookie: 1, offset: 0, len }.to_bytes();
    let cases: [(&str, Vec<u8>); 12] = [
        ("old style", 0u32.to_be_bytes().to_vec()),
        ("unknown flags", u32::MAX.to_be_bytes().to_vec()),
        ("bad option magic", [&flags[..], &[b'x'; 16]].concat()),
        ("4 GiB of option data", [&flags[..], b"IHAVEOPT", &7u32.to_be_bytes(), &[0xff; 4]].concat()),
        ("endless options", [flags.to_vec(), option(99, b"").repeat(65)].concat()),
        ("no such export", [flags.to_vec(), option(OPT_EXPORT_NAME, b"web01/none")].concat()),
        ("no name", [flags.to_vec(), option(OPT_EXPORT_NAME, b"")].concat()),
        ("a way out of the vault", [flags.to_vec(), option(OPT_EXPORT_NAME, b"../etc/passwd")].concat()),
        ("no text", [flags.to_vec(), option(OPT_EXPORT_NAME, &[0xff, b'/', 0xfe])].concat()),
        ("bad request magic", requested(&[9; 28])),
        ("a write that is too long", requested(&write(u32::MAX))),
        ("a write one byte too long", requested(&write((32 << 20) + 1))),
    ];
    for (what, bytes) in &cases {
        let mut raw = Raw::connect(&running.socket());
        // The server may be gone before all of it is sent.
        let _ = raw.stream.write_all(bytes);
        assert!(raw.hears_the_end(), "{what}");
    }
    let stats = running.until(|stats| stats.connections == 1);
    assert_eq!((stats.not_let_in, stats.broken_off), (9, 3), "{stats:?}");
    good.write(1, 0, b"still here");
    assert_eq!(good.reply(), (1, 0));
    assert_eq!(disk.ops(), [Op::Write(0, 10, b's')]);
    running.wait_for("left: NBD request magic is 0x9090909, not");
    running.wait_for("4294967295 bytes in one write; at most 33554432");
    // One that hangs up in the middle is told apart from one that left.
    good.request(Request { flags: 0, command: CMD_WRITE, cookie: 2, offset: 0, len: 4096 });
    drop(good);
    running.wait_for("web01/sda: 0 left: hung up in the middle of a request");
    drop(Raw::start(&running.socket(), "web01/sda"));
    running.wait_for("web01/sda: 0 left: hung up without a goodbye");
    assert_eq!(disk.ops().len(), 1);
    // One that says goodbye and does not wait for its answers has left all the same, and was heard.
    let mut hasty = Raw::start(&running.socket(), "web01/sda");
    (0..100).for_each(|cookie| hasty.write(cookie, 0, &[1; 4096]));
    hasty.request(Request { flags: 0, command: CMD_DISC, cookie: 0, offset: 0, len: 0 });
    drop(hasty);
    running.wait_for("web01/sda: 0 left: the client left");
    assert_eq!(disk.ops().len(), 101);
    // What came before nonsense is done, and answered.
    let mut odd = Raw::start(&running.socket(), "web01/sda");
    let write = Request { flags: 0, command: CMD_WRITE, cookie: 7, offset: 0, len: 4 }.to_bytes();
    odd.stream.write_all(&[&write[..], b"done", &[9; 28]].concat()).unwrap();
    assert_eq!(odd.reply(), (7, 0));
    assert!(odd.hears_the_end());
    assert_eq!(disk.ops().len(), 102);
}

#[test]
fn the_silent_and_the_slow_are_not_waited_for() {
    let running = unix(quick());
    running.disk("web01/sda", 64 << 20);
    let begin = Instant::now();
    // Silent from the start, in the middle of an option, and forever busy without starting.
    let mut silent = Raw::connect(&running.socket());
    let mut half = Raw::connect(&running.socket());
    half.stream.write_all(&[&3u32.to_be_bytes()[..], b"IHAVE"].concat()).unwrap();
    assert!(silent.hears_the_end() && half.hears_the_end());
    assert!(begin.elapsed() < Duration::from_millis(550), "the idle limit: {:?}", begin.elapsed());
    let mut busy = Raw::connect(&running.socket());
    busy.stream.write_all(&3u32.to_be_bytes()).unwrap();
    let mut writer = busy.stream.try_clone().unwrap();
    let chatter = std::thread::spawn(move || {
        while writer.write_all(&option(99, b"")).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(busy.hears_the_end());
    chatter.join().unwrap();
    let elapsed = begin.elapsed();
    assert!(elapsed < Duration::from_millis(1500), "the limit for all of it: {elapsed:?}");

    // A request of which nothing more comes: a short one, a long one, and a head alone.
    for (what, len, sends) in [("short", 4096, 100), ("long", 4 << 20, 1 << 20), ("head", 0, 0)] {
        let mut raw = Raw::start(&running.socket(), "web01/sda");
        let head = Request { flags: 0, command: CMD_WRITE, cookie: 1, offset: 0, len }.to_bytes();
        match what {
            "head" => raw.stream.write_all(&head[..20]).unwrap(),
            _ => raw.stream.write_all(&[&head[..], &vec![1; sends]].concat()).unwrap(),
        }
        if what == "long" {
            continue;
        }
        assert!(raw.hears_the_end(), "{what}");
    }
    running.wait_for("a request has not come as a whole");
    // One that asks and never listens.
    let mut deaf = Raw::start(&running.socket(), "web01/sda");
    for cookie in 0..8 {
        let len = 4 << 20;
        deaf.request(Request { flags: 0, command: CMD_READ, cookie, offset: 0, len });
    }
    running.wait_for("the client does not take its replies");
    // One that is idle between requests may stay.
    let mut idle = Raw::start(&running.socket(), "web01/sda");
    std::thread::sleep(Duration::from_millis(1500));
    idle.write(1, 0, b"x");
    assert_eq!(idle.reply(), (1, 0));
}

#[test]
fn limits_on_connections_hold_and_are_given_back() {
    let limits = Limits { connections: 8, greeting: 4, ..Limits::default() };
    let running = unix(limits);
    running.disk("web01/sda", 1 << 20);
    let strangers: Vec<Raw> = (0..4)
        .map(|_| {
            let mut raw = Raw::connect(&running.socket());
            raw.stream.read_exact(&mut [0; 18]).unwrap();
            raw
        })
        .collect();
    assert!(Raw::connect(&running.socket()).hears_the_end(), "a fifth stranger");
    drop(strangers);
    running.until(|stats| stats.connections == 0);
    let mut guests: Vec<Raw> = (0..8).map(|_| Raw::start(&running.socket(), "web01/sda")).collect();
    assert!(Raw::connect(&running.socket()).hears_the_end(), "a ninth guest");
    running.wait_for("web01/sda: 8 there");
    let mut last = guests.pop().unwrap();
    last.request(Request { flags: 0, command: CMD_DISC, cookie: 0, offset: 0, len: 0 });
    assert!(last.hears_the_end());
    running.wait_for("7 left: the client left");
    running.until(|stats| stats.connections == 7);
    Raw::start(&running.socket(), "web01/sda").write(1, 0, b"x");
    assert_eq!(running.monitor.read().turned_away, 2);
}

/// From one address of the network, too: strangers cannot take all the places.
#[test]
fn one_address_has_few_places_before_it_is_let_in() {
    let limits = Limits { greeting_per_address: 2, ..quick() };
    let running = Running::with(limits, |_| {
        let address = "127.0.0.1:0".parse().unwrap();
        vec![Listen::Tcp { address, tls: None, anybody_on_this_machine: true }]
    });
    let connect = || {
        let mut stream = std::net::TcpStream::connect(running.addresses[0]).unwrap();
        stream.read_exact(&mut [0; 18]).map(|()| stream)
    };
    let first = connect().unwrap();
    let _second = connect().unwrap();
    assert!(connect().is_err());
    drop(first);
    std::thread::sleep(Duration::from_millis(100));
    assert!(connect().is_ok());
}
