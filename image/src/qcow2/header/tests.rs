//! Headers of all versions, real and hostile.

use super::*;
use crate::Kind;

/// A version 3 header for a disk of 1 GiB, 64 KiB clusters.
pub(crate) fn v3() -> Vec<u8> {
    let mut head = vec![0; 65536];
    head[..4].copy_from_slice(&MAGIC);
    put32(&mut head, at::VERSION, 3);
    put32(&mut head, at::CLUSTER_BITS, 16);
    put64(&mut head, at::SIZE, 1 << 30);
    put32(&mut head, at::L1_ENTRIES, 2);
    put64(&mut head, at::L1_OFFSET, 0x10000);
    put32(&mut head, at::REFCOUNT_ORDER, 4);
    put32(&mut head, at::HEADER_LENGTH, 112);
    head
}
fn put32(head: &mut [u8], at: usize, value: u32) {
    head[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
fn put64(head: &mut [u8], at: usize, value: u64) {
    head[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn a_plain_header_is_read() {
    let header = parse(&v3()).unwrap();
    assert_eq!((header.version, header.cluster_size(), header.size), (3, 65536, Bytes(1 << 30)));
    assert_eq!((header.l1_entries, header.l1_table), (2, FileOffset(0x10000)));
    assert_eq!(header.external_data, None);
    assert!(!header.dirty);
    // A writer that did not close the image spoils its reference counts, which are not needed for reading.
    let mut dirty = v3();
    put64(&mut dirty, at::INCOMPATIBLE, incompatible::DIRTY);
    assert_eq!(parse(&dirty).unwrap(), Header { dirty: true, ..header });
}

#[test]
fn each_field_is_refused_one_step_beyond_its_bound() {
    use Kind::{Corrupt, Unsupported};
    type Spoil = fn(&mut Vec<u8>);
    let table: &[(&str, Kind, Spoil)] = &[
        ("magic", Corrupt, |h| h[3] = 0xfc),
        ("qcow version 4", Unsupported, |h| put32(h, at::VERSION, 4)),
        ("qcow version 1", Unsupported, |h| put32(h, at::VERSION, 1)),
        ("cluster bits 8", Corrupt, |h| put32(h, at::CLUSTER_BITS, 8)),
        ("cluster bits 22", Corrupt, |h| put32(h, at::CLUSTER_BITS, 22)),
        ("encrypted (AES)", Unsupported, |h| put32(h, at::CRYPT_METHOD, 1)),
        ("says nowhere where its keys are", Corrupt, |h| put32(h, at::CRYPT_METHOD, 2)),
        ("encrypted (method 3)", Unsupported, |h| put32(h, at::CRYPT_METHOD, 3)),
        ("lies at 0x0", Corrupt, |h| put64(h, at::L1_OFFSET, 0)),
        ("lies at 0x10200", Corrupt, |h| put64(h, at::L1_OFFSET, 0x10200)),
        ("bit 5, bit 63", Unsupported, |h| put64(h, at::INCOMPATIBLE, 1 << 5 | 1 << 63)),
        ("refcount order 7", Corrupt, |h| put32(h, at::REFCOUNT_ORDER, 7)),
        ("header length 96", Corrupt, |h| put32(h, at::HEADER_LENGTH, 96)),
        ("header length 105", Corrupt, |h| put32(h, at::HEADER_LENGTH, 105)),
        ("header length 65544", Corrupt, |h| put32(h, at::HEADER_LENGTH, 65544)),
        ("contradicts the feature bit", Corrupt, |h| h[at::COMPRESSION_TYPE] = 1),
        ("contradicts the feature bit", Corrupt, |h| put64(h, at::INCOMPATIBLE, 8)),
        ("compression type 2", Unsupported, |h| {
            put64(h, at::INCOMPATIBLE, 8);
            h[at::COMPRESSION_TYPE] = 2;
        }),
        ("extended L2 entries with clusters of 8192", Corrupt, |h| {
            put64(h, at::INCOMPATIBLE, 16);
            put32(h, at::CLUSTER_BITS, 13);
            put64(h, at::L1_OFFSET, 8192);
        }),
        ("extension 0x00000007 is 65417 bytes", Corrupt, |h| {
            put32(h, 112, 7);
            put32(h, 116, 65417);
        }),
        ("name is 1024 bytes", Corrupt, |h| {
            put64(h, at::BACKING_OFFSET, 200);
            put32(h, at::BACKING_LEN, 1024);
        }),
        ("name is 2 bytes at 0xffff", Corrupt, |h| {
            put64(h, at::BACKING_OFFSET, 65535);
            put32(h, at::BACKING_LEN, 2);
        }),
        ("name is 2 bytes at 0x6f", Corrupt, |h| {
            put64(h, at::BACKING_OFFSET, 111);
            put32(h, at::BACKING_LEN, 2);
        }),
        ("snapshot table lies at 0x1", Corrupt, |h| {
            put32(h, at::SNAPSHOTS, 1);
            put64(h, at::SNAPSHOTS_OFFSET, 1);
        }),
    ];
    for (says, kind, spoil) in table {
        let mut head = v3();
        spoil(&mut head);
        let error = parse(&head).expect_err(says);
        assert!(error.says().contains(says), "{says}: {error}");
        assert_eq!(error.kind(), *kind, "{says}");
    }
}

#[test]
fn a_built_header_is_parsed_and_fits_the_smallest_cluster() {
    let new = NewHeader {
        cluster_bits: 9,
        size: Bytes(1 << 20),
        l1_entries: 32,
        l1_table: FileOffset(512),
        refcount_table: FileOffset(1024),
        refcount_table_clusters: 1,
        compression: Compression::Zstd,
        extended_l2: false,
        backing: None,
    };
    let head = build(&new).unwrap();
    assert!(head.len() <= 512);
    let header = parse(&head).unwrap();
    assert_eq!((header.version, header.cluster_bits, header.size), (3, 9, Bytes(1 << 20)));
    assert_eq!((header.l1_entries, header.l1_table), (32, FileOffset(512)));
    assert_eq!((header.compression, header.refcount_order), (Compression::Zstd, 4));
    // A base's name takes the room of the features' names, but not more than there is.
    for (len, bits, fits) in
        [(80, 9, true), (81, 9, true), (376, 9, true), (377, 9, false), (1023, 16, true), (1024, 16, false)]
    {
        let backing = Some(("n".repeat(len), "qcow2"));
        match build(&NewHeader {
            cluster_bits: bits,
            l1_table: FileOffset(1 << bits),
            backing,
            ..new.clone()
        }) {
            Ok(head) => {
                assert!(fits && head.len() <= 1 << bits, "{len}");
                let header = parse(&head).unwrap();
                assert_eq!(header.backing_file, Some("n".repeat(len)));
                assert_eq!(header.backing_format.as_deref(), Some("qcow2"));
            }
            Err(error) => assert!(!fits && error.kind() == Kind::Refused, "{len}: {error}"),
        }
    }
}

#[test]
fn unknown_features_are_named_by_the_image() {
    let mut head = v3();
    put64(&mut head, at::INCOMPATIBLE, 1 << 9);
    put32(&mut head, 112, extension::FEATURE_NAMES);
    put32(&mut head, 116, 48);
    head[120] = 0;
    head[121] = 9;
    head[122..128].copy_from_slice(b"warped");
    assert!(parse(&head).unwrap_err().says().contains("\"warped\" (bit 9)"));
}

#[test]
fn every_truncation_is_an_error_or_the_same_header() {
    let head = v3();
    let whole = parse(&head).unwrap();
    for len in 0..200 {
        match parse(&head[..len]) {
            Ok(header) => assert_eq!(header, whole),
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{len}: {error}"),
        }
        assert_eq!(parse(&head[..len]).is_ok(), len >= 120, "{len}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
                                          spoil in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 0..6)) {
        let _ = parse(&bytes);
        let mut head = v3();
        for (at, value) in spoil {
            head[at] = value;
        }
        let _ = parse(&head);
    }
}
