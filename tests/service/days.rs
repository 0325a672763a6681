//! Weeks of points stay bounded: their number is what the rules say, and files and room do not grow with what was.

use super::simulated::{After, quick_folder, simulate};
use landfall::vault::retention::Retention;

/// Rules that are through in two days of four hours; `cargo bench --bench days` simulates thirty real ones with the usual rules.
#[test]
fn what_is_kept_of_the_past_does_not_grow() {
    let dir = quick_folder();
    let retention: Retention = "20m every 5s, 2h every 2m, 4h every 20m".parse().unwrap();
    let mut days: Vec<After> = Vec::new();
    simulate(&dir.path().join("vault"), 4, 4, &retention, |after| days.push(after));
    // 240 of the last twenty minutes, 50 of the two hours, 6 of the rest are wanted. A segment is closed in a round, every ten minutes, and
    // thinned in one after the youngest of its points is twenty minutes old: 240 more. And when half of its points are to go: up to
    // twice as many of those that are older.
    for after in &days[1..] {
        assert!((296..=296 + 240 + 56).contains(&after.points), "{after:?}");
    }
    let (second, last) = (&days[1], &days[3]);
    assert!(last.files <= second.files + 4 && last.files < 60, "{second:?} {last:?}");
    // The base grows with the blocks that were ever written; the journal does not.
    assert!(last.bytes < second.bytes + (160 << 20), "{second:?} {last:?}");
}
