//! Servers that break their word: each is an error of the right kind, soon, and never wrong bytes.

use super::*;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What a script does with one client.
type Script = dyn Fn(&mut TcpStream) -> io::Result<()> + Sync;

fn take(stream: &mut TcpStream, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    stream.read_exact(&mut out)?;
    Ok(out)
}

/// Reads one option and returns its number.
fn option(stream: &mut TcpStream) -> io::Result<u32> {
    let head = take(stream, 16)?;
    let len = u32::from_be_bytes(head[12..].try_into().unwrap());
    take(stream, usize::try_from(len).unwrap())?;
    Ok(u32::from_be_bytes(head[8..12].try_into().unwrap()))
}

fn reply(stream: &mut TcpStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut out = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    stream.write_all(&out)
}

fn hello(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    take(stream, 4).map(drop)
}

/// A greeting with structured replies and block status, for an export of that size and those block sizes.
fn greet(stream: &mut TcpStream, size: u64, blocks: [u32; 3]) -> io::Result<()> {
    greet_with(stream, size, blocks, &[(7, "base:allocation")])
}

/// The same, with these contexts.
fn greet_with(
    stream: &mut TcpStream,
    size: u64,
    blocks: [u32; 3],
    contexts: &[(u32, &str)],
) -> io::Result<()> {
    hello(stream)?;
    loop {
        match option(stream)? {
            8 => reply(stream, 8, 1, &[])?,
            10 => {
                for (number, name) in contexts {
                    reply(stream, 10, 4, &[&number.to_be_bytes()[..], name.as_bytes()].concat())?;
                }
                reply(stream, 10, 1, &[])?;
            }
            7 => {
                let mut info = vec![0, 0];
                info.extend(size.to_be_bytes());
                info.extend([0, 1]);
                reply(stream, 7, 3, &info)?;
                let mut info = vec![0, 3];
                info.extend(blocks.map(u32::to_be_bytes).concat());
                reply(stream, 7, 3, &info)?;
                return reply(stream, 7, 1, &[]);
            }
            other => reply(stream, other, 0x8000_0001, &[])?,
        }
    }
}

fn chunk(cookie: &[u8], flags: u16, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = 0x668e_33efu32.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie);
    out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
    out
}

/// Runs `client` against a server that follows a script. Returns its error.
fn against(script: &Script, client: impl FnOnce(&Uri, &ClientOptions) -> Result<()>) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("nbd://{}/", listener.local_addr().unwrap());
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            // The client may hang up in the middle.
            let _ = script(&mut stream);
            stream
        });
        let options = ClientOptions { timeout: Duration::from_millis(600), ..ClientOptions::default() };
        let started = Instant::now();
        let error = client(&Uri::parse(&uri).unwrap(), &options).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(10), "{error}");
        assert!(error.to_string().contains(&uri), "{error}");
        drop(server.join());
        error
    })
}

fn connecting(script: &Script) -> Error {
    against(script, |uri, options| Client::connect(uri, options).map(drop))
}

