//! What goes wrong at a site besides its power: disks that are not there, come later or are another's, a state that is full or damaged. The
//! appliance comes up and says what is the matter, and nothing is taken that was not meant for it.

use super::boot::issuer;
use super::site::{Site, plain, ready};
use super::{text, tool};
use crate::boots::place;
use landfall_boot::appliance::layout::{self, Choice, Slot};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use uuid::Uuid;

/// Of a disk that somebody has attached: larger than the site's own, so that it would be the one that is taken.
const FOREIGN: u64 = 5 << 30;
/// Where the little lies that is on it: in none of the places that every disk is looked at.
const CONTENT: u64 = FOREIGN / 1000 * 618;

impl Site {
    fn disk(&self, name: &str, size: u64) -> File {
        let file = File::options().read(true).write(true).create_new(true).open(self.path(name)).unwrap();
        file.set_len(size).unwrap();
        file
    }

    /// Waits until the appliance says this of what stands in its way.
    fn says(&self, words: &str) {
        let mut last = String::new();
        self.wait_for(words, || {
            let all = self.problems();
            if all != last {
                println!("{all}");
                last.clone_from(&all);
            }
            all.contains(words)
        });
    }

    /// What the console on the serial line has shown.
    fn shown(&self) -> String {
        plain(&self.serial()).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What the helper does when somebody chooses a disk on the console: the file is there whole or not at all.
    fn choose(&self, disk: &str) {
        let folder = "/var/lib/landfall-appliance";
        self.there(&format!(
            r#"echo '{{"disk":"{disk}","serial":""}}' > {folder}/new && mv {folder}/new {folder}/claim.json && systemctl restart landfall-data.service"#
        ));
    }

    /// What the service says of the vault that it has.
    fn vault(&self) -> String {
        self.there("cat /var/lib/landfall/vault/vault.json")
    }
}

/// The image, where there is what breaks disks and looks at them, too.
fn all_here() -> Option<PathBuf> {
    for program in ["debugfs", "e2fsck", "sha256sum"] {
        tool(program, &["--version"])?;
    }
    ready()
}

/// The digest of what a file holds.
fn digest(site: &Site, name: &str) -> String {
    let out = Command::new("sha256sum").arg(site.path(name)).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    text(&out)
}

/// Another machine's system disk, attached for whatever reason, under a name that comes before the own one's: nothing of it is run, and no
/// byte of it changes, also where the own one is of no use.
#[test]
#[ignore = "takes three minutes: make matrix"]
fn another_landfall_is_attached() {
    let Some(image) = all_here() else { return };
    let _place = place();
    let site = Site::new(&image);
    let copied =
        Command::new("cp").arg("--sparse=always").args([site.path("system"), site.path("another")]).status();
    assert!(copied.unwrap().success());
    // It has come up once, where it was.
    let another = File::options().read(true).write(true).open(site.path("another")).unwrap();
    let mut esp = vec![0; usize::try_from(layout::ESP_SIZE.0).unwrap()];
    let start = site.start_of(layout::ESP_NAME);
    another.read_exact_at(&mut esp, start).unwrap();
    let choice = Choice { slot: Slot::A, trial: None, deployment: None };
    let at = esp.windows(layout::ENVIRONMENT_SIZE).position(|bytes| bytes == choice.render()).unwrap();
    assert!(((at + choice.render().len()) as u64) < layout::ENVIRONMENT_WITHIN.0, "the word lies at {at}");
    let choice = Choice { deployment: Some(Uuid::from_u128(7)), ..choice };
    another.write_all_at(&choice.render(), start + at as u64).unwrap();
    drop(another);
    let before = digest(&site, "another");
    let ide = ["-drive".to_owned(), format!("file={},format=raw,if=ide", site.path("another").display())];
    let start = || site.start_beside(&["system", "vault"], &ide);
    for is_first in [true, false] {
        let running = start();
        site.says("/dev/sda holds another landfall system; this one runs from /dev/vda");
        assert!(site.there("findmnt -no SOURCE /var").starts_with("/dev/vda"));
        let line = site.there("cat /proc/cmdline");
        assert_eq!(line.contains("landfall.deployment= "), is_first, "{line}");
        site.wait_for("the loader is told", || {
            site.there("systemctl is-active landfall-confirm.service || true") == "active"
        });
        site.there("sync");
        drop(running);
    }
    let system = File::options().write(true).open(site.path("system")).unwrap();
    system.write_all_at(&[0; 4096], site.start_of("landfall-root-a")).unwrap();
    drop(system);
    let running = start();
    site.wait_for("it does not start", || {
        site.serial().contains("slot a cannot be read: the other one is tried")
    });
    // The other slot is empty; it stays at the own disk.
    site.wait_for("it stays there", || site.serial().matches("the appliance cannot start").count() >= 2);
    drop(running);
    assert_eq!(digest(&site, "another"), before, "another machine's disk was written to");
}

#[test]
#[ignore = "takes five minutes: make matrix"]
fn data_disks_that_are_missing_foreign_late_and_chosen() {
    let Some(image) = all_here() else { return };
    let _place = place();
    let site = Site::new(&image);

    // None: it is up, and says so. One with content is not one, though there is no table and no file system on it.
    let foreign = site.disk("foreign", FOREIGN);
    foreign.write_all_at(b"somebody's only copy", CONTENT).unwrap();
    let before = digest(&site, "foreign");
    let running = site.start_with(&["system"]);
    site.says("there is no data disk");
    assert_eq!(site.there("systemctl is-active landfall.service || true"), "inactive");
    site.attach("foreign");
    site.says(&format!("there is data at byte {}", CONTENT));

    // An empty one that comes is taken, without anybody's doing.
    site.attach("vault");
    let first = issuer(&site.up());
    site.wait_for("nothing stands in the way", || site.problems().is_empty());
    let (vault, token) = (site.vault(), site.welcomed());
    let protected = ["protect", "web01", "--disk", "sda=2M", "--tls-ca", "ca-cert.pem"];
    let out = site.landfall(&token, &protected);
    assert!(out.status.success(), "{}", text(&out));
    drop(running);
    assert_eq!(digest(&site, "foreign"), before, "a disk with content was written to");

    // Gone: an empty disk does not take its place; the vault itself does as soon as it is back.
    drop(site.disk("empty", 4 << 30));
    let running = site.start_with(&["system", "empty"]);
    site.says("is not there");
    assert_eq!(site.there("systemctl is-active landfall.service || true"), "inactive");
    site.attach("vault");
    assert_eq!(issuer(&site.up()), first, "another authority");
    assert_eq!(site.vault(), vault, "another vault");
    let machines = ["status", "--json", "--tls-ca", "ca-cert.pem"];
    let out = site.landfall(&token, &machines);
    assert!(text(&out).contains("web01"), "{}", text(&out));
    // It goes away while it is used, and is taken again when it is back.
    site.there("sync");
    site.detach("vault");
    site.attach("vault");
    assert_eq!(issuer(&site.up()), first, "another authority");
    site.wait_for("the machines are there", || {
        text(&site.landfall(&token, &machines)).contains("web01") && site.problems().is_empty()
    });
    assert_eq!(site.vault(), vault, "another vault");
    drop(running);
    assert_eq!(
        std::fs::metadata(site.path("empty"))
            .map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta))
            .unwrap(),
        0,
        "an empty disk was written to that nobody had chosen"
    );

    // A choice that is left over from while the vault was away does not replace it, and is gone.
    let running = site.start_with(&["system", "vault", "empty"]);
    site.up();
    site.choose("vdc");
    site.says("vdc was not taken");
    assert_eq!(site.there("ls /var/lib/landfall-appliance/claim.json 2>/dev/null || true"), "");
    drop(running);

    // One that was chosen is taken, once: there is a vault then, and another one. Not one with content.
    let running = site.start_with(&["system", "empty", "foreign"]);
    site.says("is not there");
    site.choose("vdc");
    site.says(&format!("there is data at byte {CONTENT}"));
    site.choose("vdb");
    assert_eq!(issuer(&site.up()), first, "another authority");
    assert_ne!(site.vault(), vault);
    drop(running);
    assert_eq!(digest(&site, "foreign"), before, "a disk with content was written to");
    let running = site.start_with(&["system", "vault", "empty"]);
    site.up();
    assert_ne!(site.vault(), vault, "the vault that was given up is back");
    drop(running);
}

