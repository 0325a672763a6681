//! The format: what is read, and what is refused, in memory that does not grow.

use super::super::check::survey;
use super::super::record::{DIFFS_AT_MOST, Head, NAME_AT_MOST, Part, SETTINGS_AT_MOST, Shape, Version};
use super::super::stream::Stream;
use super::{Said, diff, image};
use landfall_image::{Bytes, Error, GuestOffset, GuestRange, Kind, Result, limits};
use proptest::prelude::*;
use std::io::{self, Read};

/// A diff's head, and what it says.
type Diff = (Head, Vec<Said>);

/// All of a stream: heads and records.
fn read(bytes: &[u8]) -> Result<(Shape, Vec<Diff>)> {
    let mut stream = Stream::open(bytes)?;
    let mut out: Vec<(Head, Vec<Said>)> = Vec::new();
    while let Some(part) = stream.part()? {
        let said = match part {
            Part::Diff(head) => {
                out.push((head, Vec::new()));
                continue;
            }
            Part::Data(range) => {
                let mut data = Vec::new();
                let mut buf = [0; 7];
                loop {
                    match stream.read(&mut buf)? {
                        0 => break,
                        count => data.extend(&buf[..count]),
                    }
                }
                assert_eq!(data.len() as u64, range.len().0);
                Said::Data(range.start().0, data)
            }
            Part::Zero(range) => Said::Zero(range.start().0, range.len().0),
            Part::End => continue,
        };
        out.last_mut().unwrap().1.push(said);
    }
    assert_eq!(stream.position().0, bytes.len() as u64);
    Ok((stream.shape(), out))
}

fn refused(bytes: &[u8]) -> Error {
    let error = read(bytes).unwrap_err();
    assert!(error.kind() != Kind::Io && error.offset().is_some() && error.hint_text().is_some(), "{error:?}");
    assert!(survey(bytes).is_err());
    error
}

/// Each byte by hand, from the documents.
#[test]
fn both_notations_are_read() {
    let mut one = b"rbd diff v1\nf\x02\0\0\0s1t\x02\0\0\0s2s\0\x10\0\0\0\0\0\0".to_vec();
    one.extend(b"w\x10\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0abcz\0\x08\0\0\0\0\0\0\0\x02\0\0\0\0\0\0e");
    let mut two = b"rbd diff v2\nf\x06\0\0\0\0\0\0\0\x02\0\0\0s1t\x06\0\0\0\0\0\0\0\x02\0\0\0s2".to_vec();
    two.extend(b"p\x01\0\0\0\0\0\0\0\x01s\x08\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0");
    two.extend(b"w\x13\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0abc");
    two.extend(b"z\x10\0\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x02\0\0\0\0\0\0e");
    let head = Head { from: Some("s1".into()), to: Some("s2".into()), size: Bytes(4096) };
    let said = vec![Said::Data(16, b"abc".to_vec()), Said::Zero(2048, 512)];
    assert_eq!(read(&one).unwrap(), (Shape::Diff(Version::V1), vec![(head.clone(), said.clone())]));
    assert_eq!(read(&two).unwrap(), (Shape::Diff(Version::V2), vec![(head, said.clone())]));
    // What is written is the same, but for the protection.
    assert_eq!(diff(Version::V1, Some("s1"), Some("s2"), 4096, &said), one);
    let at = two.windows(2).position(|pair| pair == b"p\x01").unwrap();
    two.drain(at..at + 10);
    assert_eq!(diff(Version::V2, Some("s1"), Some("s2"), 4096, &said), two);
}