#[test]
fn a_greeting_that_breaks_the_protocol_is_refused() {
    let cases: [(&str, &Script, Kind); 14] = [
        ("hangs up", &|_| Ok(()), Kind::Io),
        ("silent", &|s| take(s, 1).map(drop), Kind::Io),
        ("oldstyle", &|s| s.write_all(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0"), Kind::Unsupported),
        ("no NBD", &|s| s.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), Kind::Corrupt),
        ("not fixed", &|s| s.write_all(b"NBDMAGICIHAVEOPT\0\0"), Kind::Unsupported),
        (
            "bad magic in a reply",
            &|s| {
                hello(s)?;
                option(s)?;
                s.write_all(&[7; 20])
            },
            Kind::Corrupt,
        ),
        (
            "a reply to another option",
            &|s| {
                hello(s)?;
                option(s)?;
                reply(s, 99, 1, &[])
            },
            Kind::Corrupt,
        ),
        (
            "a reply of 4 GiB",
            &|s| {
                hello(s)?;
                option(s)?;
                s.write_all(
                    &[
                        &0x0003_e889_0455_65a9u64.to_be_bytes()[..],
                        &8u32.to_be_bytes(),
                        &1u32.to_be_bytes(),
                        &[0xff; 4],
                    ]
                    .concat(),
                )
            },
            Kind::Corrupt,
        ),
        (
            "endless replies",
            &|s| {
                hello(s)?;
                let option = option(s)?;
                loop {
                    reply(s, option, 3, &[])?;
                }
            },
            Kind::Corrupt,
        ),
        (
            "no size",
            &|s| {
                hello(s)?;
                loop {
                    let option = option(s)?;
                    reply(s, option, 1, &[])?;
                }
            },
            Kind::Corrupt,
        ),
        ("8 EiB", &|s| greet(s, 1 << 63, [1, 4096, 4096]), Kind::Refused),
        ("blocks of 3", &|s| greet(s, 4096, [3, 4096, 4096]), Kind::Corrupt),
        ("blocks of 0", &|s| greet(s, 4096, [0, 4096, 4096]), Kind::Corrupt),
        ("size between blocks", &|s| greet(s, 4097, [512, 4096, 65_536]), Kind::Unsupported),
    ];
    for (what, script, kind) in cases {
        let error = connecting(script);
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
}

/// What is answered to a request with that cookie.
type Answer = Box<dyn Fn(&[u8]) -> Vec<u8> + Sync>;

/// Answers the first request with what `answer` makes of its cookie.
fn answering(answer: impl Fn(&[u8]) -> Vec<u8> + Sync) -> impl Fn(&mut TcpStream) -> io::Result<()> + Sync {
    move |stream: &mut TcpStream| {
        greet(stream, 1 << 20, [1, 4096, 1 << 20])?;
        let request = take(stream, 28)?;
        stream.write_all(&answer(&request[8..16]))?;
        take(stream, 1).map(drop)
    }
}

#[test]
fn a_reply_that_breaks_the_protocol_is_no_data() {
    fn at(offset: u64, data: &[u8]) -> Vec<u8> {
        [&offset.to_be_bytes()[..], data].concat()
    }
    fn simple(magic: u32, error: u32, cookie: &[u8]) -> Vec<u8> {
        [&magic.to_be_bytes()[..], &error.to_be_bytes(), cookie].concat()
    }
    let reads: [(&str, Answer, Kind); 17] = [
        ("silent", Box::new(|_| vec![]), Kind::Io),
        ("half a head", Box::new(|_| vec![0x66, 0x8e]), Kind::Io),
        ("bad magic", Box::new(|c| simple(1, 0, c)), Kind::Corrupt),
        ("another's cookie", Box::new(|_| simple(0x6744_6698, 0, b"another!")), Kind::Corrupt),
        ("simple where structured", Box::new(|c| simple(0x6744_6698, 0, c)), Kind::Corrupt),
        ("error of no request", Box::new(|c| simple(0x6744_6698, 22, c)), Kind::Io),
        ("nothing", Box::new(|c| chunk(c, 1, 0, &[])), Kind::Corrupt),
        ("nothing with data", Box::new(|c| chunk(c, 1, 0, b"x")), Kind::Corrupt),
        ("a half", Box::new(|c| chunk(c, 1, 1, &at(4096, &[1; 256]))), Kind::Corrupt),
        ("before", Box::new(|c| chunk(c, 1, 1, &at(4095, &[1; 512]))), Kind::Corrupt),
        ("behind", Box::new(|c| chunk(c, 1, 1, &at(4097, &[1; 512]))), Kind::Corrupt),
        ("wraps around", Box::new(|c| chunk(c, 1, 1, &at(u64::MAX - 1, &[1; 512]))), Kind::Corrupt),
        ("empty data", Box::new(|c| chunk(c, 1, 1, &at(4096, &[]))), Kind::Corrupt),
        (
            "a half twice",
            Box::new(|c| {
                [chunk(c, 0, 1, &at(4096, &[1; 256])), chunk(c, 1, 1, &at(4096, &[1; 256]))].concat()
            }),
            Kind::Corrupt,
        ),
        ("a hole too long", Box::new(|c| chunk(c, 1, 2, &at(4096, &513u32.to_be_bytes()))), Kind::Corrupt),
        ("a map", Box::new(|c| chunk(c, 1, 5, b"\0\0\0\x07\0\0\x02\0\0\0\0\x03")), Kind::Corrupt),
        ("an error without a number", Box::new(|c| chunk(c, 1, 0x8001, &[0; 6])), Kind::Io),
    ];
    for (what, answer, kind) in reads {
        let error = against(&answering(answer), |uri, options| {
            Client::connect(uri, options)?.read_at(GuestOffset(4096), &mut [0; 512])
        });
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
    let maps: [(&str, Answer, Kind); 6] = [
        ("empty", Box::new(|c| chunk(c, 1, 0, &[])), Kind::Corrupt),
        ("another context", Box::new(|c| chunk(c, 1, 5, b"\0\0\0\x08\0\0\x02\0\0\0\0\x03")), Kind::Corrupt),
        (
            "an extent without length",
            Box::new(|c| chunk(c, 1, 5, b"\0\0\0\x07\0\0\0\0\0\0\0\x03")),
            Kind::Corrupt,
        ),
        ("cut off", Box::new(|c| chunk(c, 1, 5, b"\0\0\0\x07\0\0\0\0\0\0\0")), Kind::Corrupt),
        ("a simple reply", Box::new(|c| simple(0x6744_6698, 0, c)), Kind::Corrupt),
        ("refused", Box::new(|c| chunk(c, 1, 0x8001, b"\0\0\0\x01\0\x02no")), Kind::Refused),
    ];
    for (what, answer, kind) in maps {
        let error = against(&answering(answer), |uri, options| {
            Client::connect(uri, options)?.extents(GuestRange::new(GuestOffset(0), Bytes(512)), 9).map(drop)
        });
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
}

/// One byte now and then is not an answer; nor may one thread's wait be longer because another fails.
#[test]
fn a_trickle_is_a_silence_and_all_threads_hear_of_it() {
    let script: &Script = &|stream| {
        greet(stream, 8 << 20, [1, 4096, 4 << 20])?;
        take(stream, 28)?;
        loop {
            stream.write_all(&[0x66])?;
            std::thread::sleep(Duration::from_millis(250));
        }
    };
    let error = against(script, |uri, options| {
        let client = Client::connect(uri, options)?;
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| client.read_at(GuestOffset(0), &mut [0; 512]).unwrap_err()))
                .collect();
            Err(threads.into_iter().map(|thread| thread.join().unwrap()).last().unwrap())
        })
    });
    assert!(matches!(error.kind(), Kind::Io | Kind::Corrupt), "{error}");
}

