//! Who is let in, and who is not.

use super::super::caller::{Origin, let_in};
use super::super::server::is_own;
use super::super::table::routes;
use super::{Running, certificates, exchange, request};
use crate::report::api::Role;
use axum::http::HeaderMap;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Each route with each role: what is not allowed is refused before anything is looked at, and what is allowed is not.
#[test]
fn each_role_opens_its_routes_and_no_others() {
    let running = Running::start();
    let tokens = Role::ALL.map(|role| (role, running.token(role.name(), role)));
    for route in routes() {
        // Nothing is there: where one is let in, that is what one hears.
        let path = route.path.replace("{name}", "none").replace("{point}", "1").replace("{disk}", "none");
        let method = route.method.as_str();
        let stranger = running.remote(method, &path, None, None);
        let wrong = running.remote(method, &path, Some(&format!("lf_{}", "0".repeat(64))), None);
        match route.role {
            None => assert_eq!((stranger.status, wrong.status), (200, 200), "{path}"),
            Some(_) => {
                assert_eq!((stranger.status, wrong.status), (401, 401), "{method} {path}");
                assert!(stranger.head.contains("www-authenticate: bearer"), "{}", stranger.head);
                assert!(stranger.json()["error"]["hint"].is_string());
            }
        }
        for (role, token) in &tokens {
            let status = running.remote(method, &path, Some(token), None).status;
            let may = route.role.is_none_or(|needs| *role >= needs);
            assert_eq!(status == 403, !may, "{method} {path} as {}: {status}", role.name());
            assert_ne!(status, 401, "{method} {path} as {}", role.name());
        }
    }
    let (_, admin) = &tokens[2];
    let scheme = exchange(
        running.tls(),
        request("GET", "/v1/status", &[("Authorization", "Basic eDp5")], "").as_bytes(),
    );
    assert_eq!(scheme.status, 401);
    // A secret is shown once, works, and no more when it is taken back.
    let made =
        running.remote("POST", "/v1/tokens", Some(admin), Some(&json!({ "name": "new", "role": "read" })));
    assert_eq!(made.status, 201);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("lf_"));
    assert_eq!(running.remote("GET", "/v1/status", Some(&secret), None).status, 200);
    let list = running.remote("GET", "/v1/tokens", Some(admin), None);
    assert!(!String::from_utf8_lossy(&list.body).contains(&secret));
    let twice =
        running.remote("POST", "/v1/tokens", Some(admin), Some(&json!({ "name": "new", "role": "read" })));
    assert_eq!(twice.status, 409);
    assert_eq!(running.remote("DELETE", "/v1/tokens/new", Some(admin), None).status, 204);
    assert_eq!(running.remote("DELETE", "/v1/tokens/new", Some(admin), None).status, 404);
    assert_eq!(running.remote("GET", "/v1/status", Some(&secret), None).status, 401);
    // The secret itself is nowhere in the vault.
    for entry in std::fs::read_dir(running.dir.path().join("vault")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(20).any(|part| part == &secret.as_bytes()[..20]), "{}", path.display());
    }
}

#[test]
fn without_tls_nothing_is_answered() {
    let running = Running::start();
    let mut socket = TcpStream::connect(running.addresses[0]).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let raw = super::try_exchange(&mut socket, request("GET", "/healthz", &[], "").as_bytes());
    assert!(!String::from_utf8_lossy(&raw).contains("HTTP"), "{raw:?}");
    // And a client that does not know the authority does not go on.
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connection = rustls::ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(running.addresses[0]).unwrap());
    assert!(stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn the_local_socket_is_this_users_and_roots() {
    let running = Running::start();
    let mode = std::fs::metadata(running.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(is_own(0) && is_own(rustix::process::geteuid().as_raw()) && !is_own(65_534));
    // Whoever can open the socket by a mistake in its mode is still known for who it is.
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can try the local socket as another user");
        return;
    }
    open_by_mistake(&running);
    let Some(root) = ask_as(&running, "0", "GET", "/v1/status") else {
        eprintln!("SKIPPED: python3 is not here to try the local socket as another user");
        return;
    };
    assert_eq!(root, "HTTP/1.1 200");
    assert_eq!(ask_as(&running, "65534", "GET", "/v1/status").unwrap(), "");
}

#[test]
fn the_viewer_on_this_machine_looks_and_does_no_more() {
    let running = Running::set_up("viewer = \"65534\"");
    let mode = std::fs::metadata(running.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // What it may is what the role read may, on every route.
    let catalog = running.service.catalog();
    for route in routes() {
        let Some(needs) = route.role else { continue };
        let may = |uid| let_in(catalog, Origin::Local { uid }, &HeaderMap::new(), needs);
        assert_eq!(may(65_534).is_ok(), needs == Role::Read, "{} {}", route.method, route.path);
        assert!(may(rustix::process::geteuid().as_raw()).is_ok());
        let changes = ["POST", "PUT", "DELETE"].contains(&route.method.as_str());
        assert!(!(changes && may(65_534).is_ok()), "{} {}", route.method, route.path);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can try the local socket as another user");
        return;
    }
    open_by_mistake(&running);
    let Some(looked) = ask_as(&running, "65534", "GET", "/v1/status") else {
        eprintln!("SKIPPED: python3 is not here to try the local socket as another user");
        return;
    };
    assert_eq!(looked, "HTTP/1.1 200");
    for (method, path) in [
        ("POST", "/v1/machines/none/points"),
        ("PUT", "/v1/machines/none"),
        ("DELETE", "/v1/machines/none"),
        ("GET", "/v1/tokens"),
    ] {
        assert_eq!(ask_as(&running, "65534", method, path).unwrap(), "HTTP/1.1 403", "{method} {path}");
    }
    // Nobody else has come in with it.
    assert_eq!(ask_as(&running, "65533", "GET", "/v1/status").unwrap(), "");
}

/// Lets everybody open the socket, which is no reason to answer.
fn open_by_mistake(running: &Running) {
    std::fs::set_permissions(running.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(running.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
}

/// The first word and the status of the answer to a user of that number, empty where it is turned away; `None` without Python.
fn ask_as(running: &Running, uid: &str, method: &str, path: &str) -> Option<String> {
    let script = "import os, socket, sys\n\
                  os.setgroups([]); os.setgid(65534); os.setuid(int(sys.argv[2]))\n\
                  s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
                  try:\n    s.sendall(f'{sys.argv[3]} {sys.argv[4]} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'.encode())\n    \
                  print(s.recv(65536).decode()[:12])\n\
                  except ConnectionError:\n    print('')\n";
    let socket = running.socket();
    let asked = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(&socket)
        .args([uid, method, path])
        .stderr(Stdio::inherit())
        .output();
    let asked = asked.ok().filter(|asked| asked.status.success())?;
    Some(String::from_utf8(asked.stdout).unwrap().trim().to_owned())
}

#[test]
fn a_new_certificate_is_shown_without_a_restart() {
    let running = Running::start();
    let old_authority = running.dir.path().join("ca.pem");
    let shown = |running: &Running| {
        let mut stream = running.tls();
        stream.write_all(request("GET", "/healthz", &[], "").as_bytes())?;
        stream.read(&mut [0; 64])
    };
    assert!(shown(&running).is_ok());
    let kept = std::fs::read(&old_authority).unwrap();
    certificates(running.dir.path());
    // It looks every ten seconds.
    let begin = std::time::Instant::now();
    while shown(&running).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the new authority's certificate is not shown");
        std::thread::sleep(Duration::from_millis(200));
    }
    std::fs::write(&old_authority, kept).unwrap();
    assert!(shown(&running).is_err(), "the old one is gone");
}
