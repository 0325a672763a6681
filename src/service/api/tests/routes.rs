//! What each route does, and that the document says so.

use super::super::table::routes;
use super::Running;
use crate::report::api::Role;
use axum::http::Method;
use serde_json::{Value, json};

/// A path that is there, and a body for it.
fn call_for(path: &str, method: &Method) -> (String, Option<Value>) {
    let body = match (path, method.as_str()) {
        ("/v1/machines/{name}", "PUT") => Some(json!({ "disks": [{ "name": "sda", "size": 1 << 20 }] })),
        ("/v1/tokens", "POST") => Some(json!({ "name": "new", "role": "read" })),
        ("/v1/certificates", "POST") => Some(json!({ "name": "new", "rights": { "send": ["*"] } })),
        (path, "PUT") if path.ends_with("/tag") => Some(json!({ "tag": "t" })),
        (path, "PUT") if path.ends_with("/role") => Some(json!({ "role": "replica" })),
        (path, "PUT") if path.ends_with("/hold") => {
            Some(json!({ "holder": "/recovered/web01", "held": false }))
        }
        (path, "POST") if path.ends_with("/proof") => Some(json!({
            "at": "2026-11-29T14:03:05Z", "target": "kvm", "outcome": "booted", "says": "login:", "folder": "/proofs/1"
        })),
        (path, "POST") if path.ends_with("/receive/pull") => Some(json!({ "disks": [] })),
        (path, "POST") if path.ends_with("/receive/rbd") => Some(json!({ "uploads": ["{upload}"] })),
        ("/v1/receive/folder", "POST") => Some(json!({ "folder": "{drops}" })),
        (_, "POST") => Some(json!({})),
        _ => None,
    };
    let is_by_name = ["/v1/tokens", "/v1/certificates"].iter().any(|start| path.starts_with(start));
    let name = if is_by_name { "old" } else { "web01" };
    let point = if *method == Method::DELETE { "{oldest}" } else { "latest" };
    let query = match path {
        "/v1/machines/{name}" if *method == Method::DELETE => "?points=delete",
        "/v1/uploads" => "?machine=web01&disk=sda",
        path if path.ends_with("/changes") => "?disk=sda&since={oldest}",
        _ => "",
    };
    (
        format!("{path}{query}").replace("{name}", name).replace("{point}", point).replace("{disk}", "sdb"),
        body,
    )
}

/// The router and the document are made of one table; this is about the table as a whole, and that nothing in it panics.
#[test]
fn every_route_is_documented_and_every_documented_one_answers() {
    let running = Running::set_up(
        "[receive]\nclients_ca = \"own/ca.pem\"\n[authority]\ncertificate = \"own/ca.pem\"\nkey = \"own/ca.key\"\n",
    );
    crate::authority::Authority::open(&running.dir.path().join("own")).unwrap();
    let rights = crate::receive::rights::Rights { send: vec!["*".into()], ..Default::default() };
    running.service.make_certificate("old", rights).unwrap();
    running.machine("web01", 3);
    let name = "web01".parse().unwrap();
    let sdb = crate::service::Wanted { name: "sdb".parse().unwrap(), size: 1 << 20, sector: 512 };
    let with_variables = running.service.protect(&name, &[sdb], None, Some(b"variables"));
    with_variables.unwrap();
    running.service.ready(&name).unwrap();
    running.token("old", Role::Read);
    let document = running.local("GET", "/openapi.json", None).json();
    let mut documented: Vec<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let mut in_table: Vec<(String, String)> =
        routes().iter().map(|route| (route.path.to_owned(), route.method.to_string())).collect();
    documented.sort();
    in_table.sort();
    assert_eq!(documented, in_table);
    assert!(in_table.windows(2).all(|pair| pair[0] != pair[1]), "a route is there twice");
    // Those that take away come last.
    documented.sort_by_key(|(path, method)| (method == "DELETE", path.ends_with("{name}"), path.clone()));
    let mut receipt = String::new();
    for (path, method) in documented {
        // A send is one thing after the other: `super::replica`.
        if path.contains("/replica") && method != "GET" {
            continue;
        }
        let oldest = running.service.points(&name).map_or(0, |points| points[0].number);
        let (call, body) = call_for(&path, &method.parse().unwrap());
        let call = call.replace("{oldest}", &oldest.to_string()).replace("{id}", &receipt);
        let body = body.map(|body| {
            let mut text =
                body.to_string().replace("{drops}", running.dir.path().join("drops").to_str().unwrap());
            if text.contains("{upload}") {
                let sent =
                    running.local("POST", "/v1/uploads?machine=web01&disk=sda", Some(&json!({}))).json();
                text = text.replace("{upload}", sent["id"].as_str().unwrap());
            }
            serde_json::from_str::<Value>(&text).unwrap()
        });
        // It is asked for what is there only once somebody has.
        if path.ends_with("/verify") {
            running.local("POST", &call, Some(&json!({})));
        }
        let answer = running.local(&method, &call, body.as_ref());
        let operation = &document["paths"][&path][method.to_lowercase()];
        let promised = operation["responses"].as_object().unwrap().keys().find(|status| *status != "default");
        assert_eq!(
            Some(&answer.status.to_string()),
            promised,
            "{method} {call}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        let content = operation["responses"][promised.unwrap()]["content"].as_object();
        match content.and_then(|content| content.keys().next()) {
            None => assert!(answer.body.is_empty(), "{method} {call}"),
            Some(kind) => {
                assert!(
                    answer.head.contains(&format!("content-type: {kind}")),
                    "{method} {call}: {}",
                    answer.head
                );
                if kind == "application/json" {
                    assert!(answer.json().is_object());
                    if answer.status == 202 && path.contains("/receive/") {
                        answer.json()["id"].as_str().unwrap().clone_into(&mut receipt);
                    }
                }
            }
        }
        assert!(!operation["summary"].as_str().unwrap().is_empty());
    }
}

#[test]
fn every_reference_of_the_document_is_there_and_every_part_of_a_path_is_described() {
    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(to) if key == "$ref" => out.push(to.to_owned()),
                _ => references(value, out),
            }),
            Value::Array(list) => list.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }
    let document = super::super::openapi::document(&routes());
    let mut all = Vec::new();
    references(&document, &mut all);
    assert!(all.len() > 30, "{}", all.len());
    for reference in all {
        let place = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{reference}");
    }
    // What is taken may leave out what is always answered.
    let schemas = &document["components"]["schemas"];
    assert!(schemas["MachineTaken"]["required"] != schemas["Machine"]["required"]);
    for route in routes() {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        for parameter in operation["parameters"].as_array().unwrap() {
            assert!(!parameter["description"].as_str().unwrap().is_empty(), "{} {parameter}", route.path);
        }
    }
}

