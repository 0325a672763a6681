//! The API in this process, over real sockets.

mod flows;
mod limits;
mod replica;
mod routes;
mod who;

use super::{Api, Limits, bind};
use crate::name::Name;
use crate::report::api::Role;
use crate::service::config::Config;
use crate::service::{Service, Wanted};
use landfall_image::{DiskMut, GuestOffset};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// An API that runs, with the service's thread that verifies.
struct Running {
    dir: tempfile::TempDir,
    service: Arc<Service>,
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn start() -> Running {
        Running::with(Limits::default())
    }

    fn with(limits: Limits) -> Running {
        Running::made(limits, "")
    }

    /// With more in `[api]`.
    fn set_up(api: &str) -> Running {
        Running::made(Limits::default(), api)
    }

    fn made(limits: Limits, api: &str) -> Running {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let text = format!(
            "vault = \"vault\"\nsockets = \".\"\n[upkeep]\nlow = 1\nscarce = 1\n[[folder]]\npath = \"drops\"\n\
             [api]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n{api}\n"
        );
        let config = Config::parse(&text, dir.path()).unwrap();
        let service = Service::open(config).unwrap();
        let api = bind(&service, limits).unwrap();
        let addresses = api.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = std::thread::spawn(move || run(api, stopped));
        let verifying = std::thread::spawn({
            let service = Arc::clone(&service);
            move || service.verify_points()
        });
        Running { dir, service, addresses, stop: Some(stop), threads: vec![serving, verifying] }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// A machine with a disk and so many points.
    fn machine(&self, name: &str, points: u8) {
        let name: Name = name.parse().unwrap();
        let disk = Wanted { name: "sda".parse().unwrap(), size: 1 << 20, sector: 512 };
        self.service.protect(&name, &[disk], None, None).unwrap();
        let watched = self.service.machine(&name).unwrap();
        for fill in 1..=points {
            watched.machine().live("sda").unwrap().write_at(GuestOffset(4096), &[fill; 70_000]).unwrap();
            self.service.ready(&name).unwrap();
        }
    }

    fn token(&self, name: &str, role: Role) -> String {
        let secret = super::caller::new_secret().unwrap();
        self.service.catalog().add_token(name, &super::secret_digest(&secret), role).unwrap();
        secret
    }

    /// A call over the local socket.
    fn local(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        exchange(UnixStream::connect(self.socket()).unwrap(), request(method, path, &[], &body).as_bytes())
    }

    /// A call over TLS.
    fn remote(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> =
            bearer.as_deref().map(|bearer| ("Authorization", bearer)).into_iter().collect();
        exchange(self.tls(), request(method, path, &headers, &body).as_bytes())
    }

    fn tls(&self) -> impl Read + Write + use<> {
        let config = crate::transport::trusting(Some(&self.dir.path().join("ca.pem"))).unwrap();
        let name = "localhost".try_into().unwrap();
        let connection = rustls::ClientConnection::new(config, name).unwrap();
        let socket = TcpStream::connect(self.addresses[0]).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        rustls::StreamOwned::new(connection, socket)
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.service.stop();
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(api: Api, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(api.run(async { drop(stopped.await) })).unwrap();
}

/// An authority (`ca.pem`), and a certificate of it for localhost (`server.pem`, `server.key`).
fn certificates(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn parse(raw: &[u8]) -> Option<Answer> {
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&raw[..end]).to_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head, body: raw[end + 4..].to_vec() })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    format!("{text}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends it, and reads to the end.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Answer {
    let raw = try_exchange(&mut stream, request);
    Answer::parse(&raw).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&raw)))
}

fn try_exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Vec<u8> {
    // It may hang up before it has heard all.
    let _ = stream.write_all(request);
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw);
    raw
}
