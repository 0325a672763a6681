//! The corpus, as the other crates read it: the recorded content, or an exception that is listed.

use super::{Outcome, SECONDS, judge, read, unused};
use crate::disk::corpus::{Corpus, Expected, reading_with, verdict};
use landfall_image::formats;
use landfall_image::{Disk, ExtentKind, Format, GuestOffset, GuestRange, OpenOptions};

/// Larger disks are read where our map has data, and at both ends of what has none.
const READ_WHOLE: u64 = 1 << 30;
const END: u64 = 64 << 10;

fn ranges(disk: &dyn Disk) -> Vec<(u64, u64)> {
    let (mut at, size) = (0, disk.size().0);
    let mut out = Vec::new();
    while at < size {
        for extent in disk.extents(GuestRange::between(GuestOffset(at), GuestOffset(size)), 512).unwrap() {
            let (start, end) = (extent.range.start().0, extent.range.end().0);
            if extent.kind == ExtentKind::Data || end - start <= 2 * END {
                out.push((start, end - start));
            } else {
                out.extend([(start, END), (end - END, END)]);
            }
            at = end;
        }
    }
    out
}

#[test]
fn other_crates_read_the_corpus() {
    let Some((mut corpus, rows)) = Corpus::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let reading_folder = folder.path().join("reading");
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    let (mut wrong, mut count) = (Vec::new(), 0);
    let mut held = vec![Vec::new(); SECONDS.len()];
    for row in &rows {
        let Expected::Content { .. } = row.expected else { continue };
        let path = corpus.image(row);
        let image = formats::open(&path, &OpenOptions::default()).unwrap();
        let format = image.layers[0].format;
        for (second, held) in SECONDS.iter().zip(&mut held) {
            if second.format != format {
                continue;
            }
            let ranges = (image.disk.size().0 > READ_WHOLE).then(|| ranges(&*image.disk));
            let reading = read(second, &path, ranges.as_deref(), &reading_folder);
            let (mut outcome, mut says) = (reading.outcome, reading.says);
            if outcome == Outcome::Right
                && let Err(other) = verdict(&row.expected, &reading_with(&reading.copy, &raw))
            {
                (outcome, says) = (Outcome::OtherContent, other);
            }
            wrong.extend(judge(second, second.except_corpus, &row.path, (outcome, &says), held).err());
            count += 1;
        }
    }
    for (second, held) in SECONDS.iter().zip(&held) {
        wrong.extend(unused(second, second.except_corpus, held));
    }
    eprintln!("{count} readings, {} of them exceptions", held.iter().map(Vec::len).sum::<usize>());
    assert!(count > 30, "only {count} readings");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
