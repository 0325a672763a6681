//! Weeks of points stay bounded: their number is what the rules say, and files and room do not grow with what was.

use super::simulated::{After, quick_folder, simulate};
use landfall::vault::retention::Retention;

/// Rules that are through in two days; `cargo bench --bench days` simulates thirty with the usual ones.
#[test]
fn what_is_kept_of_the_past_does_not_grow() {
    let dir = quick_folder();
    let retention: Retention = "1h every 5s, 6h every 5m, 1d every 1h".parse().unwrap();
    let mut days: Vec<After> = Vec::new();
    simulate(&dir.path().join("vault"), 3, &retention, |after| days.push(after));
    // 720 of the last hour and of what came since the last round, 60 of five hours, 18 of the rest.
    for after in &days[1..] {
        assert!((798..=798 + 121).contains(&after.points), "{after:?}");
    }
    let (second, third) = (&days[1], &days[2]);
    assert!(third.files <= second.files + 4 && third.files < 60, "{second:?} {third:?}");
    // The base grows with the blocks that were ever written; the journal does not.
    assert!(third.bytes < second.bytes + (300 << 20), "{second:?} {third:?}");
}
