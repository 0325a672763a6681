//! What is sent, and how much of it.

use super::*;
use crate::machine::{Bus, DiskSlot, Machine as Definition};
use crate::moment::Moment;
use landfall_image::testing::noise_bytes;

const MIB: u64 = 1 << 20;

fn two_disks() -> Source {
    let source = Source::new(&[("sda", 8 * MIB), ("sdb", 3 * MIB + 512)]);
    source.write("sda", 0, &noise_bytes(1, 1 << 20));
    source.write("sda", 5 * MIB + 4096, &noise_bytes(2, 3 << 19));
    source.write("sdb", 3 * MIB, &[7; 512]);
    source
}

#[test]
fn a_machine_is_sent_once_and_then_what_has_changed() {
    let (source, site) = (two_disks(), Site::new());
    let definition = Definition {
        disks: vec![DiskSlot::new("sda", Bus::Scsi, "sda")],
        ..Definition::new("web01", landfall_image::Bytes(1 << 30))
    };
    source.machine.journal().attach("machine.json", &serde_json::to_vec(&definition).unwrap()).unwrap();
    let mark = Mark { consistency: Consistency::Application, tag: Some("before".into()), ..Mark::default() };
    let first = source.point(&mark);
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb"]);
    assert_eq!((done.source.number, done.base.clone()), (first, None));
    let ways: Vec<_> = done.disks.iter().map(|disk| (disk.way, disk.content.0)).collect();
    // Only what holds something was read and sent.
    assert!(ways.iter().all(|(way, content)| *way == Way::Whole && *content < 4 * MIB), "{ways:?}");
    let machine = site.machine("web01");
    let set = machine.points().unwrap().last().unwrap().clone();
    assert_eq!(
        (set.time, set.mark.consistency, set.mark.tag.as_deref()),
        (done.source.at.0, Consistency::Application, Some("before"))
    );
    let kept = machine.at(set.sequence).unwrap().state().attachments["machine.json"].clone();
    assert_eq!(serde_json::from_slice::<Definition>(&kept).unwrap().memory, definition.memory);
    // Nothing new.
    let calls = site.calls.get();
    let again = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_eq!((again.verdict, again.point, again.line.0), (Verdict::Matched, done.point, 0));
    assert_eq!(site.calls.get() - calls, 1);
    // 4 KiB of noise, 4 KiB that become zeros, and a block that is written as it was.
    source.write("sda", 2 * MIB, &noise_bytes(3, 4096));
    source.write("sda", 5 * MIB + 8192, &[0; 4096]);
    source.write("sdb", 3 * MIB, &[7; 512]);
    source.cut();
    let bytes = site.bytes.get();
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb"]);
    let disks: Vec<_> = done.disks.iter().map(|disk| (disk.way, disk.content.0, disk.why.clone())).collect();
    assert_eq!(disks, [(Way::Differences, 8192, None), (Way::Differences, 0, None)]);
    let sent = site.bytes.get() - bytes;
    assert_eq!(sent, done.line.0);
    assert!((4096..4096 + 1024).contains(&sent), "{sent} bytes for 4096 of noise");
    assert!(done.disks[0].looked_at.0 <= 3 * (64 << 10), "{done:?}");
}

/// Somebody wrote to the receiver's disk: what it holds is found out by digests, and one chunk of each is sent.
#[test]
fn a_position_that_was_lost_is_found_again_by_digests() {
    let (source, site) = (two_disks(), Site::new());
    source.cut();
    send_to(&source, &site, &request(At::Latest)).unwrap();
    let machine = site.machine("web01");
    machine.live("sda").unwrap().write_at(GuestOffset(6 * MIB), &[1; 512]).unwrap();
    drop(machine);
    source.write("sda", 0, &[9; 512]);
    source.cut();
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb"]);
    let sda = &done.disks[0];
    assert_eq!((sda.way, sda.content.0), (Way::Digests, 2 * MIB));
    assert!(sda.why.as_ref().unwrap().contains("something else was written"), "{sda:?}");
    assert_eq!((done.disks[1].way, done.disks[1].content.0), (Way::Digests, 0));
    // And from there on by differences again.
    source.write("sda", 512, &[8; 512]);
    source.cut();
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_eq!((done.disks[0].way, done.disks[0].content.0), (Way::Differences, 4096));
    assert_there(&source, &site, &done, &["sda", "sdb"]);
}

/// The point that both have is not there any more at the sender, or is another one.
#[test]
fn a_point_that_is_gone_is_not_begun_at() {
    let (source, site) = (two_disks(), Site::new());
    let first = source.cut();
    send_to(&source, &site, &request(At::Latest)).unwrap();
    source.write("sda", MIB, &[3; 4096]);
    source.cut();
    source.machine.journal().close_segment();
    let retention = "1s every 1s".parse().unwrap();
    crate::vault::upkeep::run(&source.machine, &retention, &Default::default(), u64::MAX / 2, &|_| Ok(()))
        .unwrap();
    assert!(source.machine.at(first).is_err());
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb"]);
    assert_eq!(done.disks[0].way, Way::Digests);
    assert!(done.disks[0].why.as_ref().unwrap().contains("this side has no more"), "{done:?}");
    assert_eq!(done.disks[0].content.0, MIB);
}