#[test]
fn a_machine_is_protected_described_and_shrinks_only_on_purpose() {
    let running = Running::start();
    let path = "/v1/machines/web%2001";
    let absent = running.local("GET", path, None);
    assert_eq!(absent.status, 404);
    assert!(
        absent.json()["error"]["hint"].as_str().unwrap().contains("landfall protect"),
        "{:?}",
        absent.json()
    );
    let mut definition = crate::machine::Machine::new("web 01", landfall_image::Bytes::gib(2));
    definition.disks.push(crate::machine::DiskSlot::new("scsi0:0", crate::machine::Bus::Scsi, "scsi0-0"));
    let mut wanted = json!({
        "disks": [{ "name": "scsi0-0", "size": 1 << 20 }],
        "definition": definition,
        "variables": "dmFyaWFibGVz",
    });
    // A definition whose disks are others could not be recovered.
    wanted["definition"]["disks"][0]["file"] = "sda".into();
    let refused = running.local("PUT", path, Some(&wanted));
    assert_eq!(refused.status, 409);
    assert!(refused.json()["error"]["hint"].as_str().unwrap().contains("scsi0-0"), "{:?}", refused.json());
    assert_eq!(running.local("GET", path, None).status, 404, "nothing was begun");
    wanted["definition"]["disks"][0]["file"] = "scsi0-0".into();
    let shown = running.local("PUT", path, Some(&wanted));
    assert_eq!(shown.status, 200, "{:?}", shown.json());
    let shown = shown.json();
    assert_eq!(shown["machine"]["protection"], "unprotected");
    assert_eq!((&shown["variables"], &shown["definition"]["memory"]), (&json!(true), &json!(2_u64 << 30)));
    assert_eq!(shown["receive"][0]["export"], "web 01/scsi0-0");
    let uri = shown["receive"][0]["uris"][0].as_str().unwrap();
    assert!(uri.starts_with("nbd+unix:///web%2001/scsi0-0?socket=/"), "{uri}");
    // As it is shown, it can be given.
    let again =
        json!({ "disks": [{ "name": "scsi0-0", "size": 1 << 20 }], "definition": shown["definition"] });
    assert_eq!(running.local("PUT", path, Some(&again)).status, 200);
    let smaller = json!({ "disks": [{ "name": "scsi0-0", "size": 4096 }] });
    let refused = running.local("PUT", path, Some(&smaller));
    assert_eq!((refused.status, &refused.json()["outcome"]), (409, &json!("refused")));
    let second = json!({ "disks": [{ "name": "sdb", "size": 4096 }] });
    assert_eq!(
        running.local("PUT", path, Some(&second)).json()["machine"]["disks"].as_array().unwrap().len(),
        2
    );
    assert_eq!(running.local("DELETE", &format!("{path}/disks/sdc"), None).status, 404);
    let left = running.local("DELETE", &format!("{path}/disks/sdb"), None).json();
    assert_eq!(left["machine"]["disks"].as_array().unwrap().len(), 1);
    assert_eq!(
        running.local("PUT", "/v1/machines/x", Some(&json!({}))).status,
        409,
        "a machine without a disk"
    );
}

