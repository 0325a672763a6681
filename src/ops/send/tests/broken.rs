//! The line breaks and either side ends, at every call.

use super::*;
use landfall_image::testing::noise_bytes;

const MIB: u64 = 1 << 20;

/// A machine that was sent once and has changed since: a site that holds the first point, and how many calls the second send takes.
fn changed() -> (Source, Site) {
    let source = Source::new(&[("sda", 4 * MIB), ("sdb", 2 * MIB)]);
    source.write("sda", 0, &noise_bytes(1, 2 << 20));
    source.write("sdb", 0, &noise_bytes(2, 1 << 20));
    source.cut();
    let site = Site::new();
    send_to(&source, &site, &request(At::Latest)).unwrap();
    source.write("sda", MIB, &noise_bytes(3, 600_064));
    source.write("sdb", MIB - 4096, &noise_bytes(4, 8192));
    source.disk("sdc", MIB);
    source.write("sdc", 0, &noise_bytes(5, 8192));
    source.cut();
    site.calls.set(0);
    (source, site)
}

#[test]
fn whatever_breaks_at_whatever_call_the_point_arrives() {
    let calls = {
        let (source, site) = changed();
        send_to(&source, &site, &request(At::Latest)).unwrap();
        site.calls.get()
    };
    assert!(calls >= 6, "{calls}");
    for trouble in [Trouble::Lost, Trouble::Unanswered, Trouble::Killed, Trouble::KilledBehind] {
        // The first question is not asked again: whoever named the wrong place wants to know.
        for call in 1..calls {
            let (source, site) = changed();
            let before = site.points("web01");
            site.trouble.set(Some((call, trouble)));
            let done = send_to(&source, &site, &request(At::Latest))
                .unwrap_or_else(|error| panic!("{trouble:?} at {call}: {error}"));
            assert_there(&source, &site, &done, &["sda", "sdb", "sdc"]);
            assert!(done.tries > 0, "{trouble:?} at {call}");
            let points = site.points("web01");
            assert_eq!(points.len(), before.len() + 1, "{trouble:?} at {call}: {points:?}");
        }
    }
}

/// A sender that ends in the middle; the receiver is killed, too; a later point is sent from there.
#[test]
fn a_send_that_was_cut_off_is_gone_on_with() {
    let calls = {
        let (source, site) = changed();
        send_to(&source, &site, &request(At::Latest)).unwrap();
        site.calls.get()
    };
    for call in 1..calls {
        for (is_later, is_killed) in [(false, false), (false, true), (true, true)] {
            let (source, site) = changed();
            let before = site.points("web01");
            site.trouble.set(Some((call, Trouble::Gone)));
            let impatient = Request { patience: Duration::ZERO, ..request(At::Latest) };
            let error = send_to(&source, &site, &impatient).unwrap_err();
            assert!(error.hint_text().unwrap().contains("goes on from there"), "{error}");
            assert_eq!(site.points("web01"), before, "half of a delta is offered");
            site.trouble.set(None);
            if is_killed {
                site.start();
            }
            if is_later {
                // It changes back in part, and elsewhere.
                source.write("sda", MIB, &noise_bytes(1, 2 << 20)[1 << 20..][..300_032]);
                source.write("sdb", 0, &noise_bytes(6, 512));
                source.cut();
            }
            let done = send_to(&source, &site, &request(At::Latest)).unwrap();
            assert_there(&source, &site, &done, &["sda", "sdb", "sdc"]);
            assert_eq!(site.points("web01").len(), before.len() + 1);
        }
    }
}

/// What has arrived is not sent again.
#[test]
fn only_what_is_missing_is_sent_again() {
    let source = Source::new(&[("sda", 24 * MIB)]);
    source.write("sda", 0, &noise_bytes(1, 20 << 20));
    source.cut();
    let site = Site::new();
    // held, begin, body of 4 MiB, the next does not arrive.
    site.trouble.set(Some((3, Trouble::Gone)));
    let impatient = Request { patience: Duration::ZERO, ..request(At::Latest) };
    send_to(&source, &site, &impatient).unwrap_err();
    site.trouble.set(None);
    site.start();
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda"]);
    let sda = &done.disks[0];
    assert_eq!(sda.way, Way::Digests);
    assert!((16 * MIB..=18 * MIB).contains(&sda.content.0), "{sda:?}");
}

