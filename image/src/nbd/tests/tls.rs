//! Encryption: with the right certificates it works, with any other nothing is ever sent.

use super::*;
use crate::testing::{MemDisk, mixed, read_all};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::PathBuf;
use std::sync::Arc;

/// An authority, with files of certificates that it made.
struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new(names: &[(&str, &str)]) -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(dir.path().join("ca-cert.pem"), ca.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for (file, name) in names {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![(*name).to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
            std::fs::write(dir.path().join(format!("{file}-cert.pem")), certificate.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{file}-key.pem")), key.serialize_pem()).unwrap();
        }
        Authority { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn files(&self, ca: bool, own: Option<&str>) -> TlsFiles {
        TlsFiles {
            ca: ca.then(|| self.path("ca.pem")),
            certificate: own.map(|own| self.path(&format!("{own}-cert.pem"))),
            key: own.map(|own| self.path(&format!("{own}-key.pem"))),
        }
    }
}

fn connect(uri: &str, tls: TlsFiles) -> Result<Client> {
    let client = Client::connect(&Uri::parse(uri)?, &ClientOptions { tls, ..ClientOptions::default() })?;
    // With TLS 1.3 a client hears only here that its certificate is not wanted.
    client.read_at(GuestOffset(0), &mut [0; 512])?;
    Ok(client)
}

#[test]
fn an_encrypted_disk_is_read_by_our_own_client_and_by_libnbd() {
    let ours = Authority::new(&[("server", "localhost"), ("client", "somebody")]);
    let strangers = Authority::new(&[("server", "localhost"), ("client", "somebody")]);
    let disk = mixed(1, Bytes(6 << 20));
    let whole = read_all(&disk).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = ServeOptions { tls: Some(ours.files(true, Some("server"))), ..ServeOptions::default() };
    let listener = Listener::unix(&dir.path().join("s")).unwrap();
    served(Content::ReadOnly(Arc::new(disk.clone())), options, listener, |uri| {
        assert!(uri.starts_with("nbds+unix://"), "{uri}");
        let client = connect(uri, ours.files(true, Some("client"))).unwrap();
        let options = crate::convert::Options { jobs: 4, ..Default::default() };
        assert!(crate::convert::compare(&disk, &client, &options).unwrap().is_identical());
        drop(client);
        for (what, uri, tls, kind) in [
            ("no authority", uri.to_owned(), TlsFiles::default(), Kind::Refused),
            ("another authority", uri.to_owned(), strangers.files(true, None), Kind::Refused),
            (
                "another host",
                format!("{uri}&tls-hostname=other"),
                ours.files(true, Some("client")),
                Kind::Refused,
            ),
            ("no certificate", uri.to_owned(), ours.files(true, None), Kind::Io),
            (
                "a stranger's certificate",
                uri.to_owned(),
                TlsFiles { ca: Some(ours.path("ca.pem")), ..strangers.files(false, Some("client")) },
                Kind::Io,
            ),
            ("in the clear", uri.replace("nbds", "nbd"), TlsFiles::default(), Kind::Refused),
        ] {
            let error = connect(&uri, tls).err().expect(what);
            assert_eq!(error.kind(), kind, "{what}: {error}");
        }
        let error = connect(&uri.replace("nbds", "nbd"), TlsFiles::default()).err().unwrap();
        assert!(error.hint_text().unwrap().contains("nbds://"), "{error}");
        {
            let certificates = dir.path().join("pki");
            std::fs::create_dir(&certificates).unwrap();
            for (from, to) in [
                ("ca.pem", "ca-cert.pem"),
                ("client-cert.pem", "client-cert.pem"),
                ("client-key.pem", "client-key.pem"),
            ] {
                std::fs::copy(ours.path(from), certificates.join(to)).unwrap();
            }
            let uri = format!("{uri}&tls-certificates={}", certificates.display());
            // This libnbd takes the host's name for verification from a TCP connection alone.
            let copied = dir.path().join("copied");
            let script = format!(
                "h.set_tls(nbd.TLS_REQUIRE)\nh.set_tls_verify_peer(False)\nh.set_uri_allow_local_file(True)\n\
                 h.connect_uri({uri:?})\nassert h.get_tls_negotiated()\n\
                 open({:?}, 'wb').write(h.pread(h.get_size(), 0))\nh.shutdown()",
                copied.to_str().unwrap()
            );
            if super::server::libnbd(&dir.path().join("script.py"), &script) {
                assert!(std::fs::read(copied).unwrap() == whole);
            }
        }
    });
}

#[test]
fn a_server_of_another_maker_is_read_encrypted_and_one_without_tls_is_refused() {
    let ours = Authority::new(&[("server", "localhost"), ("client", "somebody")]);
    let dir = tempfile::tempdir().unwrap();
    let disk = mixed(1, Bytes(6 << 20));
    let raw = dir.path().join("raw");
    std::fs::write(&raw, read_all(&disk).unwrap()).unwrap();
    let certificates = format!("--tls-certificates={}", ours.dir.path().display());
    if let Some(mut nbdkit) = program("nbdkit", "nbdkit") {
        nbdkit.arg("-f");
        let args = ["--tls=require", &certificates, "-r", "file", raw.to_str().unwrap()];
        let server = super::client::Other::start(nbdkit, "-U", &args, "");
        let uri = server.uri.replace("nbd+unix", "nbds+unix");
        let client = connect(&uri, ours.files(true, None)).unwrap();
        let options = crate::convert::Options { jobs: 4, ..Default::default() };
        assert!(crate::convert::compare(&disk, &client, &options).unwrap().is_identical());
        let error = connect(&server.uri, TlsFiles::default()).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
    served(Content::ReadOnly(Arc::new(disk)), ServeOptions::default(), localhost(), |uri| {
        let error = connect(&uri.replace("nbd:", "nbds:"), ours.files(true, None)).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.says().contains("refuses TLS"), "{error}");
    });
}

#[test]
fn a_key_of_another_certificate_is_named_with_it() {
    let ours = Authority::new(&[("server", "localhost"), ("client", "somebody")]);
    let mixed = TlsFiles { key: Some(ours.path("client-key.pem")), ..ours.files(true, Some("server")) };
    for error in [mixed.server().err().unwrap(), mixed.client().err().unwrap()] {
        let says = error.to_string();
        assert!(says.contains("client-key.pem") && says.contains("server-cert.pem"), "{says}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("openssl pkey")), "{error:?}");
    }
}

#[test]
fn files_that_hold_no_certificate_are_named() {
    let ours = Authority::new(&[("server", "localhost")]);
    std::fs::write(ours.path("empty.pem"), b"").unwrap();
    let content = || Content::ReadOnly(Arc::new(MemDisk::new(Bytes(512))));
    for (what, tls) in [
        ("none", TlsFiles::default()),
        ("no key", TlsFiles { key: None, ..ours.files(false, Some("server")) }),
        ("no certificate", TlsFiles { certificate: None, ..ours.files(false, Some("server")) }),
        (
            "an empty file",
            TlsFiles { certificate: Some(ours.path("empty.pem")), ..ours.files(false, Some("server")) },
        ),
        (
            "a certificate as key",
            TlsFiles { key: Some(ours.path("ca.pem")), ..ours.files(false, Some("server")) },
        ),
        (
            "another's key",
            TlsFiles { certificate: Some(ours.path("ca.pem")), ..ours.files(false, Some("server")) },
        ),
    ] {
        let options = ServeOptions { tls: Some(tls), ..ServeOptions::default() };
        let error = Server::new(content(), options).err().expect(what);
        assert_eq!(error.kind(), Kind::Refused, "{what}: {error}");
    }
}
