//! A send over the routes, as its documents say, and bodies that are none.

use super::*;
use crate::receive::send::frame::{Body, Ready};
use serde_json::json;

fn post(running: &Running, path: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(UnixStream::connect(running.socket()).unwrap(), &[head.as_bytes(), body].concat())
}

fn body(at: u64, content: &[u8]) -> Vec<u8> {
    let mut body = Body::default();
    body.put(&Ready::content(GuestOffset(at), content));
    body.put(&Ready::check(GuestOffset(at), content));
    body.finish()
}

#[test]
fn a_machine_is_sent_over_the_routes() {
    let running = Running::start();
    let replica = "/v1/machines/web09/replica";
    let held = running.local("GET", replica, None);
    assert_eq!((held.status, held.json()["why"].as_str()), (200, Some("there is no such machine yet")));
    let target = json!({
        "id": uuid::Uuid::new_v4(), "machine": "web01", "number": 7, "at": "2026-11-29T14:03:05Z", "consistency": "crash",
    });
    let begin = json!({ "target": target, "disks": [{ "name": "sda", "size": 1 << 20, "sector": 512 }] });
    assert_eq!(running.local("PUT", replica, Some(&json!({ "target": target, "disks": [] }))).status, 409);
    assert_eq!(running.local("PUT", replica, Some(&json!({}))).status, 400);
    let begun = running.local("PUT", replica, Some(&begin));
    assert_eq!((begun.status, &begun.json()["new"]), (200, &json!(["sda"])));
    let session = begun.json()["session"].as_str().unwrap().to_owned();
    let chunks = format!("{replica}/disks/sda/chunks");
    let good = body(4096, &[7; 8192]);
    assert_eq!(post(&running, &chunks, &good).status, 400, "no session");
    assert_eq!(
        post(&running, &format!("{chunks}?session={}", uuid::Uuid::new_v4()), &good).status,
        409,
        "another"
    );
    let chunks = format!("{chunks}?session={session}");
    // Whatever is no body of frames for this disk is refused with its place.
    for bad in
        [&b""[..], b"lf-send1", &good[..good.len() - 1], &body(1 << 20, &[1; 512]), &body(100, &[1; 512])]
    {
        let answer = post(&running, &chunks, bad);
        assert_eq!(
            (answer.status, answer.json()["error"]["kind"].as_str()),
            (422, Some("corrupt")),
            "{:?}",
            answer.json()
        );
        assert!(answer.json()["error"]["offset"].is_u64());
    }
    let mut flipped = good.clone();
    flipped[80] ^= 1;
    assert_eq!(post(&running, &chunks, &flipped).status, 422);
    let long = vec![0; crate::receive::send::frame::BODY_AT_MOST + 1];
    assert_eq!(post(&running, &chunks, &long).status, 413);
    assert_eq!(post(&running, &chunks.replace("sda", "sdz"), &good).status, 409, "no such disk");
    // Nothing of all that was written.
    let digests = |numbers: &[u64]| {
        let question = json!({ "session": session, "of": "chunks", "numbers": numbers });
        running.local("POST", &format!("{replica}/disks/sda/digests"), Some(&question))
    };
    assert_eq!(digests(&[0]).body, blake3::hash(&vec![0; 1 << 20]).as_bytes());
    assert_eq!(digests(&[1]).status, 409);
    let taken = post(&running, &chunks, &good).json();
    assert_eq!((taken["written"].as_u64(), taken["checked"].as_u64()), (Some(8192), Some(8192)));
    // The points are those from before until the commit.
    let points =
        || running.local("GET", "/v1/machines/web09/points", None).json()["points"].as_array().unwrap().len();
    assert_eq!(points(), 0);
    let commit = |checked: u64, definition: Value| {
        let mut document = json!({ "session": session, "checked": { "sda": checked } });
        if !definition.is_null() {
            document["definition"] = definition;
        }
        running.local("POST", &format!("{replica}/commit"), Some(&document))
    };
    assert_eq!(commit(8193, Value::Null).status, 409, "less was read back");
    assert_eq!(commit(8192, json!({ "name": "x" })).status, 400, "no definition");
    let committed = commit(8192, Value::Null);
    assert_eq!((committed.status, committed.json()["verdict"].as_str()), (200, Some("matched")));
    assert_eq!(points(), 1);
    let shown = running.local("GET", "/v1/machines/web09/points/latest", None).json();
    assert_eq!((&shown["sent"]["number"], &shown["sent"]["id"]), (&json!(7), &target["id"]));
    assert_eq!(shown["point"]["at"], "2026-11-29T14:03:05.000Z");
    // It is over.
    assert_eq!(post(&running, &chunks, &good).status, 404);
    let held = running.local("GET", replica, None).json();
    assert_eq!((&held["holds"]["number"], &held["point"]), (&json!(7), &shown["point"]["number"]));
    // No point is made of it by the clock.
    running.service.cut_now(&"web09".parse().unwrap());
    assert_eq!(points(), 1);
    // Given up, a second one leaves what was there.
    let mut later = begin.clone();
    later["target"]["number"] = json!(8);
    later["target"]["at"] = json!("2026-11-29T14:03:06Z");
    let session = running.local("PUT", replica, Some(&later)).json()["session"].as_str().unwrap().to_owned();
    post(&running, &format!("{replica}/disks/sda/chunks?session={session}"), &body(0, &[9; 512]));
    assert_eq!(running.local("GET", replica, None).json()["unfinished"]["number"], 8);
    let given_up = running.local("DELETE", replica, None).json();
    assert_eq!((&given_up["holds"]["number"], &given_up["unfinished"]), (&json!(7), &Value::Null));
    let watched = running.service.machine(&"web09".parse().unwrap()).unwrap();
    let mut is = [1; 512];
    landfall_image::Disk::read_at(&watched.machine().live("sda").unwrap(), GuestOffset(0), &mut is).unwrap();
    assert_eq!(is, [0; 512]);
}

/// Over the network it is the certificate that counts, or a token, as the file says.
#[test]
fn who_may_send_is_said_in_the_file() {
    for (api, with_token, without) in [("", 200, 401), ("senders = \"token\"", 200, 401)] {
        let running = Running::set_up(api);
        let token = running.token("sender", Role::Operate);
        let reader = running.token("reader", Role::Read);
        let path = "/v1/machines/web01/replica";
        assert_eq!(running.remote("GET", path, Some(&token), None).status, with_token, "{api}");
        assert_eq!(running.remote("GET", path, Some(&reader), None).status, 403);
        assert_eq!(running.remote("GET", path, None, None).status, without);
    }
    for api in ["", "senders = \"certificate\"", "senders = \"both\""] {
        let running = Running::set_up(&format!("clients_ca = \"ca.pem\"\n{api}"));
        let token = running.token("sender", Role::Admin);
        let answer = running.remote("GET", "/v1/machines/web01/replica", Some(&token), None);
        assert_eq!(answer.status, 401, "{api}: no certificate");
        assert_eq!(
            running.remote("GET", "/v1/status", Some(&token), None).status,
            200,
            "the rest is as it was"
        );
    }
    let running = Running::set_up("clients_ca = \"ca.pem\"\nsenders = \"either\"");
    let token = running.token("sender", Role::Operate);
    assert_eq!(running.remote("GET", "/v1/machines/web01/replica", Some(&token), None).status, 200);
}
