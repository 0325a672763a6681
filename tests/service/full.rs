//! A vault whose file system is full: what is there stays, the program says what is wrong, and goes on when there is room again.

use super::api::{err, landfall};
use super::*;
use crate::receive::nbdsh::python;

/// A small file system, which is gone with this.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, mib: u32) -> Option<Small> {
        std::fs::create_dir(&at).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: cannot mount a small tmpfs (not root?)");
            return None;
        }
        Some(Small(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes `blocks` MiB, the first one of them at `first`, each full of `byte`; how many came through.
fn write(site: &Site, byte: u8, first: u64, blocks: u64) -> u64 {
    let script = site.path("fill.py");
    let text = format!(
        r"
import nbd
h = nbd.NBD()
h.connect_uri({:?})
done = 0
try:
    for block in range({first}, {first} + {blocks}):
        h.pwrite(bytes([{byte}]) * (1 << 20), block << 20)
        done += 1
except nbd.Error as error:
    assert error.errno == 'ENOSPC', error
h.flush()
print(done)
h.shutdown()
",
        site.uri("web01/sda")
    );
    std::fs::write(&script, text).unwrap();
    let output = python().unwrap().arg(&script).output().unwrap();
    assert!(output.status.success(), "{}\n{}", err(&output), site.log());
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn a_full_vault_keeps_what_it_has_says_so_and_makes_room() {
    if python().is_none() {
        return;
    }
    let mut site = Site::new(
        "[protect]\ncheckpoint = \"1s\"\nretention = \"1h every 1s\"\nin_sync = \"flush\"\n[upkeep]\nevery = \"1h\"\nlow = 2\nscarce = 1\nthin = \"3s every 1s\"\n",
    );
    let Some(_small) = Small::mount(site.path("vault"), 192) else { return };
    site.protect("web01", &["sda"], 1 << 30);
    site.start();
    let alarms =
        |site: &Site| super::api::out(&landfall(&site.path("sockets/api.sock"), &["--json", "alarms"]));
    let wait = |site: &Site, what: &str, is_so: &dyn Fn(&Site) -> bool| {
        let begin = Instant::now();
        while !is_so(site) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {}\n{}", alarms(site), site.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    assert_eq!(write(&site, 1, 0, 8), 8);
    let set = site.document(&["points", "create", "web01", "--tag", "before"]);
    let number = set["point"]["number"].to_string();
    // The same blocks again and again: each point needs what they held then.
    let mut through = 0;
    loop {
        let came = write(&site, 2, 8, 48);
        through += came;
        if came < 48 {
            break;
        }
        assert!(through < 4000, "{}", site.log());
    }
    assert!(through > 80, "{through} MiB of 192");
    wait(&site, "it is told", &|site| alarms(site).contains("vault-full"));
    assert_eq!(site.status(), Some(1));
    // What is kept in the catalog can be changed, and the point is whole.
    assert_eq!(site.document(&["points", "verify", "web01", &number])["verdict"], "matched");
    site.verb(&["points", "tag", "web01", &number, "good"]);
    site.verb(&["token", "add", "someone"]);
    // Whoever starts a service there has one.
    site.kill();
    site.start();
    assert_eq!(
        site.document(&["points", "show", "web01", "tag:good"])["point"]["number"].to_string(),
        number
    );
    // What was overwritten is given up by the rule for want of room, and then there is some: what is written comes to more than fits.
    site.verb(&["points", "tag", "web01", &number, "--remove"]);
    let (mut again, begin) = (0, Instant::now());
    while again < 400 {
        match write(&site, 3, 8, 48) {
            0 => std::thread::sleep(Duration::from_millis(200)),
            came => again += came,
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "{again} MiB: {}\n{}", alarms(&site), site.log());
    }
    let last = site.document(&["points", "create", "web01"])["point"]["number"].to_string();
    assert_eq!(site.document(&["points", "verify", "web01", &last])["verdict"], "matched");
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let disk = machine.live("sda").unwrap();
    for (mib, byte) in [(0, 1), (7, 1), (8, 3), (56, 0)] {
        let mut found = vec![0; 4096];
        landfall_image::Disk::read_at(&disk, landfall_image::GuestOffset(mib << 20), &mut found).unwrap();
        assert!(found.iter().all(|is| *is == byte), "MiB {mib}: {} instead of {byte}", found[0]);
    }
}
