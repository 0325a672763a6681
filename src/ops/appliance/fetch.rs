//! The packages of the list: from a folder where they are kept, else from a mirror. What does not have the list's digest is not used,
//! so that any mirror, and plain HTTP, will do.

use crate::transport::{TlsConnector, trusting};
use landfall_boot::appliance::package::{List, Package};
use landfall_image::convert::Cancel;
use landfall_image::{Bytes, Error, Result};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};

/// Where packages come from when nobody names a mirror: Debian's network, then Debian's memory of older versions.
pub const MIRRORS: [&str; 2] = ["http://deb.debian.org", "http://snapshot.debian.org/archive"];

const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(20);

/// Where packages are looked for.
pub struct Packages {
    /// Where they are kept: files by their own names.
    pub folder: PathBuf,
    /// Addresses below which there is `debian/pool/…` and `debian-security/pool/…`; empty: only the folder counts.
    pub mirrors: Vec<String>,
}

impl Packages {
    /// A package's file.
    ///
    /// # Errors
    /// `Io` where no mirror has it, `Corrupt` where a mirror has another file of that name.
    pub fn get(&self, list: &List, package: &Package, cancel: &Cancel) -> Result<Vec<u8>> {
        let place = self.folder.join(package.file_name());
        if let Ok(kept) = std::fs::read(&place)
            && is_right(package, &kept)
        {
            return Ok(kept);
        }
        if cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        let mut last = Error::io("is not there", std::io::ErrorKind::NotFound.into()).in_file(&place).hint(
            "put the packages of the list there (landfall appliance packages names them), or name a mirror with --mirror",
        );
        for mirror in &self.mirrors {
            let address = address(mirror, list, package);
            match download(&address, package) {
                Ok(bytes) if is_right(package, &bytes) => {
                    self.keep(&place, &bytes)?;
                    return Ok(bytes);
                }
                Ok(_) => {
                    last = Error::corrupt(format!(
                        "{address} is not the package that the list means: its SHA-256 differs"
                    ))
                    .hint("the mirror is damaged or has been tampered with; name another one with --mirror");
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn keep(&self, place: &Path, bytes: &[u8]) -> Result<()> {
        let failed = |e| Error::io("cannot keep the package", e).in_file(place);
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(failed)?;
        std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
        file.persist(place).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

fn is_right(package: &Package, bytes: &[u8]) -> bool {
    bytes.len() as u64 == package.size.0 && hex(&Sha256::digest(bytes)) == package.sha256
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a mirror has a package. Debian's memory has a folder for each moment.
fn address(mirror: &str, list: &List, package: &Package) -> String {
    let base = mirror.trim_end_matches('/');
    let moment = if base.ends_with("snapshot.debian.org/archive") {
        format!("/{}", list.snapshot)
    } else {
        String::new()
    };
    // The names have signs that addresses use otherwise.
    let path = package.path.replace('+', "%2B").replace('~', "%7E").replace(':', "%3A");
    format!("{base}/{}{moment}/{path}", package.archive)
}

fn download(address: &str, package: &Package) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::io(format!("cannot fetch {address}"), std::io::Error::other(e.to_string()))
            .hint("check the network; or name a mirror with --mirror, or a folder with the packages with --packages and --offline")
    };
    let config = Config::builder()
        .max_redirects(5)
        .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(SILENCE))
        .build();
    let agent = if address.starts_with("https:") {
        let connector = ().chain(TcpConnector::default()).chain(TlsConnector(trusting(None)?));
        Agent::with_parts(config, connector, DefaultResolver::default())
    } else {
        Agent::with_parts(config, TcpConnector::default(), DefaultResolver::default())
    };
    let mut answer = agent.get(address).call().map_err(|e| failed(&e))?;
    let at_most = package.size.0.min(Bytes::gib(2).0);
    let mut bytes = Vec::new();
    answer.body_mut().as_reader().take(at_most + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn package(content: &[u8]) -> Package {
        Package {
            name: "x".into(),
            version: "1".into(),
            archive: "debian".into(),
            path: "pool/main/x/x_1:2+b_all.deb".into(),
            size: Bytes(content.len() as u64),
            sha256: hex(&Sha256::digest(content)),
        }
    }

    fn list() -> List {
        List { snapshot: "20261130T000000Z".into(), packages: Vec::new() }
    }

    /// Answers every request with `content`; gives what was asked for.
    fn server(content: &'static [u8]) -> (String, std::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let _ =
                    tell.send(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned());
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    content.len()
                );
                let _ = stream.write_all(content);
            }
        });
        (address, told)
    }

    #[test]
    fn a_wrong_file_is_not_used_and_a_right_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (bad, _) = server(b"goof");
        let (good, told) = server(b"good");
        let mut packages = Packages { folder: dir.path().join("kept"), mirrors: vec![bad] };
        let package = package(b"good");
        let error = packages.get(&list(), &package, &Cancel::default()).unwrap_err();
        assert_eq!(error.kind(), landfall_image::Kind::Corrupt);
        packages.mirrors.push(good);
        assert_eq!(packages.get(&list(), &package, &Cancel::default()).unwrap(), b"good");
        assert_eq!(told.recv().unwrap(), "GET /debian/pool/main/x/x_1%3A2%2Bb_all.deb HTTP/1.1");
        packages.mirrors.clear();
        assert_eq!(packages.get(&list(), &package, &Cancel::default()).unwrap(), b"good");
        std::fs::write(packages.folder.join(package.file_name()), b"torn").unwrap();
        let error = packages.get(&list(), &package, &Cancel::default()).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--mirror")), "{error}");
    }

    #[test]
    fn the_memory_has_a_folder_for_each_moment() {
        let at = address(MIRRORS[1], &list(), &package(b""));
        assert!(at.starts_with("http://snapshot.debian.org/archive/debian/20261130T000000Z/pool/"), "{at}");
    }
}
