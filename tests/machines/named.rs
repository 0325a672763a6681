//! Where a machine's disks are read from: what the user names, what the definition means, and what neither leads to.

fn landfall() -> assert_cmd::Command {
    assert_cmd::Command::cargo_bin("landfall").unwrap()
}

/// A domain with disks: format, source's type and attribute.
fn domain(disks: &[(&str, &str, &str)]) -> String {
    let disk = |(number, (format, kind, source)): (usize, &(&str, &str, &str))| {
        format!(
            "<disk type='{kind}' device='disk'><driver name='qemu' type='{format}'/><source {source}/>\
             <target dev='vd{}' bus='virtio'/></disk>",
            ['a', 'b'][number]
        )
    };
    let disks: String = disks.iter().enumerate().map(disk).collect();
    format!(
        "<domain type='kvm'><name>a</name><memory>524288</memory><os><type arch='x86_64'>hvm</type></os>\
         <devices>{disks}</devices></domain>"
    )
}

/// The copy of a disk that the user names: read as what it is, or not at all.
#[test]
fn a_copy_is_read_as_what_it_is_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::File::create(at("empty.raw")).unwrap().set_len(8 << 20).unwrap();
    landfall().args(["disk", "convert"]).args([at("empty.raw"), at("copy.qcow2")]).assert().success();
    for name in ["copy", "copy.img", "copy.raw"] {
        std::fs::copy(at("copy.qcow2"), at(name)).unwrap();
    }
    std::fs::copy(at("empty.raw"), at("empty.img")).unwrap();
    let size = |format: &str, file: &str| {
        std::fs::write(at("a.xml"), domain(&[(format, "block", "dev='/dev/vg/a'")])).unwrap();
        let disk = format!("vda={}", at(file).display());
        let output =
            landfall().args(["inspect", "--json", "--disk", &disk]).arg(at("a.xml")).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let says = report["error"]["text"].as_str().unwrap_or_default().to_owned();
        (report["disks"][0]["virtual_size"].as_u64(), says)
    };
    for (format, file) in [
        ("raw", "copy.qcow2"),
        ("raw", "empty.raw"),
        ("raw", "empty.img"),
        ("qcow2", "copy.img"),
        ("qcow2", "copy"),
    ] {
        assert_eq!(size(format, file).0, Some(8 << 20), "{format} {file}");
    }
    for (format, file) in [("raw", "copy"), ("raw", "copy.img"), ("qcow2", "copy.raw")] {
        let (none, says) = size(format, file);
        assert!(none.is_none() && says.contains("looks like qcow2"), "{format} {file}: {says}");
    }
}

/// Two disks of two places that end alike are two disks; and nobody connects to where a definition says.
#[test]
fn a_definition_leads_to_no_other_disk_than_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::File::create(at("web.raw")).unwrap().set_len(8 << 20).unwrap();
    let inspect = |disks: &[(&str, &str, &str)]| {
        std::fs::write(at("a.xml"), domain(disks)).unwrap();
        let output = landfall().arg("inspect").arg(at("a.xml")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, says) =
        inspect(&[("raw", "file", "file='/one/web.raw'"), ("raw", "file", "file='/two/web.raw'")]);
    assert!(code == Some(1) && says.contains("another disk of the machine already"), "{says}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = format!("protocol='nbd' name='x'><host name='127.0.0.1' port='{port}'/></source><x");
    let (code, says) = inspect(&[("raw", "network", &source)]);
    assert!(code == Some(1) && says.contains("--disk vda=nbd"), "{says}");
    assert!(listener.accept().is_err(), "nobody came");
}
