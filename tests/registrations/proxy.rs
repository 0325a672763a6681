//! A wire that breaks: passes connections on, and cuts or slows them on their way to the server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What becomes of a connection that has carried so many bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// It is cut; others are not.
    Once(usize),
    /// It is cut, and the server is never reached again.
    ForEver(usize),
    /// From then on it is slow.
    Slow(usize),
}

pub struct Proxy {
    pub address: SocketAddr,
    /// It has broken.
    pub broken: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(server: &str, how: Break) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy =
            Proxy { address: listener.local_addr().unwrap(), broken: Arc::new(AtomicBool::new(false)) };
        let (server, broken) = (server.to_owned(), Arc::clone(&proxy.broken));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { break };
                if broken.load(Ordering::SeqCst) && matches!(how, Break::ForEver(_)) {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(&server) else { break };
                let (from, to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to, |_| true));
                let broken = Arc::clone(&broken);
                std::thread::spawn(move || pass(client, upstream, |passed| go_on(how, passed, &broken)));
            }
        });
        proxy
    }
}

fn go_on(how: Break, passed: usize, broken: &AtomicBool) -> bool {
    match how {
        Break::Once(limit) | Break::ForEver(limit) if passed > limit => {
            // A wire that was mended stays whole.
            let first = !broken.swap(true, Ordering::SeqCst);
            !first && how == Break::Once(limit)
        }
        Break::Slow(limit) if passed > limit => {
            broken.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            true
        }
        _ => true,
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, go_on: impl Fn(usize) -> bool) {
    let mut buffer = [0; 16 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        passed += count;
        if !go_on(passed) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
