//! Streams that deltas come in.

use landfall::receive::rbd::check::survey;
use landfall::receive::rbd::record::{Part, Version};
use landfall::receive::rbd::stream::Stream;
use landfall::receive::rbd::write::Writer;
use landfall_image::{Bytes, GuestOffset, GuestRange, Result};

/// A record and where it lies.
#[derive(Debug, PartialEq, Eq)]
enum Record {
    Data(u64, Vec<u8>),
    Zero(u64, u64),
}

type Diffs = Vec<(landfall::receive::rbd::record::Head, Vec<Record>)>;

/// Reads a stream with a buffer of that size.
fn read(input: &[u8], size: usize) -> Result<Diffs> {
    let mut stream = Stream::open(input)?;
    let mut diffs: Diffs = Vec::new();
    let mut buf = vec![0; size];
    while let Some(part) = stream.part()? {
        let record = match part {
            Part::Diff(head) => {
                diffs.push((head, Vec::new()));
                continue;
            }
            Part::End => continue,
            Part::Zero(range) => Record::Zero(range.start().0, range.len().0),
            Part::Data(range) => {
                let mut data = Vec::new();
                loop {
                    match stream.read(&mut buf)? {
                        0 => break,
                        count => data.extend_from_slice(&buf[..count]),
                    }
                }
                assert_eq!(data.len() as u64, range.len().0);
                Record::Data(range.start().0, data)
            }
        };
        let (head, records) = diffs.last_mut().expect("a record lies in a diff");
        let (start, len) = match &record {
            Record::Data(at, data) => (*at, data.len() as u64),
            Record::Zero(at, len) => (*at, *len),
        };
        assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= head.size.0));
        records.push(record);
    }
    assert_eq!(stream.position().0, input.len() as u64);
    Ok(diffs)
}

/// Writes diffs as they were read; `None` where the writer's own rules are stricter.
fn written(diffs: &Diffs, version: Version) -> Option<Vec<u8>> {
    let [(head, records)] = diffs.as_slice() else { return None };
    let mut writer = Writer::begin(Vec::new(), version, head).ok()?;
    for record in records {
        match record {
            Record::Data(at, data) => writer.data(GuestOffset(*at), data).ok()?,
            Record::Zero(at, len) => writer.zero(GuestRange::new(GuestOffset(*at), Bytes(*len))).ok()?,
        }
    }
    writer.finish().ok()
}

/// One input.
pub fn rbd(input: &[u8]) {
    crate::limit_memory();
    let found = read(input, 4096);
    match (&found, survey(input)) {
        (Ok(diffs), Ok(summary)) => {
            assert_eq!(diffs.len(), summary.diffs.len());
            assert_eq!(summary.length.0, input.len() as u64);
        }
        // An image whose diffs do not follow on each other.
        (Ok(diffs), Err(_)) => assert!(input.starts_with(b"rbd image") && !diffs.is_empty()),
        (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => panic!("read in one way only: {error}"),
    }
    let Ok(diffs) = found else { return };
    assert_eq!(read(input, 7).expect("was read before"), diffs);
    for version in [Version::V1, Version::V2] {
        if let Some(bytes) = written(&diffs, version) {
            let again = read(&bytes, 100).expect("what is written is read");
            let data = |diffs: &Diffs| {
                let mut all: Vec<u8> = Vec::new();
                for (_, records) in diffs {
                    records.iter().for_each(|record| match record {
                        Record::Data(_, data) => all.extend(data),
                        Record::Zero(..) => {}
                    });
                }
                all
            };
            assert_eq!(again[0].0, diffs[0].0);
            assert_eq!(data(&again), data(&diffs));
        }
    }
}

/// Inputs to begin with, by name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let head = |from: Option<&str>, to: Option<&str>| landfall::receive::rbd::record::Head {
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
        size: Bytes(1 << 20),
    };
    let diff = |version, from, to| {
        let mut writer = Writer::begin(Vec::new(), version, &head(from, to)).expect("begins");
        writer.data(GuestOffset(4096), b"some data").expect("data");
        writer.zero(GuestRange::new(GuestOffset(65_536), Bytes(4096))).expect("zeros");
        writer.data(GuestOffset((1 << 20) - 3), b"end").expect("data");
        writer.finish().expect("ends")
    };
    let mut image = b"rbd image v2\nO\x08\0\0\0\0\0\0\0\x16\0\0\0\0\0\0\0".to_vec();
    image.extend(b"M\x0d\0\0\0\0\0\0\0\x02\0\0\0ke\x03\0\0\0valErbd image diffs v2\n\x02\0\0\0\0\0\0\0");
    image.extend(diff(Version::V2, None, Some("one")));
    image.extend(diff(Version::V2, Some("one"), None));
    vec![
        ("v1", diff(Version::V1, Some("one"), Some("two"))),
        ("v1-whole", diff(Version::V1, None, None)),
        ("v2", diff(Version::V2, Some("one"), Some("two"))),
        ("image", image),
    ]
}
