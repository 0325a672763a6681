//! What is written here, as the other crates read it, byte for byte against what it was made of.

use super::{Outcome, SECONDS, difference, judge, read, unused};
use crate::disk::pairs;
use landfall_image::formats::{self, KINDS};
use landfall_image::testing::{self, MemDisk};
use landfall_image::{Bytes, Disk, Format, OpenOptions};

/// Larger than what a 32-bit number of bytes, a table, or a part of a split image reaches, with an odd end: what lies
/// around those borders, and where to look.
fn large() -> (MemDisk, Vec<(u64, u64)>) {
    const MIB: u64 = 1 << 20;
    let size = 4500 * MIB + 1536;
    let disk = MemDisk::new(Bytes(size))
        .data(0, testing::text_bytes(1, 3 << 20))
        .data(40 * MIB - 512, testing::noise_bytes(2, 2 << 20))
        .data(2046 * MIB + 512, testing::text_bytes(3, 3 << 20))
        .data(4090 * MIB, testing::noise_bytes(4, 10 << 20))
        .data(4200 * MIB, vec![0; 1 << 20])
        .data(size - 512, vec![9; 512]);
    let ranges = vec![
        (0, 4 * MIB),
        (40 * MIB - 65_536, 3 * MIB),
        (2045 * MIB, 5 * MIB),
        (3000 * MIB, MIB),
        (4089 * MIB, 12 * MIB),
        (4200 * MIB, 2 * MIB),
        (size - 70_144, 70_144),
    ];
    (disk, ranges)
}

/// Every kind, in every variant, of every content, and plainly of a large one.
#[test]
fn other_crates_read_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (image_folder, reading_folder) = (folder.path().join("image"), folder.path().join("reading"));
    let (mut wrong, mut count) = (Vec::new(), 0);
    let mut held = vec![Vec::new(); SECONDS.len()];
    let mut contents: Vec<_> = pairs::contents().into_iter().map(|(what, disk)| (what, disk, None)).collect();
    let (disk, ranges) = large();
    contents.push(("large", disk, Some(ranges)));
    for kind in KINDS.iter().filter(|kind| SECONDS.iter().any(|second| second.format == kind.format)) {
        for (variant, options) in pairs::variants(kind) {
            for (what, disk, ranges) in &contents {
                if ranges.is_some() && variant != "plain" {
                    continue;
                }
                std::fs::create_dir(&image_folder).unwrap();
                let path = image_folder.join(pairs::file_name(kind));
                pairs::write(disk, kind, &options, &path);
                // Rounded up, with zeros behind the content.
                let own = formats::open(&path, &OpenOptions::default()).unwrap().disk.size();
                assert!(own == disk.size() || kind.format == Format::Vhd && own > disk.size());
                let expected = Padded { disk, size: own };
                let Some(path) = pairs::unpacked(kind, &path) else {
                    std::fs::remove_dir_all(&image_folder).unwrap();
                    continue;
                };
                for (second, held) in SECONDS.iter().zip(&mut held) {
                    let len = std::fs::metadata(&path).unwrap().len();
                    if second.format != kind.format || second.loads_all && len > 1 << 30 {
                        continue;
                    }
                    let name = format!("{}, {variant}, {what}", kind.name);
                    let reading = read(second, &path, ranges.as_deref(), &reading_folder);
                    let (mut outcome, mut says) = (reading.outcome, reading.says);
                    if outcome == Outcome::Right
                        && let Err(other) = difference(&reading.copy, &expected, ranges.as_deref())
                    {
                        (outcome, says) = (Outcome::OtherContent, other);
                    }
                    wrong.extend(judge(second, second.except_written, &name, (outcome, &says), held).err());
                    count += 1;
                }
                std::fs::remove_dir_all(&image_folder).unwrap();
            }
        }
    }
    for (second, held) in SECONDS.iter().zip(&held) {
        wrong.extend(unused(second, second.except_written, held));
    }
    eprintln!("{count} readings, {} of them exceptions", held.iter().map(Vec::len).sum::<usize>());
    assert!(count > 100, "only {count} readings");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// A disk with zeros behind it.
#[derive(Debug)]
struct Padded<'a> {
    disk: &'a MemDisk,
    size: Bytes,
}

impl Disk for Padded<'_> {
    fn size(&self) -> Bytes {
        self.size
    }

    fn extents(
        &self,
        range: landfall_image::GuestRange,
        at_most: usize,
    ) -> landfall_image::Result<Vec<landfall_image::Extent>> {
        self.disk.extents(range, at_most)
    }

    fn read_at(&self, at: landfall_image::GuestOffset, buf: &mut [u8]) -> landfall_image::Result<()> {
        let there = self.disk.size().0.saturating_sub(at.0).min(buf.len() as u64);
        let (content, zeros) = buf.split_at_mut(usize::try_from(there).unwrap());
        zeros.fill(0);
        if content.is_empty() { Ok(()) } else { self.disk.read_at(at, content) }
    }
}