/// Gives up what was cut off: the machine is as it was, and the next send begins at the point that it holds.
#[test]
fn a_send_is_given_up() {
    let (source, site) = changed();
    let before = site.points("web01");
    // held, begin, one body.
    site.trouble.set(Some((3, Trouble::Gone)));
    let impatient = Request { patience: Duration::ZERO, ..request(At::Latest) };
    send_to(&source, &site, &impatient).unwrap_err();
    site.trouble.set(None);
    site.start();
    let machine = site.machine("web01");
    let old = at(&machine, before[0], "sda");
    let live = || content(&machine.live("sda").unwrap());
    assert!(live() != old, "a part of it has arrived");
    assert!(
        site.with(|here| here.incoming.desk.give_up(&here.incoming.batches, &machine, &effort()).unwrap())
    );
    assert!(live() == old);
    assert_eq!(machine.disk_number("sdc"), None);
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb", "sdc"]);
    assert_eq!(done.disks[0].way, Way::Differences);
}

/// A receiver that loses what it was sent, and says that it has it.
struct Forgetful<'s> {
    wire: Wire<'s>,
    times: Mutex<usize>,
    cannot_read: bool,
}

impl Replica for Forgetful<'_> {
    fn place(&self) -> &str {
        "a bad medium"
    }
    fn held(&self, machine: &Name) -> Result<Held, Fault> {
        self.wire.held(machine)
    }
    fn begin(&self, machine: &Name, begin: &Begin) -> Result<Begun, Fault> {
        self.wire.begin(machine, begin)
    }
    fn digests(&self, machine: &Name, disk: &Name, question: &Question) -> Result<Vec<u8>, Fault> {
        self.wire.digests(machine, disk, question)
    }
    fn take(&self, machine: &Name, disk: &Name, session: Uuid, body: &[u8]) -> Result<Taken, Fault> {
        let mut times = self.times.lock().unwrap();
        if *times == 0 {
            return self.wire.take(machine, disk, session, body);
        }
        *times -= 1;
        if self.cannot_read {
            return Ok(Taken { unread: Some("the medium cannot be read".into()), ..Taken::default() });
        }
        // Only the questions arrive.
        let frames = crate::receive::send::frame::parse(body, Bytes(u64::MAX / 2), 512).unwrap();
        let mut questions = crate::receive::send::frame::Body::default();
        for frame in frames {
            if let crate::receive::send::frame::Frame::Check { range, digest } = frame {
                questions.put(&crate::receive::send::frame::Ready::asking(range, digest));
            }
        }
        self.wire.take(machine, disk, session, &questions.finish())
    }
    fn commit(&self, machine: &Name, commit: &Commit) -> Result<Committed, Fault> {
        self.wire.commit(machine, commit)
    }
    fn give_up(&self, machine: &Name) -> Result<(), Fault> {
        self.wire.give_up(machine)
    }
}

#[test]
fn three_verdicts() {
    let run = |times: usize, cannot_read: bool| {
        let (source, site) = changed();
        let points = site.points("web01").len();
        let bad = Forgetful { wire: Wire(Mutex::new(&site)), times: Mutex::new(times), cannot_read };
        let done = send(&effort(), &Silent, &source, &request(At::Latest), &bad).unwrap();
        let is_offered = site.points("web01").len() > points;
        if done.verdict == Verdict::Matched {
            assert_there(&source, &site, &done, &["sda", "sdb", "sdc"]);
        }
        (done, is_offered)
    };
    // The control.
    let (done, is_offered) = run(0, false);
    assert_eq!((done.verdict, is_offered, exit_code(done.verdict)), (Verdict::Matched, true, 0));
    // Once: what the receiver said that it holds is not believed any more, and digests find out.
    let (done, is_offered) = run(1, false);
    assert_eq!((done.verdict, is_offered), (Verdict::Matched, true));
    assert_eq!(done.disks[0].way, Way::Digests);
    assert!(done.disks[0].why.as_ref().unwrap().contains("is not what was sent"), "{done:?}");
    // Again and again: nothing is offered.
    let (done, is_offered) = run(99, false);
    assert_eq!((done.verdict, is_offered, exit_code(done.verdict)), (Verdict::Differed, false, 1));
    let (done, is_offered) = run(99, true);
    assert_eq!((done.verdict, is_offered, exit_code(done.verdict)), (Verdict::CouldNotRun, false, 2));
    assert!(done.says.contains("cannot be read"), "{}", done.says);
}
