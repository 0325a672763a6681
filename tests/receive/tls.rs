//! TLS: with a certificate of the authority a client is let in and known by it; without, it hears nothing.

use super::*;
use landfall_image::Kind;
use landfall_image::nbd::{Client, ClientOptions, TlsFiles, Uri};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sha2::{Digest, Sha256};

/// An authority, with files of certificates that it made, named as libnbd and QEMU look for them.
pub struct Authority {
    dir: tempfile::TempDir,
    client_der: Vec<u8>,
}

impl Authority {
    pub fn new() -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        std::fs::write(dir.path().join("ca-cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let mut client_der = Vec::new();
        for (file, names) in [("server", ["localhost", "127.0.0.1"]), ("client", ["web01", "web01.example"])]
        {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names.map(String::from).to_vec()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if file == "client" {
                params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
            }
            params.distinguished_name.push(DnType::CommonName, names[0]);
            let certificate = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(dir.path().join(format!("{file}-cert.pem")), certificate.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{file}-key.pem")), key.serialize_pem()).unwrap();
            if file == "client" {
                client_der = certificate.der().to_vec();
            }
        }
        Authority { dir, client_der }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn files(&self, own: Option<&str>) -> TlsFiles {
        TlsFiles {
            ca: Some(self.path("ca-cert.pem")),
            certificate: own.map(|own| self.path(&format!("{own}-cert.pem"))),
            key: own.map(|own| self.path(&format!("{own}-key.pem"))),
        }
    }

    fn receiver(&self) -> Running {
        Running::with(Limits::default(), |_| {
            vec![Listen::Tcp {
                address: "127.0.0.1:0".parse().unwrap(),
                tls: Some(self.files(Some("server"))),
                anybody_on_this_machine: false,
            }]
        })
    }
}

pub fn connect(uri: &str, tls: TlsFiles) -> Result<Client> {
    let client = Client::connect(&Uri::parse(uri)?, &ClientOptions { tls, ..ClientOptions::default() })?;
    // With TLS 1.3 a client hears only here that its certificate is not wanted.
    client.read_at(GuestOffset(0), &mut [0; 512])?;
    Ok(client)
}

#[test]
fn only_certificates_of_the_authority_open_the_door() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    let running = ours.receiver();
    let disk = running.disk("web01/sda", 1 << 20);
    let uri = format!("nbds://{}/web01/sda", running.addresses[0]);
    let client = connect(&uri, ours.files(Some("client"))).unwrap();
    client.write_at(GuestOffset(4096), &vec![7; 300 << 10]).unwrap();
    client.flush().unwrap();
    assert!(disk.ops().contains(&Op::Flush));
    assert_eq!(read_all(&*disk)[4096..][..300 << 10], vec![7; 300 << 10]);
    {
        let asked = running.shelf.asked.lock().unwrap();
        let certificate = asked[0].1.certificate.clone().unwrap();
        assert_eq!(certificate.subject, "CN=web01,O=Example\\, Inc.");
        assert_eq!(certificate.sha256[..], Sha256::digest(&ours.client_der)[..]);
    }
    drop(client);
    running.wait_for("0 left: the client left");
    running.shelf.asked.lock().unwrap().clear();
    let plain = uri.replace("nbds", "nbd");
    for (what, uri, tls, kind) in [
        ("no certificate", &uri, ours.files(None), Kind::Io),
        (
            "a stranger's certificate",
            &uri,
            TlsFiles { ca: Some(ours.path("ca-cert.pem")), ..strangers.files(Some("client")) },
            Kind::Io,
        ),
        ("in the clear", &plain, TlsFiles::default(), Kind::Refused),
    ] {
        let error = connect(uri, tls).err().expect(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
    assert!(running.shelf.asked.lock().unwrap().is_empty(), "nobody of them could ask for an export");
    // The third was told to encrypt, and left.
    let stats = running.until(|stats| stats.connections == 0);
    assert_eq!(stats.not_let_in, 2);
}

/// One that is killed says goodbye to neither: it is said in our words.
#[test]
fn who_vanishes_is_told_of_as_without_encryption() {
    let ours = Authority::new();
    let running = ours.receiver();
    running.disk("web01/sda", 1 << 20);
    let uri = format!(
        "nbds://localhost:{}/web01/sda?tls-certificates={}",
        running.addresses[0].port(),
        ours.dir.path().display()
    );
    let Some(mut python) = nbdsh::python() else { return };
    let script = format!(
        "import nbd, os\nh = nbd.NBD()\nh.set_uri_allow_local_file(True)\nh.connect_uri({uri:?})\nh.pread(512, 0)\nos.kill(os.getpid(), 9)\n"
    );
    let out = python.args(["-c", &script]).output().unwrap();
    assert_eq!(out.status.code(), None, "{}", String::from_utf8_lossy(&out.stderr));
    let event = running.wait_for("0 left");
    assert!(event.ends_with("hung up without a goodbye"), "{event}");
}

/// In the clear there is one answer to everything, whether or not the export exists.
#[test]
fn before_tls_nothing_is_told() {
    use landfall_image::nbd::protocol::*;
    use std::io::{Read, Write};
    let ours = Authority::new();
    let running = ours.receiver();
    running.disk("web01/sda", 1 << 20);
    let mut stream = std::net::TcpStream::connect(running.addresses[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&3u32.to_be_bytes()).unwrap();
    let mut ask = |number: u32, data: &[u8]| {
        stream.write_all(&hostile::option(number, data)).unwrap();
        let mut head = [0; 20];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[8..12], number.to_be_bytes());
        assert_eq!(head[16..], [0; 4], "no words with it");
        u32::from_be_bytes(head[12..16].try_into().unwrap())
    };
    let contexts = [&4u32.to_be_bytes()[..], b"none", &[0; 4]].concat();
    for (number, data) in [
        (OPT_LIST, vec![]),
        (OPT_INFO, hostile::go("web01/sda")),
        (OPT_GO, hostile::go("web01/sda")),
        (OPT_GO, hostile::go("web01/none")),
        (OPT_GO, vec![1]),
        (OPT_STRUCTURED_REPLY, vec![]),
        (OPT_LIST_META_CONTEXT, contexts.clone()),
        (OPT_SET_META_CONTEXT, contexts),
        (77, vec![]),
    ] {
        assert_eq!(ask(number, &data), REP_ERR_TLS_REQD, "option {number}");
    }
    assert_eq!(ask(OPT_STARTTLS, b"x"), REP_ERR_INVALID);
    // Bytes sent in the clear behind STARTTLS are no part of what is said encrypted (CVE-2021-3716 was that).
    let smuggled =
        [hostile::option(OPT_STARTTLS, b""), hostile::option(OPT_GO, &hostile::go("web01/sda"))].concat();
    stream.write_all(&smuggled).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    assert_eq!(said[12..16], REP_ACK.to_be_bytes());
    assert!(running.shelf.asked.lock().unwrap().is_empty());
    // EXPORT_NAME has no answer but the end.
    let mut stream = std::net::TcpStream::connect(running.addresses[0]).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream
        .write_all(&[&3u32.to_be_bytes()[..], &hostile::option(OPT_EXPORT_NAME, b"web01/sda")].concat())
        .unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    assert!(running.shelf.asked.lock().unwrap().is_empty());
}

#[test]
fn clients_of_other_makers_encrypt() {
    let ours = Authority::new();
    let running = ours.receiver();
    let disk = running.disk("web01/sda", 3 << 20);
    let whole = noise(9, 3 << 20);
    std::fs::write(running.path("in.raw"), &whole).unwrap();
    let address = running.addresses[0];
    let dir = ours.dir.path().display().to_string();
    if let Some(mut qemu_img) = program("qemu-img", "qemu-utils") {
        output(qemu_img.args(["convert", "-n", "-f", "raw", &running.path("in.raw")]).args([
            "--object",
            &format!("tls-creds-x509,id=t,endpoint=client,verify-peer=yes,dir={dir}"),
            "--target-image-opts",
            &format!(
                "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={},export=web01/sda,tls-creds=t",
                address.port()
            ),
        ]));
        assert!(read_all(&*disk) == whole, "qemu-img");
    }
    if let Some(mut nbdcopy) = program("nbdcopy", "libnbd-bin") {
        disk.inner.zero_at(GuestRange::new(GuestOffset(0), Bytes(3 << 20))).unwrap();
        let uri = format!("nbds://localhost:{}/web01/sda?tls-certificates={dir}", address.port());
        output(nbdcopy.args([&running.path("in.raw"), &uri]));
        assert!(read_all(&*disk) == whole, "nbdcopy");
    }
}
