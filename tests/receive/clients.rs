//! Clients of other makers copy disks in and out, and are told the truth about them.

use super::*;

#[test]
fn nbdinfo_sees_what_is_offered() {
    let Some(mut nbdinfo) = program("nbdinfo", "libnbd-bin") else { return };
    let running = Running::start();
    running.disk("web01/sda", 6 << 20);
    running.add("web01/cd", Arc::new(running.recorder("cd", 1 << 20)), true);
    let text = output(nbdinfo.arg(running.uri("web01/sda")));
    for says in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "export=\"web01/sda\"",
        "description: the disk web01/sda",
        "export-size: 6291456",
        "base:allocation",
        "is_read_only: false",
        "can_multi_conn: true",
        "can_cache: true",
        "can_df: true",
        "can_flush: true",
        "can_fua: true",
        "can_trim: true",
        "can_zero: true",
        "can_fast_zero: true",
        "block_size_minimum: 1\n",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let text = output(Command::new("nbdinfo").arg(running.uri("web01/cd")));
    assert!(text.contains("is_read_only: true") && text.contains("can_fua: false"), "{text}");
    let text = output(Command::new("nbdinfo").args(["--list", &running.uri("")]));
    assert!(text.contains("export=\"web01/sda\"") && text.contains("export=\"web01/cd\""), "{text}");
    let text = output(Command::new("nbdinfo").args(["--map", "--totals", &running.uri("web01/sda")]));
    assert!(text.contains("hole,zero"), "{text}");
    for unknown in ["", "web01/sdb", "web01", "../sda"] {
        let out = Command::new("nbdinfo").arg(running.uri(unknown)).output().unwrap();
        assert!(!out.status.success(), "{unknown:?}");
    }
    // Why, in the words of whoever has the disks.
    running.shelf.refused.lock().unwrap().insert("db/sda".into(), "web01 has taken its place".into());
    let Some(mut qemu_img) = program("qemu-img", "qemu-utils") else { return };
    let out = qemu_img.args(["info", &running.uri("db/sda")]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("web01 has taken its place"), "{text}");
}

#[test]
fn disks_are_copied_in_and_out() {
    let running = Running::start();
    let mut whole = noise(1, (9 << 20) + 512);
    whole[1 << 20..3 << 20].fill(0);
    let raw = running.path("in.raw");
    std::fs::write(&raw, &whole).unwrap();
    let copies: [(&str, &str, &[&str]); 3] = [
        ("nbdcopy", "libnbd-bin", &["--connections=4", "--requests=32", "--flush"]),
        ("nbdcopy", "libnbd-bin", &["--synchronous"]),
        ("qemu-img", "qemu-utils", &["convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8"]),
    ];
    for (number, (name, package, args)) in copies.into_iter().enumerate() {
        let Some(mut command) = program(name, package) else { continue };
        let export = format!("machine {number}/sda");
        let disk = running.disk(&export, whole.len() as u64);
        // Something is there already, which has to go.
        disk.inner.write_at(GuestOffset(0), &vec![0xee; whole.len()]).unwrap();
        let uri = running.uri(&export.replace(' ', "%20"));
        output(command.args(args).args([&raw, &uri]));
        assert!(read_all(&*disk) == whole, "{name} {args:?}");
        let out = running.path("out.raw");
        let args: &[&str] = match name {
            "nbdcopy" => &["--connections=4"],
            _ => &["convert", "-f", "raw", "-O", "raw"],
        };
        output(Command::new(name).args(args).args([&uri, &out]));
        assert!(std::fs::read(&out).unwrap() == whole, "{name} out");
    }
    if let Some(mut qemu_img) = program("qemu-img", "qemu-utils") {
        let map =
            output(qemu_img.args(["map", "--output=json", "-f", "raw", &running.uri("machine%202/sda")]));
        assert!(map.contains("\"zero\": true"), "{map}");
        running.wait_for("machine 2/sda: 0 left: the client left");
    }
    let stats = running.monitor.read();
    assert_eq!((stats.broken_off, stats.total.failed), (0, 0), "{stats:?}");
    let sum: u64 = stats.exports.iter().map(|export| export.tally.written_bytes).sum();
    assert_eq!(sum, stats.total.written_bytes);
}

/// fio writes with many connections at once, and reads back what it wrote.
#[test]
fn fio_verifies_what_it_wrote() {
    let Some(mut fio) = program("fio", "fio") else { return };
    if !output(Command::new("fio").arg("--enghelp")).contains("nbd") {
        eprintln!("SKIPPED: this fio has no nbd engine");
        return;
    }
    let running = Running::start();
    let disk = running.disk("web01/sda", 64 << 20);
    output(
        fio.current_dir(running.dir.path())
            .args(["--name=x", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-256k", "--iodepth=32"])
            .args(["--numjobs=3", "--size=16M", "--offset_increment=16M", "--verify=crc32c", "--fsync=64"])
            .args([
                "--verify_fatal=1",
                "--verify_state_save=0",
                &format!("--uri={}", running.uri("web01/sda")),
            ]),
    );
    let ops = disk.ops();
    assert!(ops.contains(&Op::Flush), "fio flushes");
    let stats = running.stop();
    assert_eq!(stats.total.failed, 0, "{stats:?}");
    assert_eq!(stats.total.writes, ops.iter().filter(|op| matches!(op, Op::Write(..))).count() as u64);
}
