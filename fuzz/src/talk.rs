//! The input as one side of an NBD connection.

use crate::exercise;
use landfall_image::nbd::{self, Client, ClientOptions, Export, Uri};
use landfall_image::overlay::Overlay;
use landfall_image::testing::{MemDisk, mixed};
use landfall_image::{Bytes, GuestOffset, GuestRange};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

struct Place {
    _folder: tempfile::TempDir,
    uri: Uri,
    inputs: Sender<Vec<u8>>,
}

/// A server that says what it is given, one connection after the other.
fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let uri = Uri::parse(&format!("nbd+unix:///?socket={}", socket.display())).expect("a URI");
        let (inputs, queue) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            while let Ok(input) = queue.recv() {
                let Ok((stream, _)) = listener.accept() else { continue };
                say(stream, &input);
            }
        });
        crate::limit_memory();
        Place { _folder: folder, uri, inputs }
    })
}

/// Says everything, and hears the other side out.
fn say(mut stream: UnixStream, input: &[u8]) {
    let hears = stream.try_clone().map(|mut stream| {
        std::thread::spawn(move || {
            let mut heard = [0; 4096];
            while stream.read(&mut heard).is_ok_and(|n| n > 0) {}
        })
    });
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    if let Ok(hears) = hears {
        let _ = hears.join();
    }
}

/// What a server says.
pub fn client(input: &[u8]) {
    let place = place();
    if place.inputs.send(input.to_vec()).is_err() {
        return;
    }
    let options =
        ClientOptions { connections: 1, timeout: Duration::from_secs(2), ..ClientOptions::default() };
    let Ok(client) = Client::connect(&place.uri, &options) else { return };
    let _ = client.details();
    // The server may say one thing now and another then: nothing but the shape of its answers is held against it.
    let _ = exercise::shape(&client);
    if !client.is_read_only() {
        let unit = usize::try_from(client.block_size().0).unwrap_or(0).min(1 << 16);
        let _ = client.write_at(GuestOffset(0), &vec![7; unit]);
        let _ = client.zero_at(GuestRange::new(GuestOffset(0), Bytes(unit as u64)));
    }
    let _ = client.flush();
}

/// What a client says.
pub fn server(input: &[u8]) {
    static BASE: OnceLock<Arc<MemDisk>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        crate::limit_memory();
        Arc::new(mixed(1, Bytes(6 << 20)))
    });
    let Ok((ours, theirs)) = UnixStream::pair() else { return };
    let input = input.to_vec();
    let speaker = std::thread::spawn(move || say(theirs, &input));
    if let Ok(disk) = Overlay::new(base.clone(), &std::env::temp_dir()) {
        let _ = nbd::serve(&disk, &ours, Export::default());
    }
    let _ = ours.shutdown(Shutdown::Both);
    drop(ours);
    let _ = speaker.join();
}