#[test]
fn disks_grow_shrink_come_and_go() {
    let (source, site) = (two_disks(), Site::new());
    source.disk("sdc", 2 * MIB);
    source.write("sdc", 0, &noise_bytes(5, 1000 * 512));
    source.cut();
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb", "sdc"]);
    // sda grows and is written behind its old end, sdb shrinks, sdc is made anew, sdd comes.
    source.disk("sda", 12 * MIB);
    source.write("sda", 11 * MIB, &noise_bytes(6, 8192));
    source.disk("sdb", MIB);
    source.machine.journal().remove_disk(source.machine.disk_number("sdc").unwrap()).unwrap();
    source.disk("sdc", 3 * MIB);
    source.write("sdc", 2 * MIB, &noise_bytes(7, 4096));
    source.disk("sdd", MIB);
    source.write("sdd", 4096, &noise_bytes(8, 4096));
    source.cut();
    let before = site.points("web01");
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb", "sdc", "sdd"]);
    let ways: Vec<_> = done.disks.iter().map(|disk| (disk.name.to_string(), disk.way)).collect();
    let wanted =
        [("sda", Way::Differences), ("sdb", Way::Differences), ("sdc", Way::Digests), ("sdd", Way::Whole)];
    assert_eq!(ways, wanted.map(|(name, way)| (name.to_owned(), way)));
    assert_eq!(done.disks[0].content.0, 8192);
    // sdb grows again: what it lost is gone.
    source.disk("sdb", 3 * MIB);
    source.machine.journal().remove_disk(source.machine.disk_number("sdd").unwrap()).unwrap();
    source.cut();
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb", "sdc"]);
    // Earlier points keep their disks.
    let machine = site.machine("web01");
    assert_eq!(at(&machine, before[0], "sdb").len() as u64, 3 * MIB + 512);
    assert_eq!(at(&machine, *before.last().unwrap(), "sdc").len() as u64, 2 * MIB);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let (source, site) = (two_disks(), Site::new());
    let first = source.cut();
    source.write("sda", 0, &[1; 512]);
    source.cut();
    send_to(&source, &site, &request(At::Latest)).unwrap();
    let points = site.points("web01");
    // An older point.
    let error = send_to(&source, &site, &request(At::Number(first))).unwrap_err();
    assert!(error.to_string().contains("is later than"), "{error}");
    // Another machine of the same name, and a machine that came another way.
    let other = two_disks();
    other.clock.set(9_000_000);
    other.cut();
    let error = send_to(&other, &site, &request(At::Latest)).unwrap_err();
    assert!(
        error.to_string().contains("from another vault or machine")
            && error.hint_text().unwrap().contains("--as"),
        "{error}"
    );
    let nbd: Name = "nbd01".parse().unwrap();
    site.with(|here| {
        let machine = here.vault.machine_or_new(&nbd).unwrap();
        machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: MIB, sector: 512 }).unwrap();
    });
    let as_nbd = Request { name: nbd.clone(), ..request(At::Latest) };
    let error = send_to(&source, &site, &as_nbd).unwrap_err();
    assert!(error.to_string().contains("was never sent"), "{error}");
    assert_eq!(site.points("web01"), points);
    assert!(site.with(|here| here.incoming.batches.unfinished().unwrap().is_empty()));
    // Said, it is done; by digests, as nobody knows what is there.
    let replaced = send_to(&other, &site, &Request { replace: true, ..request(At::Latest) }).unwrap();
    assert_there(&other, &site, &replaced, &["sda", "sdb"]);
    assert_eq!(replaced.disks[0].way, Way::Digests);
    let replaced = send_to(&source, &site, &Request { replace: true, ..as_nbd }).unwrap();
    assert_there(&source, &site, &replaced, &["sda", "sdb"]);
    // Somebody writes to it over NBD.
    let lease = site.with(|here| {
        here.incoming.leases.stream(&"web01".parse().unwrap(), &"sda".parse().unwrap()).unwrap()
    });
    other.write("sda", 0, &[2; 512]);
    other.cut();
    let error = send_to(&other, &site, &request(At::Latest)).unwrap_err();
    assert!(error.to_string().contains("being written to over NBD"), "{error}");
    drop(lease);
    let done = send_to(&other, &site, &request(At::Latest)).unwrap();
    assert_there(&other, &site, &done, &["sda", "sdb"]);
    // It came, and wrote nothing.
    assert_eq!(done.disks[0].way, Way::Differences);
}

