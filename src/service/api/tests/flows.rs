//! Bodies of any length, in both directions.

use super::super::Limits;
use super::{Answer, Running, exchange, request};
use crate::name::Name;
use crate::report::api::Role;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const UPLOAD: &str = "/v1/uploads?machine=web01&disk=sda&name=a.diff";

fn local(running: &Running) -> UnixStream {
    let stream = UnixStream::connect(running.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn head(path: &str, headers: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
    )
}

fn chunk(stream: &mut impl Write, bytes: &[u8]) {
    write!(stream, "{:x}\r\n", bytes.len()).unwrap();
    stream.write_all(bytes).unwrap();
    stream.write_all(b"\r\n").unwrap();
}

fn rest(mut stream: impl Read) -> Answer {
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw);
    Answer::parse(&raw).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&raw)))
}

fn uploads(running: &Running) -> usize {
    running.service.incoming().spool.uploads().len()
}

/// The body of an answer in chunks; `None` where its end is missing.
fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        if len == 0 {
            return Some(out);
        }
        out.extend(body.get(end + 2..end + 2 + len)?);
        body = body.get(end + 4 + len..)?;
    }
}

/// As slowly as it comes, beyond the life of a connection; what is cut off leaves nothing.
#[test]
fn an_upload_takes_as_long_as_it_takes_and_leaves_nothing_when_it_is_cut_off() {
    let short = Duration::from_millis(300);
    let limits = Limits { lifetime: short, stall: short, body: short, ..Limits::default() };
    let running = Running::with(limits);
    let mut stream = local(&running);
    stream.write_all(head(UPLOAD, "").as_bytes()).unwrap();
    for piece in 0..6_u8 {
        chunk(&mut stream, &[piece; 100_000]);
        std::thread::sleep(Duration::from_millis(200));
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let answer = rest(stream);
    assert_eq!((answer.status, answer.json()["length"].as_u64()), (201, Some(600_000)), "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(uploads(&running), 1);
    assert_eq!(running.local("DELETE", &format!("/v1/uploads/{id}"), None).status, 204);
    assert_eq!(uploads(&running), 0);
    // Gone, or no number at all.
    assert_eq!(running.local("DELETE", &format!("/v1/uploads/{id}"), None).status, 204);
    assert_eq!(running.local("DELETE", "/v1/uploads/7", None).status, 404);
    assert_eq!(running.local("GET", &format!("/v1/receipts/{id}"), None).status, 404);
    // Cut off: in the middle of a chunk, between two, and with a length that is never reached.
    for how in 0..3 {
        let mut stream = local(&running);
        if how == 2 {
            let text = head(UPLOAD, "").replace("Transfer-Encoding: chunked", "Content-Length: 1000000");
            stream.write_all(text.as_bytes()).unwrap();
            stream.write_all(&[1; 500_000]).unwrap();
        } else {
            stream.write_all(head(UPLOAD, "").as_bytes()).unwrap();
            chunk(&mut stream, &[1; 500_000]);
            stream.write_all(&b"100000\r\nhalf"[..if how == 0 { 12 } else { 0 }]).unwrap();
        }
        let begin = Instant::now();
        while uploads(&running) == 0 {
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(stream);
        while uploads(&running) > 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "{how}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whoever may not, or cannot at this moment, hears so before a byte is sent.
#[test]
fn what_is_refused_is_refused_before_it_is_sent() {
    let running = Running::start();
    running.machine("web01", 1);
    let reader = running.token("reader", Role::Read);
    let operator = running.token("operator", Role::Operate);
    let ask = |path: &str, token: &str| {
        let mut stream = running.tls();
        let headers = format!("Authorization: Bearer {token}\r\nExpect: 100-continue\r\n");
        stream.write_all(head(path, &headers).as_bytes()).unwrap();
        stream.flush().unwrap();
        rest(stream)
    };
    assert_eq!(ask(UPLOAD, &reader).status, 403);
    assert_eq!(ask(UPLOAD, "lf_nothing").status, 401);
    for (path, status) in [
        ("/v1/uploads?machine=web01", 400),
        ("/v1/uploads?machine=..&disk=sda", 400),
        ("/v1/uploads?machine=web01&disk=sda&sha256=12", 400),
        ("/v1/uploads?machine=web01&disk=sda&apart=perhaps", 400),
        ("/v1/uploads?machine=web01&disk=sda&colour=red", 400),
    ] {
        assert_eq!(ask(path, &operator).status, status, "{path}");
    }
    // Somebody mirrors it.
    let lease =
        running.service.incoming().leases.stream(&"web01".parse().unwrap(), &"sda".parse().unwrap()).unwrap();
    let answer = ask(UPLOAD, &operator);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.json()["error"]["text"].as_str().unwrap().contains("over NBD"));
    drop(lease);
    // And who may is asked for it.
    let mut stream = running.tls();
    let headers = format!("Authorization: Bearer {operator}\r\nExpect: 100-continue\r\n");
    stream.write_all(head(UPLOAD, &headers).as_bytes()).unwrap();
    let mut line = [0; 25];
    stream.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    chunk(&mut stream, b"not what rbd writes");
    stream.write_all(b"0\r\n\r\n").unwrap();
    let id = rest(stream).json()["id"].clone();
    // What is not a stream is found out in the background; nothing of it stays.
    let receiving = std::thread::spawn({
        let service = Arc::clone(&running.service);
        move || service.receive_deltas()
    });
    let orders = |uploads: Value| {
        running.local("POST", "/v1/machines/web01/receive/rbd", Some(&json!({ "uploads": uploads })))
    };
    assert_eq!(orders(json!([])).status, 409);
    let begun = orders(json!([id]));
    assert_eq!(begun.status, 202, "{begun:?}");
    assert_eq!(orders(json!([id])).status, 409, "it is taken once");
    let receipt = format!("/v1/receipts/{}", begun.json()["id"].as_str().unwrap());
    let begin = Instant::now();
    let ended = loop {
        let now = running.local("GET", &receipt, None).json();
        if now["state"] == "failed" {
            break now;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{now}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(ended["error"]["text"].as_str().unwrap().contains("a.diff"), "{ended}");
    assert_eq!(uploads(&running), 0);
    running.service.stop();
    receiving.join().unwrap();
}

/// A diff comes as a whole, or its end is missing; what stands in its way is an answer of its own.
#[test]
fn a_diff_comes_as_a_whole_or_without_its_end() {
    let running = Running::start();
    running.machine("web01", 3);
    let name: Name = "web01".parse().unwrap();
    let numbers: Vec<u64> = running.service.points(&name).unwrap().iter().map(|point| point.number).collect();
    let diff = |point: &str, query: &str| {
        let path = format!("/v1/machines/web01/points/{point}/disks/sda/diff{query}");
        exchange(local(&running), request("GET", &path, &[], "").as_bytes())
    };
    let all = diff("latest", "");
    assert_eq!(all.status, 200, "{all:?}");
    let body = unchunked(&all.body).unwrap();
    assert!(body.starts_with(b"rbd diff v1\n") && body.ends_with(b"e") && body.len() > 70_000);
    let since = diff("latest", &format!("?since={}&since_snapshot=a&snapshot=b&format=v2", numbers[0]));
    let body = unchunked(&since.body).unwrap();
    assert!(body.starts_with(b"rbd diff v2\nf"), "{:?}", &body[..20]);
    for (point, query, status) in [
        ("1000", "", 404),
        ("latest", "?format=v3", 400),
        ("latest", "?since=1000", 404),
        ("latest", "?snapshot=a%2Fb", 409),
        ("latest", "?colour=red", 400),
    ] {
        assert_eq!(diff(point, query).status, status, "{point}{query}");
    }
    let backwards = diff(&numbers[0].to_string(), &format!("?since={}", numbers[2]));
    assert!(backwards.status == 409 && backwards.json()["error"]["hint"].is_string(), "{backwards:?}");
    // Whoever may only look does not get what is on disks.
    let reader = running.token("reader", Role::Read);
    let path = "/v1/machines/web01/points/latest/disks/sda/diff";
    assert_eq!(running.remote("GET", path, Some(&reader), None).status, 403);
    // A client that goes away in the middle harms nobody.
    let mut stream = local(&running);
    stream.write_all(request("GET", path, &[], "").as_bytes()).unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    drop(stream);
    assert_eq!(diff("latest", "").status, 200);
}
