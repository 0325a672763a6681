//! Clients that are slow, silent, many, or make no sense.

use super::super::Limits;
use super::{Answer, Running, exchange, request, try_exchange};
use crate::report::api::Role;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Short enough for a test; nothing here depends on how short.
fn impatient() -> Limits {
    let soon = Duration::from_millis(700);
    Limits { handshake: soon, header: soon, body: soon, stall: soon, ..Limits::default() }
}

fn is_well(running: &Running) {
    assert_eq!(running.local("GET", "/healthz", None).status, 200);
    assert_eq!(running.local("GET", "/v1/status", None).status, 200);
}

/// Reads to the end, which has to come: by a goodbye or not.
#[track_caller]
fn ends(stream: &mut (impl Read + ?Sized)) -> Vec<u8> {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let mut raw = Vec::new();
    if let Err(error) = stream.read_to_end(&mut raw) {
        assert!(![TimedOut, WouldBlock].contains(&error.kind()), "it is not hung up on");
    }
    raw
}

fn local(running: &Running) -> UnixStream {
    let stream = UnixStream::connect(running.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn what_makes_no_sense_is_refused_and_harms_nobody() {
    let running = Running::start();
    running.machine("web01", 1);
    let put = |path: &str, body: &str| exchange(local(&running), request("PUT", path, &[], body).as_bytes());
    let ask = |text: &str| {
        let raw = try_exchange(&mut local(&running), text.as_bytes());
        Answer::parse(&raw).map(|answer| answer.status)
    };
    for (path, body, status) in [
        ("/v1/machines/web01", "{", 400),
        ("/v1/machines/web01", "[]", 400),
        ("/v1/machines/web01", "{\"disk\": []}", 400),
        ("/v1/machines/web01", "{\"disks\": [{\"name\": \"../x\", \"size\": 1}]}", 400),
        ("/v1/machines/web01", "{\"disks\": [{\"name\": \"sda\", \"size\": -1}]}", 400),
        ("/v1/machines/web01", "{\"disks\": [{\"name\": \"sda\", \"size\": 1e99}]}", 400),
        ("/v1/machines/web01", "{\"disks\": [{\"name\": \"sdb\", \"size\": 513}]}", 409),
        ("/v1/machines/web01", "{\"variables\": \"§\"}", 400),
        ("/v1/machines/web01", &"[".repeat(100_000), 400),
        ("/v1/machines/..%2F..%2Fetc", "{\"disks\": [{\"name\": \"sda\", \"size\": 512}]}", 400),
        ("/v1/machines/%2e%2e", "{\"disks\": [{\"name\": \"sda\", \"size\": 512}]}", 400),
        ("/v1/machines/a%00b", "{\"disks\": [{\"name\": \"sda\", \"size\": 512}]}", 400),
        ("/v1/machines/%ff", "{}", 400),
        ("/v1/machines/web01/points/latest/tag", "{\"tag\": \"\\u0007\"}", 409),
        ("/v1/machines/web01/points/latest/tag", "{\"tag\": 7}", 400),
        ("/v1/machines/none/points/latest/tag", "{}", 404),
        ("/nothing/here", "{}", 404),
        ("/v1/status", "{}", 405),
    ] {
        let answer = put(path, body);
        assert_eq!(answer.status, status, "{path} {:.80}: {}", body, String::from_utf8_lossy(&answer.body));
        assert!(answer.json()["error"]["text"].is_string());
    }
    let allowed = put("/v1/status", "{}");
    assert!(allowed.head.contains("allow: get"), "{}", allowed.head);
    for text in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n",
        "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let status = ask(text);
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{text:?}: {status:?}");
    }
    let many: String = (0..1000).map(|n| format!("X-{n}: y\r\n")).collect();
    let status = ask(&format!("GET /v1/status HTTP/1.1\r\nHost: x\r\n{many}\r\n"));
    assert!(status.is_none_or(|status| status == 431), "{status:?}");
    let long = "a".repeat(1 << 20);
    let status = ask(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(status.is_none_or(|status| status == 414 || status == 431), "{status:?}");
    is_well(&running);
    assert_eq!(running.service.watched().len(), 1);
}

#[test]
fn a_body_is_no_longer_than_its_route_takes_and_a_strangers_is_not_read() {
    let running = Running::start();
    let long = " ".repeat(100 << 10);
    let small = exchange(local(&running), request("POST", "/v1/tokens", &[], &long).as_bytes());
    assert_eq!(small.status, 413, "{:?}", small.json());
    // A definition may be longer.
    let disks = "{\"disks\": [{\"name\": \"sda\", \"size\": 4096}]}";
    let large = exchange(
        local(&running),
        request("PUT", "/v1/machines/a", &[], &format!("{long}{disks}")).as_bytes(),
    );
    assert_eq!(large.status, 200, "{:?}", large.json());
    let huge = " ".repeat(25 << 20);
    let raw = try_exchange(&mut local(&running), request("PUT", "/v1/machines/a", &[], &huge).as_bytes());
    assert_eq!(Answer::parse(&raw).map(|answer| answer.status), Some(413));
    // Without saying how long it is.
    let mut stream = local(&running);
    stream
        .write_all(b"PUT /v1/machines/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let sent = (0..64).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent < 64, "it is told so before it has sent 64 MiB");
    // Who has no token is answered though the body never comes.
    let mut stream = running.tls();
    let head = "PUT /v1/machines/a HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut raw = [0; 12];
    stream.read_exact(&mut raw).unwrap();
    assert_eq!(&raw, b"HTTP/1.1 401");
    is_well(&running);
}

#[test]
fn the_silent_and_the_slow_are_hung_up_on() {
    let running = Running::with(impatient());
    running.machine("web01", 1);
    // Nothing at all; half a header; a header that never ends; an answer, and then nothing.
    let mut silent = local(&running);
    let mut half = local(&running);
    half.write_all(b"GET /v1/status HTTP/1.1\r\nHo").unwrap();
    let mut idle = local(&running);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut dripping = local(&running);
    dripping.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let begin = Instant::now();
    while dripping.write_all(b"X: y\r\n").is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(60), "a header may take for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    ends(&mut silent);
    ends(&mut half);
    assert!(ends(&mut idle).starts_with(b"HTTP/1.1 200"));
    // A body that does not come is answered.
    let mut body = local(&running);
    body.write_all(b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{").unwrap();
    let raw = ends(&mut body);
    assert_eq!(
        Answer::parse(&raw).map(|answer| answer.status),
        Some(408),
        "{}",
        String::from_utf8_lossy(&raw)
    );
    // TLS that is never spoken.
    let mut tls = TcpStream::connect(running.addresses[0]).unwrap();
    tls.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    ends(&mut tls);
    is_well(&running);
}

#[test]
fn who_does_not_take_an_answer_does_not_keep_it_for_ever() {
    let running = Running::with(impatient());
    // So long that it does not fit into the buffers of sockets.
    let mut definition = crate::machine::Machine::new("web01", landfall_image::Bytes::gib(2));
    definition.annotation = Some("x".repeat(8 << 20));
    let wanted = json!({ "disks": [{ "name": "sda", "size": 4096 }], "definition": definition });
    assert_eq!(running.local("PUT", "/v1/machines/web01", Some(&wanted)).status, 200);
    let mut lazy = local(&running);
    lazy.write_all(request("GET", "/v1/machines/web01", &[], "").as_bytes()).unwrap();
    // It writes until the socket is full, and then not for ever: what is read afterwards is cut off.
    std::thread::sleep(Duration::from_secs(3));
    let raw = ends(&mut lazy);
    assert!(raw.len() < 8 << 20, "{}", raw.len());
    is_well(&running);
}

#[test]
fn strangers_who_fill_the_door_keep_neither_each_other_nor_those_on_this_machine_out_for_long() {
    let running = Running::with(Limits { connections: 40, per_address: 20, local: 30, ..impatient() });
    let token = running.token("t", Role::Read);
    let fill: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(running.addresses[0]).unwrap()).collect();
    // Those on this machine have places of their own.
    is_well(&running);
    let idle: Vec<UnixStream> = (0..25).map(|_| local(&running)).collect();
    is_well(&running);
    // All of them are hung up on; then others are let in, though nobody of them has gone by itself.
    for mut stream in fill.iter().map(|stream| stream.try_clone().unwrap()) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let begin = Instant::now();
        ends(&mut stream);
        assert!(begin.elapsed() < Duration::from_secs(59), "a silent client is kept");
    }
    assert_eq!(running.remote("GET", "/v1/status", Some(&token), None).status, 200);
    drop((fill, idle));
    is_well(&running);
}

#[test]
fn many_at_once_are_all_answered() {
    let running = Running::start();
    running.machine("web01", 1);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..64)
            .map(|number| {
                let running = &running;
                scope.spawn(move || match number % 4 {
                    0 => running.local("POST", "/v1/machines/web01/points", Some(&json!({}))).status,
                    1 => running.local("GET", "/metrics", None).status,
                    2 => running.local("GET", "/v1/machines/web01/points", None).status,
                    _ => running.local("GET", "/openapi.json", None).status,
                })
            })
            .collect();
        for (number, asked) in asked.into_iter().enumerate() {
            assert_eq!(asked.join().unwrap(), if number % 4 == 0 { 201 } else { 200 });
        }
    });
    assert_eq!(running.service.points(&"web01".parse().unwrap()).unwrap().len(), 17);
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_for_nobody_else() {
    let mut running = Running::start();
    let mut idle = local(&running);
    let mut under_way = local(&running);
    let body = json!({ "disks": [{ "name": "sda", "size": 4096 }] }).to_string();
    let text = request("PUT", "/v1/machines/web01", &[], &body);
    let (first, rest) = text.split_at(text.len() - 5);
    under_way.write_all(first.as_bytes()).unwrap();
    // It is being worked on once it has been let in.
    while Answer::parse(&try_exchange(&mut local(&running), request("GET", "/healthz", &[], "").as_bytes()))
        .is_none()
    {}
    std::thread::sleep(Duration::from_millis(300));
    let stop = running.stop.take().unwrap();
    stop.send(()).unwrap();
    ends(&mut idle);
    under_way.write_all(rest.as_bytes()).unwrap();
    let raw = ends(&mut under_way);
    assert_eq!(
        Answer::parse(&raw).map(|answer| answer.status),
        Some(200),
        "{}",
        String::from_utf8_lossy(&raw)
    );
    running.end();
    assert!(!running.socket().exists(), "the socket goes with it");
}