#[test]
#[ignore = "takes five minutes: make matrix"]
fn a_state_that_is_full_damaged_or_torn() {
    let Some(image) = all_here() else { return };
    let _place = place();
    let site = Site::new(&image);
    let running = site.start();
    let first = issuer(&site.up());
    site.there("test -s /var/lib/landfall-appliance/ssh/ssh_host_ed25519_key");

    // Full to the last byte, also for root. The console says so, once the first token is noted.
    site.there("rm /var/lib/landfall-appliance/first-token && touch /var/lib/landfall-appliance/welcomed");
    site.there("dd if=/dev/zero of=/var/full bs=1M 2>/dev/null; dd if=/dev/zero of=/var/more bs=1 count=4096 2>/dev/null; sync; true");
    drop(running);
    let running = site.start();
    assert_eq!(issuer(&site.up()), first, "another authority");
    site.wait_for("the console tells of it", || site.shown().contains("is full"));
    site.there("rm /var/full /var/more; sync");
    drop(running);

    // A host key that a lost power has torn lets nobody in: another is made, and somebody is let in.
    let running = site.start();
    site.up();
    site.there("truncate -s 100 /var/lib/landfall-appliance/ssh/ssh_host_ed25519_key; sync; true");
    drop(running);
    let running = site.start();
    assert_eq!(issuer(&site.up()), first, "another authority");
    site.there("ssh-keygen -y -P '' -f /var/lib/landfall-appliance/ssh/ssh_host_ed25519_key");
    assert_eq!(site.problems(), "");
    site.there("sync");
    drop(running);

    // Damaged beyond what e2fsck -p mends, and the kernel has met it: a folder that is no folder any longer.
    let (system, state) =
        (site.path("system").display().to_string(), site.path("state").display().to_string());
    let at = site.start_of("landfall-state") >> 20;
    let run = |program: &str, args: &[&str]| {
        let done = Command::new(program).args(args).output().unwrap();
        // e2fsck's 1 is that it has mended something.
        assert!(done.status.code().is_some_and(|code| code < 2), "{program}: {}", text(&done));
    };
    let (from, to) = (format!("skip={at}"), format!("seek={at}"));
    let (read, write) =
        ([format!("if={system}"), format!("of={state}")], [format!("if={state}"), format!("of={system}")]);
    run("dd", &["bs=1M", &from, "count=1024", "conv=sparse", &read[0], &read[1]]);
    run("e2fsck", &["-p", &state]);
    for order in ["set_inode_field /tmp mode 0", "set_super_value state 2"] {
        run("debugfs", &["-w", "-R", order, &state]);
    }
    run("dd", &["bs=1M", &to, "conv=notrunc", &write[0], &write[1]]);
    let running = site.start();
    assert_eq!(issuer(&site.up()), first, "another authority");
    site.says("was damaged, and has been repaired");
    drop(running);
    let running = site.start();
    site.up();
    assert_eq!(site.problems(), "", "what was repaired is told for ever");
    drop(running);
}