#[test]
fn points_are_set_found_named_and_given_up() {
    let running = Running::start();
    running.machine("web01", 3);
    let points = "/v1/machines/web01/points";
    let list = running.local("GET", points, None).json();
    let numbers: Vec<u64> =
        list["points"].as_array().unwrap().iter().map(|point| point["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), 3);
    let set = running.local("POST", points, Some(&json!({ "tag": "before", "consistency": "application" })));
    assert_eq!(set.status, 201);
    let set = set.json();
    assert_eq!(
        (&set["point"]["tag"], &set["point"]["consistency"]),
        (&json!("before"), &json!("application"))
    );
    let number = set["point"]["number"].as_u64().unwrap();
    let at = set["point"]["at"].as_str().unwrap();
    let spaced = at.trim_end_matches('Z').replace('T', "%20");
    for which in ["latest", "tag:before", "tag%3Abefore", at, &spaced, &number.to_string()] {
        let shown = running.local("GET", &format!("{points}/{which}"), None);
        assert_eq!(shown.status, 200, "{which}: {:?}", shown.json());
        assert_eq!(shown.json()["point"]["number"], number, "{which}");
    }
    let shown = running.local("GET", &format!("{points}/latest"), None).json();
    let uri = shown["disks"][0]["uri"].as_str().unwrap();
    assert!(uri.starts_with(&format!("nbd+unix:///web01/sda%40{number}?socket=/")), "{uri}");
    for (which, status) in
        [("tag:none", 404), ("999999", 404), ("2020-01-01T00:00:00Z", 404), ("yesterday", 400)]
    {
        let absent = running.local("GET", &format!("{points}/{which}"), None);
        assert_eq!(absent.status, status, "{which}");
        assert!(absent.json()["error"]["hint"].is_string(), "{which}: {:?}", absent.json());
    }
    // The name that it was set with can be taken back, and then it can be given up; the newest never.
    let path = |number: u64| format!("{points}/{number}");
    assert_eq!(running.local("DELETE", &path(number), None).status, 409, "it has a name");
    let bare = running.local("PUT", &format!("{}/tag", path(number)), Some(&json!({}))).json();
    assert_eq!(bare["point"].get("tag"), None);
    assert_eq!(running.local("DELETE", &path(number), None).status, 409, "it is the newest");
    assert_eq!(running.local("DELETE", &path(numbers[1]), None).status, 204);
    assert_eq!(running.local("GET", &path(numbers[1]), None).status, 404);
    let named = running.local("PUT", &format!("{}/tag", path(numbers[0])), Some(&json!({ "tag": "first" })));
    assert_eq!(named.json()["point"]["tag"], "first");
    let later = running.local("GET", &format!("{points}?since={at}"), None).json();
    assert_eq!(later["points"].as_array().unwrap().len(), 1);
    let bad = running.local("GET", &format!("{points}?sincee={at}"), None);
    assert_eq!(bad.status, 400);
}

#[test]
fn a_held_point_is_not_given_up_until_it_is_let_go() {
    let running = Running::start();
    running.machine("web01", 3);
    let number = running.service.points(&"web01".parse().unwrap()).unwrap()[0].number;
    let point = format!("/v1/machines/web01/points/{number}");
    let hold = |body: Value| running.local("PUT", &format!("{point}/hold"), Some(&body));
    for (body, status) in [
        (json!({ "holder": "" }), 400),
        (json!({ "holder": "a\nb" }), 400),
        (json!({}), 400),
        (json!({ "holder": "/recovered/web01" }), 200),
        (json!({ "holder": "/recovered/web01" }), 200),
    ] {
        assert_eq!(hold(body.clone()).status, status, "{body}");
    }
    let holds = running.local("GET", "/v1/holds", None).json();
    assert_eq!(
        holds["holds"],
        json!([{ "machine": "web01", "point": number, "holder": "/recovered/web01" }])
    );
    let refused = running.local("DELETE", &point, None);
    assert_eq!(refused.status, 409);
    assert!(
        refused.json()["error"]["says"].as_str().unwrap().contains("/recovered/web01"),
        "{:?}",
        refused.json()
    );
    assert_eq!(
        running.local("PUT", "/v1/machines/web01/points/77/hold", Some(&json!({ "holder": "x" }))).status,
        404
    );
    let gone = json!({ "holder": "x", "held": false });
    assert_eq!(running.local("PUT", "/v1/machines/web01/points/77/hold", Some(&gone)).status, 200);
    assert_eq!(hold(json!({ "holder": "/recovered/web01", "held": false })).json()["held"], false);
    assert_eq!(running.local("DELETE", &point, None).status, 204);
}

#[test]
fn metrics_are_lines_that_prometheus_reads() {
    let running = Running::start();
    running.machine("web01", 2);
    running.machine("db 01 (old), #2", 0);
    let page = running.local("GET", "/metrics", None);
    let text = String::from_utf8(page.body).unwrap();
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap()), "{line}");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(typed.contains(name), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    for wanted in [
        "landfall_points{machine=\"web01\"} 2",
        "landfall_points{machine=\"db 01 (old), #2\"} 0",
        "landfall_machines{protection=\"unprotected\"} 1",
        "landfall_rpo_target_seconds{machine=\"web01\"} 15",
        "landfall_point_failures_total{machine=\"web01\"} 0",
    ] {
        assert!(text.lines().any(|line| line == wanted), "{wanted} is not in\n{text}");
    }
}
