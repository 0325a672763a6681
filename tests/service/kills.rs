//! The service is killed again and again while writers write: no point that was published is lost, each is a prefix, and nothing
//! that was acknowledged is missing.

use super::*;
use crate::receive::nbdsh::python;

/// A site with a machine of two disks, and a script that writes to them.
fn site() -> (Site, PathBuf, PathBuf, PathBuf) {
    let site = Site::new(
        "[protect]\ncheckpoint = \"1s\"\nretention = \"1h every 1s\"\nin_sync = \"flush\"\n[upkeep]\nevery = \"1s\"\nlow = 1\nscarce = 1\n",
    );
    site.protect("web01", &["sda", "sdb"], BLOCK * BLOCKS);
    let (progress, enough, script) = (site.path("progress"), site.path("enough"), site.path("writer.py"));
    let text = writer([&site.uri("web01/sda"), &site.uri("web01/sdb")], &progress, &enough, true);
    std::fs::write(&script, format!("import nbd\n{text}")).unwrap();
    (site, progress, enough, script)
}

fn killed(times: u32) {
    let Some(python) = python() else { return };
    let (mut site, progress, enough, script) = site();
    site.start();
    let mut client = Writer::start(python, &script);
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last = 0;
    for round in 0..times {
        // Nothing is in step with anything.
        std::thread::sleep(Duration::from_millis(300 + u64::from(round) * 7919 % 1900));
        site.kill();
        {
            let vault = site.vault();
            let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
            let points: BTreeMap<u64, u64> = prefixes(&machine, &known).into_iter().collect();
            for (point, count) in &known {
                assert_eq!(points.get(point), Some(count), "round {round}: point {point} was there before");
            }
            let acknowledged = acknowledged(&progress);
            let live = ["sda", "sdb"].map(|disk| crate::receive::read_all(&machine.live(disk).unwrap()));
            let count = prefix(live, "what is there");
            // The answer to one more may have been lost.
            assert!(
                (acknowledged..=acknowledged + 1).contains(&count),
                "{count} writes, {acknowledged} acknowledged"
            );
            assert!(count >= last);
            last = count;
            known = points;
        }
        site.start();
    }
    std::fs::write(&enough, "").unwrap();
    client.ends();
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let points = prefixes(&machine, &BTreeMap::new());
    assert_eq!(
        points.last().map(|(_, count)| *count),
        Some(acknowledged(&progress)),
        "the last point holds everything"
    );
    // How many there are depends on how busy the machine is.
    assert!(
        known.len() >= usize::try_from(times).unwrap() / 8 && last > 20,
        "{} points, {last} writes",
        known.len()
    );
}

#[test]
fn a_service_that_is_killed_loses_nothing_that_it_acknowledged_or_published() {
    killed(8);
}

/// As long as the promise says. Takes minutes.
#[test]
#[ignore = "make matrix"]
fn a_service_that_is_killed_a_hundred_times_loses_nothing() {
    killed(100);
}

/// The client is killed again and again in the middle of what it sends, and another one goes on where it was.
fn client_killed(times: u32) {
    if python().is_none() {
        return;
    }
    let (mut site, progress, enough, script) = site();
    site.start();
    let mut last = 0;
    for round in 0..times {
        let client = Writer::start(python().unwrap(), &script);
        std::thread::sleep(Duration::from_millis(250 + u64::from(round) * 7919 % 900));
        // kill -9
        drop(client);
        let count = acknowledged(&progress);
        assert!(count >= last, "{count} after {last}");
        last = count;
    }
    let mut client = Writer::start(python().unwrap(), &script);
    std::thread::sleep(Duration::from_secs(2));
    std::fs::write(&enough, "").unwrap();
    client.ends();
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let points = prefixes(&machine, &BTreeMap::new());
    assert_eq!(points.last().map(|(_, count)| *count), Some(acknowledged(&progress)));
    assert!(
        points.len() > usize::try_from(times).unwrap() / 4 && last > 20,
        "{} points, {last} writes",
        points.len()
    );
}

#[test]
fn a_client_that_is_killed_leaves_points_that_are_states() {
    client_killed(8);
}

/// As long as the promise says. Takes minutes.
#[test]
#[ignore = "make matrix"]
fn a_client_that_is_killed_a_hundred_times_leaves_points_that_are_states() {
    client_killed(100);
}