/// The rate is kept to: what has gone out by any moment is at most that much of it, and one body.
#[test]
fn the_rate_is_kept_to() {
    let (source, site) = (Source::new(&[("sda", 4 * MIB)]), Site::new());
    source.write("sda", 0, &noise_bytes(1, 2 << 20));
    source.cut();
    let limit = Bytes(2 << 20);
    let began = std::time::Instant::now();
    let limited = Request { limit: Some(RateLimit::new(limit)), ..request(At::Latest) };
    let done = send_to(&source, &site, &limited).unwrap();
    let took = began.elapsed();
    assert_there(&source, &site, &done, &["sda"]);
    // The last body need not be waited for.
    let least = Duration::from_secs_f64((done.line.0 - limit.0.min(done.line.0)) as f64 / limit.0 as f64);
    assert!(site.calls.get() >= 4, "in several bodies");
    assert!(took >= least, "{took:?} for {} bytes", done.line);
}

/// What is asked of the receiver that no sender asks.
#[test]
fn a_receiver_believes_nothing() {
    let (source, site) = (two_disks(), Site::new());
    let number = source.cut();
    let [web, sda]: [Name; 2] = ["web01", "sda"].map(|name| name.parse().unwrap());
    let target = Sent {
        id: source.machine.home().machine,
        machine: web.clone(),
        number,
        at: Moment(5),
        consistency: Consistency::Crash,
        tag: None,
    };
    let disk = |name: &str, size, sector| SentDisk { name: name.parse().unwrap(), size, sector };
    let begin = |disks: Vec<SentDisk>| {
        site.with(|here| here.begin(&web, &Begin { target: target.clone(), disks, replace: false }))
    };
    for bad in [
        vec![],
        vec![disk("sda", MIB, 512), disk("sda", MIB, 512)],
        vec![disk("sda", 0, 512)],
        vec![disk("sda", 513, 512)],
        vec![disk("sda", MIB, 1024)],
        (0..257).map(|n| disk(&format!("sd{n}"), MIB, 512)).collect(),
    ] {
        assert!(begin(bad).is_err());
    }
    assert!(site.with(|here| here.incoming.batches.unfinished().unwrap().is_empty()));
    let begun = begin(vec![disk("sda", MIB, 512)]).unwrap();
    let ask = |session, numbers: Vec<u64>| {
        site.with(|here| here.digests(&web, &sda, &Question { session, of: Unit::Chunks, numbers }))
    };
    assert_eq!(ask(begun.session, vec![0]).unwrap().len(), 32);
    assert!(matches!(ask(begun.session, vec![1]), Err(Fault::Told(_))));
    assert!(matches!(ask(begun.session, vec![u64::MAX]), Err(Fault::Told(_))));
    assert!(matches!(ask(begun.session, vec![0; 4097]), Err(Fault::Told(_))));
    assert!(matches!(ask(Uuid::new_v4(), vec![0]), Err(Fault::Told(_))), "another send's number");
    let take = |body: &[u8]| site.with(|here| here.take(&web, &sda, begun.session, body));
    for body in [&b"hello"[..], &[0; 100], &[]] {
        assert!(matches!(take(body), Err(Fault::Told(_))));
    }
    let other: Name = "sdz".parse().unwrap();
    assert!(site.with(|here| here.take(&web, &other, begun.session, &[])).is_err());
    let commit = |checked: u64| {
        let checked = [(sda.clone(), checked)].into();
        let commit = Commit { session: begun.session, checked, definition: None, variables: None };
        site.with(|here| here.commit(&web, &commit))
    };
    let Err(Fault::Told(error)) = commit(4096) else { panic!("nothing was read back") };
    assert!(error.to_string().contains("0 of 4096 bytes"), "{error}");
    assert!(site.points("web01").is_empty());
    // A new one takes over; the first is told so.
    let second = begin(vec![disk("sda", MIB, 512)]).unwrap();
    let Err(Fault::Told(error)) = ask(begun.session, vec![0]) else { panic!() };
    assert!(error.to_string().contains("another send"), "{error}");
    assert_eq!(second.resumed.as_ref(), Some(&target));
    // And a send of another machine does not.
    let mut stranger = target.clone();
    stranger.id = Uuid::new_v4();
    let begin = Begin { target: stranger, disks: vec![disk("sda", MIB, 512)], replace: true };
    let Err(Fault::Told(error)) = site.with(|here| here.begin(&web, &begin)) else { panic!() };
    assert!(error.to_string().contains("is under way"), "{error}");
    // Given up, all is as before: there was no disk.
    let machine = site.machine("web01");
    let effort = crate::receive::content::Effort::default();
    assert!(site.with(|here| here.incoming.desk.give_up(&here.incoming.batches, &machine, &effort).unwrap()));
    assert!(machine.journal().state().disks.is_empty());
    assert!(
        !site.with(|here| here.incoming.desk.give_up(&here.incoming.batches, &machine, &effort).unwrap())
    );
}

use crate::receive::send::Unit;