#[test]
fn an_image_has_the_diffs_of_its_snapshots() {
    let first = diff(Version::V2, None, Some("s1"), 4096, &[Said::Data(0, vec![1; 100])]);
    let second = diff(Version::V2, Some("s1"), Some("s2"), 8192, &[Said::Zero(0, 50)]);
    let last = diff(Version::V2, Some("s2"), None, 8192, &[]);
    let bytes = image(&[first.clone(), second.clone(), last.clone()]);
    let (shape, diffs) = read(&bytes).unwrap();
    assert_eq!(shape, Shape::Image { diffs: 3 });
    assert_eq!(diffs.iter().map(|(head, _)| head.size.0).collect::<Vec<_>>(), [4096, 8192, 8192]);
    let summary = survey(&bytes[..]).unwrap();
    assert_eq!((summary.diffs.len(), summary.length.0), (3, bytes.len() as u64));
    assert_eq!((summary.diffs[0].data, summary.diffs[1].zeros), (Bytes(100), Bytes(50)));
    assert_eq!(summary.diffs[2].sum, summary.sha256);
    // They follow on each other.
    for wrong in [
        vec![first.clone(), first.clone(), last.clone()],
        vec![second.clone(), last.clone()],
        vec![first.clone(), last.clone()],
        vec![diff(Version::V2, None, None, 4096, &[]), first.clone()],
        vec![first.clone(), diff(Version::V1, Some("s1"), None, 4096, &[])],
    ] {
        let error = survey(&image(&wrong)[..]).unwrap_err();
        assert!(
            error.kind() == Kind::Corrupt && error.offset().is_some() && error.hint_text().is_some(),
            "{error}"
        );
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let v1 = |records: &[u8]| [b"rbd diff v1\n", records].concat();
    let v2 = |records: &[u8]| [b"rbd diff v2\n", records].concat();
    let size = b"s\0\x10\0\0\0\0\0\0";
    let sized = |records: &[u8]| v1(&[&size[..], records].concat());
    let size2 = b"s\x08\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0";
    let sized2 = |records: &[u8]| v2(&[&size2[..], records].concat());
    let whole = sized(b"e");
    assert!(read(&whole).is_ok());
    for (bytes, words) in [
        (vec![], "is empty"),
        (b"rbd diff v3\n".to_vec(), "where \"rbd diff v1\""),
        (b"QFI\xfb".to_vec(), "has"),
        (v1(b""), "cut off"),
        (v1(b"e"), "how large"),
        (v1(b"w"), "how large"),
        (sized(b""), "cut off"),
        (sized(b"e\n"), "goes on behind"),
        (sized(b"x"), "'x', which is not known"),
        (sized(b"\0"), "0x00, which is not known"),
        (sized(&[&size[..], b"e"].concat()), "two records 's'"),
        (v1(&[b"p\0", &size[..], b"e"].concat()), "'p', which is not known"),
        (sized2(b"p\x01\0\0\0\0\0\0\0\x02e"), "0 or 1"),
        (sized2(b"p\x02\0\0\0\0\0\0\0\0\0e"), "says that it has 2 bytes"),
        (sized(b"z\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0sAAAAAAAAe"), "behind data"),
        (sized(b"z\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0e"), "0 bytes at 0x0"),
        (sized(b"z\x01\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0e"), "4096 bytes at 0x1 of a disk of 4096"),
        (sized(b"w\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0\0\0\0\0ae"), "of a disk"),
        (sized(b"w\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffae"), "of a disk"),
        (sized(b"w\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0ae"), "cut off"),
        (v1(b"f\0\0\0\0"), "has 0 bytes"),
        (v1(b"f\x02\0\0\0\xff\xfe"), "UTF-8"),
        (v1(b"t\x02\0\0\0a\n"), "control"),
        (v1(b"s\xff\xff\xff\xff\xff\xff\xff\xffe"), "the limit is"),
        (
            sized2(b"z\x11\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0e"),
            "says that it has 17 bytes, and has 16",
        ),
        (
            sized2(b"w\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0ae"),
            "says that it has 16 bytes, and has 17",
        ),
        (v2(b"f\x05\0\0\0\0\0\0\0\x02\0\0\0s1"), "says that it has 5 bytes, and has 6"),
        (v2(b"s\x07\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0e"), "says that it has 7 bytes"),
    ] {
        let error = refused(&bytes);
        assert!(error.to_string().contains(words), "{error}: {words}");
    }
}

#[test]
fn settings_of_an_image_are_passed_over_with_care() {
    let body = image(&[diff(Version::V2, None, None, 512, &[])]);
    assert!(read(&body).is_ok());
    let settings = |settings: &[u8]| {
        [
            b"rbd image v2\n",
            settings,
            b"Erbd image diffs v2\n\x01\0\0\0\0\0\0\0",
            &diff(Version::V2, None, None, 512, &[]),
        ]
        .concat()
    };
    assert!(read(&settings(b"")).is_ok());
    assert!(read(&settings(b"M\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")).is_ok());
    for (bytes, words) in [
        (settings(b"X\0\0\0\0\0\0\0\0"), "'X', which is not known"),
        (settings(b"O\x04\0\0\0\0\0\0\0\0\0\0\0"), "says that it has 4 bytes"),
        (settings(b"O\x08\0\0\0\0\0\0\0AAAAAAAAO\x08\0\0\0\0\0\0\0AAAAAAAA"), "two settings 'O'"),
        (settings(b"M\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "has a part of"),
        (settings(b"M\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "too many"),
        (settings(b"M\x08\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0"), "has a part of"),
        (b"rbd image v2\n".to_vec(), "cut off"),
        (b"rbd image v2\nE".to_vec(), "ends where"),
        (b"rbd image v2\nErbd diff v2\n".to_vec(), "where \"rbd image diffs v2\""),
    ] {
        let error = refused(&bytes);
        assert!(error.to_string().contains(words), "{error}: {words}");
    }
}

/// One step beyond each bound.
#[test]
fn every_bound_is_kept() {
    let name = |len: u32| {
        let mut bytes = b"rbd diff v1\nt".to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(vec![b'a'; usize::try_from(len).unwrap()]);
        bytes.extend(b"s\0\x02\0\0\0\0\0\0e");
        bytes
    };
    assert!(read(&name(NAME_AT_MOST)).is_ok());
    refused(&name(NAME_AT_MOST + 1));
    let size = |size: u64| diff(Version::V1, None, None, size, &[]);
    assert!(read(&size(limits::DISK_SIZE.0)).is_ok());
    assert_eq!(read(&size(limits::DISK_SIZE.0 + 1)).unwrap_err().kind(), Kind::Refused);
    let diffs = |count: u64| {
        let mut bytes = b"rbd image v2\nErbd image diffs v2\n".to_vec();
        bytes.extend(count.to_le_bytes());
        let names: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
        for n in 0..names.len() {
            let from = n.checked_sub(1).map(|n| names[n].as_str());
            bytes.extend(diff(Version::V2, from, Some(&names[n]), 512, &[]));
        }
        bytes
    };
    assert_eq!(survey(&diffs(DIFFS_AT_MOST)[..]).unwrap().diffs.len() as u64, DIFFS_AT_MOST);
    refused(&diffs(DIFFS_AT_MOST + 1));
    refused(&diffs(0));
    let settings = |len: u64| {
        let mut bytes = b"rbd image v2\nM".to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(u32::try_from(len - 8).unwrap().to_le_bytes());
        bytes.extend(vec![0; usize::try_from(len - 8).unwrap()]);
        bytes.extend([0; 4]);
        bytes.extend(b"Erbd image diffs v2\n\x01\0\0\0\0\0\0\0");
        bytes.extend(diff(Version::V2, None, None, 512, &[]));
        bytes
    };
    assert!(read(&settings(SETTINGS_AT_MOST.0)).is_ok());
    refused(&settings(SETTINGS_AT_MOST.0 + 1));
}

/// Endless zeros behind the head of a record that announces a disk full of them.
#[test]
fn memory_does_not_depend_on_what_a_stream_says() {
    let mut head = diff(Version::V1, None, None, limits::DISK_SIZE.0, &[]);
    head.pop();
    head.extend(b"w\0\0\0\0\0\0\0\0");
    head.extend(limits::DISK_SIZE.0.to_le_bytes());
    let mut stream = Stream::open(head.chain(io::repeat(0))).unwrap();
    assert!(matches!(stream.part().unwrap(), Some(Part::Diff(_))));
    let whole = GuestRange::new(GuestOffset(0), limits::DISK_SIZE);
    assert_eq!(stream.part().unwrap(), Some(Part::Data(whole)));
    let mut buf = vec![1; 1 << 20];
    assert_eq!(stream.read(&mut buf).unwrap(), 1 << 20);
    assert!(buf.iter().all(|byte| *byte == 0));
}

#[test]
fn a_reader_that_fails_is_no_damage() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let bytes = b"rbd diff v1\n";
            if self.0 >= bytes.len() {
                return Err(io::Error::from_raw_os_error(5));
            }
            buf[0] = bytes[self.0];
            self.0 += 1;
            Ok(1)
        }
    }
    let error = Stream::open(Broken(0)).and_then(|mut stream| stream.part()).unwrap_err();
    assert!(error.kind() == Kind::Io && error.offset().is_some(), "{error}");
}

fn said() -> impl Strategy<Value = Vec<(u16, Option<Vec<u8>>, u16)>> {
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 1..300));
    prop::collection::vec((0..2000_u16, data, 1..3000_u16), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What is written is read, record by record.
    #[test]
    fn written_is_read(
        version in prop_oneof![Just(Version::V1), Just(Version::V2)],
        from in prop::option::of("[a-z0-9 ._é-]{1,40}"),
        to in prop::option::of("[a-z0-9 ._é-]{1,40}"),
        runs in said(),
        rest in 0..5000_u64,
    ) {
        let (mut records, mut at) = (Vec::new(), 0);
        for (gap, data, len) in runs {
            at += u64::from(gap);
            let (said, len) = match data {
                Some(data) => (Said::Data(at, data.clone()), data.len() as u64),
                None => (Said::Zero(at, u64::from(len)), u64::from(len)),
            };
            records.push(said);
            at += len;
        }
        let bytes = diff(version, from.as_deref(), to.as_deref(), at + rest, &records);
        let head = Head { from, to, size: Bytes(at + rest) };
        prop_assert_eq!(read(&bytes).unwrap(), (Shape::Diff(version), vec![(head, records)]));
        // Each beginning of it is cut off, and nothing else.
        for end in 0..bytes.len() {
            prop_assert!(read(&bytes[..end]).is_err_and(|error| error.kind() == Kind::Corrupt));
        }
    }

    /// Whatever comes is read or refused.
    #[test]
    fn anything_is_read_or_refused(banner in 0..4_usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let banner = [&b""[..], b"rbd diff v1\n", b"rbd diff v2\n", b"rbd image v2\n"][banner];
        let _ = read(&[banner, &bytes].concat());
    }
}