/// Pieces in any order, holes among them, and an answer that comes in between.
#[test]
fn an_answer_in_pieces_is_put_together() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = Uri::parse(&format!("nbd://{}/", listener.local_addr().unwrap())).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            greet(&mut stream, 1 << 20, [1, 4096, 1 << 20]).unwrap();
            let request = take(&mut stream, 28).unwrap();
            let cookie = &request[8..16];
            let at = |offset: u64, data: &[u8]| [&offset.to_be_bytes()[..], data].concat();
            stream.write_all(&chunk(cookie, 0, 1, &at(14, &[3, 4]))).unwrap();
            stream.write_all(&chunk(cookie, 0, 2, &at(12, &2u32.to_be_bytes()))).unwrap();
            stream.write_all(&chunk(cookie, 0, 1, &at(10, &[1, 2]))).unwrap();
            stream.write_all(&chunk(cookie, 1, 0, &[])).unwrap();
            let request = take(&mut stream, 28).unwrap();
            // Longer than was asked for, which the last extent may be.
            stream
                .write_all(&chunk(
                    &request[8..16],
                    1,
                    5,
                    b"\0\0\0\x07\0\0\0\x10\0\0\0\x02\0\x0f\xff\xf0\0\0\0\x01",
                ))
                .unwrap();
            let _ = take(&mut stream, 28);
        });
        let client = Client::connect(&uri, &ClientOptions::default()).unwrap();
        let mut buf = [9; 6];
        client.read_at(GuestOffset(10), &mut buf).unwrap();
        assert_eq!(buf, [1, 2, 0, 0, 3, 4]);
        let extents = client.extents(GuestRange::new(GuestOffset(8), Bytes(100)), 9).unwrap();
        let kinds: Vec<_> = extents.iter().map(|e| (e.range.start().0, e.range.len().0, e.kind)).collect();
        // A hole that is not said to read as zeros is data.
        assert_eq!(kinds, [(8, 16, ExtentKind::Zero), (24, 84, ExtentKind::Data)]);
        drop(client);
    });
}

/// Contexts beside `base:allocation`: an answer has one part for each that was agreed on, and is asked for one of them.
#[test]
fn the_parts_of_an_answer_are_kept_apart() {
    const BITMAP: &str = "qemu:dirty-bitmap:b";
    const BOTH: &[(u32, &str)] = &[(7, "base:allocation"), (9, BITMAP)];
    let part = |number: u32, flags: u32| [number, 4096, flags].map(u32::to_be_bytes).concat();
    // Asks for the bitmap's part of an answer with these.
    let asked = |contexts: &'static [(u32, &'static str)], parts: Vec<Vec<u8>>| {
        let script = move |stream: &mut TcpStream| {
            greet_with(stream, 4096, [512, 4096, 4096], contexts)?;
            let request = take(stream, 28)?;
            for (number, part) in parts.iter().enumerate() {
                let flags = u16::from(number + 1 == parts.len());
                stream.write_all(&chunk(&request[8..16], flags, 5, part))?;
            }
            take(stream, 1).map(drop)
        };
        let mut found = None;
        let error = against(&script, |uri, options| {
            let options = ClientOptions { contexts: vec![BITMAP.into()], ..options.clone() };
            let client = Client::connect(uri, &options)?;
            found = client.status(BITMAP, GuestRange::new(GuestOffset(0), Bytes(4096)), 8)?;
            Err(Error::refused("was read").in_file(uri.as_path()))
        });
        (found, error)
    };
    let whole = GuestRange::new(GuestOffset(0), Bytes(4096));
    for parts in [[part(7, 0), part(9, 1)], [part(9, 1), part(7, 0)]] {
        assert_eq!(asked(BOTH, parts.to_vec()).0, Some(vec![(whole, 1)]));
    }
    // A server without it says nothing of it.
    assert_eq!(asked(&BOTH[..1], vec![]).0, None);
    for (contexts, parts) in [
        (BOTH, vec![part(9, 1), part(9, 0)]),
        (BOTH, vec![part(9, 1), part(8, 0)]),
        (BOTH, vec![part(7, 0)]),
        (&[(7, "base:allocation"), (7, BITMAP)], vec![part(7, 0)]),
        (&[(7, BITMAP), (9, BITMAP)], vec![part(7, 0)]),
    ] {
        let (found, error) = asked(contexts, parts);
        assert!(found.is_none() && error.kind() == Kind::Corrupt, "{error}");
    }
}
