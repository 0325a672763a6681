//! Numbers that lie: sizes of disks and tables, lengths of compressed data, places that overlap.

use super::build::{
    GRAIN_AT, be32, be64, descriptor, le32, le64, luks, qcow2, qcow2_with, save, sparse, vdi,
};
use super::build::{vhd_footers, vhd_sum, written};
use super::{bounded, refused, run_all};
use std::io::Write;
use std::path::{Path, PathBuf};

const HUGE: u64 = 1 << 63;

/// A qcow2 image with its fields changed.
fn changed(change: impl Fn(&mut Vec<u8>) + 'static) -> impl Fn(&Path) -> PathBuf + 'static {
    move |vm| {
        let mut bytes = qcow2(9);
        change(&mut bytes);
        save(vm, "a.qcow2", &bytes)
    }
}

/// A VHDX with an item of its metadata changed: the item's GUID as it lies there, and where in the item.
fn vhdx_item(guid: [u8; 16], change: impl Fn(&mut [u8]) + 'static) -> impl Fn(&Path) -> PathBuf + 'static {
    move |vm| {
        written(vm, "vhdx", "a.vhdx", |bytes| {
            let table = bytes.windows(8).position(|part| part == b"metadata").unwrap();
            let entry = table + bytes[table..].windows(16).position(|part| part == guid).unwrap();
            let offset = u32::from_le_bytes(bytes[entry + 16..entry + 20].try_into().unwrap()) as usize;
            change(&mut bytes[table + offset..]);
        })
    }
}

/// {2FA54224-CD1B-4876-B211-5DBED83BF4B8}: virtual disk size.
const VHDX_SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
/// {CAA16737-FA36-4D43-B3B6-33F0AA44E76B}: file parameters, block size first.
const VHDX_PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
/// {2DC27766-F623-4200-9D64-115E9BFD4A08}: the region of the block allocation table.
const VHDX_BAT: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";

#[test]
fn a_disk_of_2_to_the_63_bytes_is_refused_by_every_format() {
    let mut cases = vec![
        refused("qcow2", &["says it is a disk of"], changed(|b| be64(b, 24, HUGE))),
        refused("qcow2 with a table to match", &["says it is a disk of"], |vm| {
            let mut bytes = qcow2(21);
            be64(&mut bytes, 24, HUGE);
            be32(&mut bytes, 36, 1 << 24);
            save(vm, "a.qcow2", &bytes)
        }),
        refused("vmdk flat", &["more than 256.0 TiB together"], |vm| {
            save(vm, "x.raw", &[0; 4096]);
            save(vm, "a.vmdk", descriptor("custom", "RW 18014398509481984 FLAT \"x.raw\" 0").as_bytes())
        }),
        refused("vmdk zero", &["more than 256.0 TiB together"], |vm| {
            save(vm, "a.vmdk", descriptor("custom", "RW 18014398509481984 ZERO").as_bytes())
        }),
        refused("vmdk, extents that add up to more than 2^64", &["more than 256.0 TiB together"], |vm| {
            let lines = "RW 18014398509481984 ZERO\n".repeat(3);
            save(vm, "a.vmdk", descriptor("custom", &lines).as_bytes())
        }),
        refused("vmdk sparse", &["says it holds 18014398509481984 sectors"], |vm| {
            let mut bytes = sparse(&[], 0);
            le64(&mut bytes, 12, HUGE / 512);
            save(vm, "a.vmdk", &bytes)
        }),
        refused(
            "vhdx",
            &["the virtual disk size is 9223372036854775808 bytes"],
            vhdx_item(VHDX_SIZE, |item| le64(item, 0, HUGE)),
        ),
        refused("vdi", &["281474976710656 are possible"], |vm| {
            let mut bytes = vdi(1);
            le64(&mut bytes, 368, HUGE);
            save(vm, "a.vdi", &bytes)
        }),
    ];
    for (kind, says) in
        [("vhd", "the block table has 2 entries; a disk of"), ("vhd-fixed", "a fixed disk of")]
    {
        cases.push(refused(kind, &[says, "9223372036854775808 bytes"], move |vm| {
            written(vm, kind, "a.vhd", |bytes| vhd_footers(bytes, |footer| be64(footer, 48, HUGE)))
        }));
    }
    run_all(&cases);
}

#[test]
fn a_table_that_says_it_is_larger_than_any_is_refused() {
    let cases = [
        refused(
            "qcow2 L1, too short for the disk",
            &["the L1 table has 1 entries"],
            changed(|b| be64(b, 24, 1 << 40)),
        ),
        refused(
            "qcow2 L1 of 2^32 entries",
            &["needs an L1 table of"],
            changed(|b| {
                be64(b, 24, 100 << 40);
                be32(b, 36, u32::MAX);
            }),
        )
        .hint("cluster_size"),
        refused("qcow2 L1 behind the end", &["pass the end of the file"], changed(|b| be64(b, 40, 1 << 62))),
        refused(
            "qcow2 L2 behind the end",
            &["L1 entry 0 points at 0x80000000000000; the file ends at 0x800"],
            changed(|b| be64(b, 512, 1 << 63 | 1 << 55)),
        ),
        refused(
            "qcow2 L2 not on a cluster",
            &["has reserved bits set"],
            changed(|b| be64(b, 512, 1 << 63 | 0x401 << 1)),
        ),
        refused(
            "qcow2, 2^32-1 snapshots",
            &["snapshots"],
            changed(|b| {
                be32(b, 60, u32::MAX);
                be64(b, 64, 512);
            }),
        ),
        refused(
            "qcow2, snapshots behind the end",
            &["truncated: 40 bytes are wanted at 0x4000000000000000"],
            changed(|b| {
                be32(b, 60, 3);
                be64(b, 64, 1 << 62);
            }),
        ),
        refused("qcow2, clusters of 2^31", &["cluster bits 31"], changed(|b| be32(b, 20, 31))),
        refused("qcow2, header of 2^32-8", &["header length"], changed(|b| be32(b, 100, u32::MAX - 7))),
        refused("qcow2, extension of 2^32-1", &["is 4294967295 bytes long; 392 are left"], |vm| {
            let mut bytes = qcow2_with(0x1234, b"x");
            be32(&mut bytes, 116, u32::MAX);
            save(vm, "a.qcow2", &bytes)
        }),
        refused(
            "qcow2, backing name of 2^32-1",
            &["backing file's name"],
            changed(|b| {
                be64(b, 8, 128);
                be32(b, 16, u32::MAX);
            }),
        ),
        refused("vmdk directory behind the end", &["the grain directory lies at 0x8000000000000000"], |vm| {
            let mut bytes = sparse(b"x", 1);
            le64(&mut bytes, 56, 1 << 54);
            save(vm, "a.vmdk", &bytes)
        }),
        refused("vmdk directory that overflows", &["gdOffset is 0xfffffffffffffffe sectors"], |vm| {
            let mut bytes = sparse(b"x", 1);
            le64(&mut bytes, 56, u64::MAX - 1);
            save(vm, "a.vmdk", &bytes)
        }),
        refused("vmdk directory of 256 MiB", &[], |vm| {
            let mut bytes = sparse(b"x", 1);
            le64(&mut bytes, 12, 1 << 38);
            le64(&mut bytes, 20, 8);
            save(vm, "a.vmdk", &bytes)
        }),
        refused("vmdk tables of 2^32-1 entries", &["4294967295 entries per grain table"], |vm| {
            let mut bytes = sparse(b"x", 1);
            le32(&mut bytes, 44, u32::MAX);
            save(vm, "a.vmdk", &bytes)
        }),
        refused("vmdk grains of 2^40", &["grain size 1099511627776 sectors"], |vm| {
            let mut bytes = sparse(b"x", 1);
            le64(&mut bytes, 20, 1 << 40);
            save(vm, "a.vmdk", &bytes)
        }),
        refused("vmdk descriptor of 2^60", &["its descriptor has 1.0 EiB"], |vm| {
            let mut bytes = sparse(b"x", 1);
            le64(&mut bytes, 36, 1 << 51);
            save(vm, "a.vmdk", &bytes)
        }),
        refused(
            "vmdk table behind the end",
            &["grain directory entry 0xffffffff points past the end"],
            |vm| {
                let mut bytes = sparse(b"x", 1);
                le32(&mut bytes, 21 * 512, u32::MAX);
                save(vm, "a.vmdk", &bytes)
            },
        ),
        refused("vmdk, 40000 extents", &["32768 extents"], |vm| {
            save(vm, "a.vmdk", descriptor("custom", &"RW 1 ZERO\n".repeat(40_000)).as_bytes())
        }),
        refused("vmdk descriptor of 5 MiB", &["descriptor has"], |vm| {
            save(vm, "a.vmdk", descriptor("custom", &"#\n".repeat(5 << 19)).as_bytes())
        }),
        refused(
            "vhdx blocks of 0",
            &["the block size is 0 bytes"],
            vhdx_item(VHDX_PARAMETERS, |item| le32(item, 0, 0)),
        ),
        refused(
            "vhdx blocks of 2^31",
            &["the block size is 2147483648 bytes"],
            vhdx_item(VHDX_PARAMETERS, |item| le32(item, 0, 1 << 31)),
        ),
        refused(
            "vhdx, more blocks than its table",
            &["the block allocation table needs 16785407 entries"],
            vhdx_item(VHDX_SIZE, |item| le64(item, 0, 32 << 40)),
        ),
        refused("vhdx table entries behind the end", &["block table entry 0: points at 15.9 EiB"], |vm| {
            written(vm, "vhdx", "a.vhdx", |bytes| {
                // Region tables lie at 192 KiB; the block allocation table's entry, then where it lies.
                let entry = bytes[192 << 10..].windows(16).position(|part| part == VHDX_BAT).unwrap();
                let place = &bytes[(192 << 10) + entry + 16..][..8];
                let at = u64::from_le_bytes(place.try_into().unwrap());
                le64(bytes, usize::try_from(at).unwrap(), u64::MAX << 20 | 6);
            })
        }),
        refused("vhd table of 2^32-1 entries", &["the block table has 4294967295 entries"], |vm| {
            written(vm, "vhd", "a.vhd", |bytes| {
                be32(bytes, 512 + 28, u32::MAX);
                vhd_sum(bytes, 512, 1024, 36);
            })
        }),
        refused("vhd table behind the end", &["the block table has 8 bytes at 0x8000000000000000"], |vm| {
            written(vm, "vhd", "a.vhd", |bytes| {
                be64(bytes, 512 + 16, HUGE);
                vhd_sum(bytes, 512, 1024, 36);
            })
        }),
        refused("vhd blocks of 2^31", &["a block up to 0x480e00"], |vm| {
            written(vm, "vhd", "a.vhd", |bytes| {
                be32(bytes, 512 + 32, 1 << 31);
                vhd_sum(bytes, 512, 1024, 36);
            })
        }),
        refused("vhd block behind the end", &["a block up to 0x200001ffe00"], |vm| {
            written(vm, "vhd", "a.vhd", |bytes| {
                let table = u64::from_be_bytes(bytes[512 + 16..512 + 24].try_into().unwrap());
                be32(bytes, usize::try_from(table).unwrap(), u32::MAX - 1);
            })
        }),
        refused("vhd header at 2^63", &["1024 bytes are wanted at 0x8000000000000000"], |vm| {
            written(vm, "vhd", "a.vhd", |bytes| vhd_footers(bytes, |footer| be64(footer, 16, HUGE)))
        }),
        refused("vdi map of 2^32-1 entries", &["the block map has 4294967295 entries"], |vm| {
            let mut bytes = vdi(1);
            le32(&mut bytes, 384, u32::MAX);
            save(vm, "a.vdi", &bytes)
        }),
        refused("vdi blocks of 2^31", &["the block size is 2147483648 bytes"], |vm| {
            let mut bytes = vdi(1);
            le32(&mut bytes, 376, 1 << 31);
            le64(&mut bytes, 368, 4 << 31);
            save(vm, "a.vdi", &bytes)
        }),
        refused("vdi block behind the end", &["block map entry 0 is 4294967280"], |vm| {
            let mut bytes = vdi(1);
            le32(&mut bytes, 0x200, 0xffff_fff0);
            save(vm, "a.vdi", &bytes)
        }),
        refused("vdi map behind the end", &["the block map lies from 0xfffffe00"], |vm| {
            let mut bytes = vdi(1);
            le32(&mut bytes, 340, 0xffff_fe00);
            save(vm, "a.vdi", &bytes)
        }),
        refused("luks key of 2^32-1", &["a volume key of 4294967295 bytes"], |vm| {
            let mut bytes = luks();
            be32(&mut bytes, 108, u32::MAX);
            save(vm, "a.luks", &bytes)
        })
        .with(&["-f", "luks"]),
        refused("ova member of 2^62", &["cut off"], |vm| {
            let mut bytes = super::build::tar(&[("a.ovf", b"<Envelope/>"), ("a.raw", &[1; 4096])]);
            // Base 256 in the second header, whose checksum is made right.
            bytes[1024 + 124..1024 + 136].fill(0);
            bytes[1024 + 124] = 0x80;
            bytes[1024 + 128] = 0x40;
            bytes[1024 + 148..1024 + 156].fill(b' ');
            let sum: u32 = bytes[1024..1536].iter().map(|byte| u32::from(*byte)).sum();
            bytes[1024 + 148..1024 + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            save(vm, "a.ova", &bytes)
        }),
    ];
    run_all(&cases);
}

/// 64 MiB of zeros, as a stream of 64 KiB.
fn bomb(zlib_header: bool) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let run = |out: &mut dyn Write| (0..64).for_each(|_| out.write_all(&zeros).unwrap());
    let best = flate2::Compression::best();
    let mut packed = Vec::new();
    match zlib_header {
        true => run(&mut flate2::write::ZlibEncoder::new(&mut packed, best)),
        false => run(&mut flate2::write::DeflateEncoder::new(&mut packed, best)),
    }
    packed
}

/// A qcow2 image whose first cluster, of 64 KiB, is these compressed bytes.
fn compressed(packed: &[u8], zstd: bool) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut bytes = qcow2(16);
    if zstd {
        be64(&mut bytes, 72, 8);
        bytes[104] = 1;
    }
    bytes.resize(5 * CLUSTER, 0);
    be64(&mut bytes, CLUSTER, HUGE | (4 << 16));
    let sectors = (packed.len() as u64).div_ceil(512).saturating_sub(1).min(255);
    be64(&mut bytes, 4 * CLUSTER, 1 << 62 | sectors << 54 | 5 << 16);
    bytes.extend(packed);
    bytes.resize(bytes.len().next_multiple_of(CLUSTER), 0);
    bytes
}

/// Data that grows a thousandfold takes no more memory than a cluster. What of it is the cluster may be read.
#[test]
fn compressed_bombs_stay_small() {
    let mut cases = vec![
        refused("qcow2 zlib", &[], |vm| save(vm, "a.qcow2", &compressed(&bomb(false), false))).codes(&[0, 1]),
        refused("qcow2 zstd", &[], |vm| {
            let packed = zstd::stream::encode_all(&vec![0u8; 64 << 20][..], 19).unwrap();
            save(vm, "a.qcow2", &compressed(&packed, true))
        })
        .codes(&[0, 1]),
        refused("qcow2 zstd, a window of 2^41", &["a compressed cluster has no zstd frame"], |vm| {
            save(vm, "a.qcow2", &compressed(b"\x28\xb5\x2f\xfd\0\xf8\x01\0\0", true))
        }),
        refused("qcow2, no stream at all", &["a compressed cluster is not a deflate stream"], |vm| {
            save(vm, "a.qcow2", &compressed(&[0xff; 4096], false))
        }),
        refused("vmdk grain", &["inflates to more than a grain"], |vm| {
            let packed = bomb(true);
            save(vm, "a.vmdk", &sparse(&packed, u32::try_from(packed.len()).unwrap()))
        }),
    ];
    for (len, says) in [
        (0, "there is another marker where that of grain 0 should be"),
        (7 << 20, "takes 7340032 bytes compressed; a grain is 65536"),
        (1 << 31, "takes 2147483648 bytes compressed"),
        (u32::MAX, "takes 4294967295 bytes compressed"),
    ] {
        cases.push(refused(&format!("vmdk marker of {len} bytes"), &[says], move |vm| {
            save(vm, "a.vmdk", &sparse(&[1; 512], len))
        }));
    }
    run_all(&cases);
    // The bombs are bombs: what they hold is more than the program may take in all of the cases.
    assert!(bomb(true).len() < 80 << 10 && GRAIN_AT == 32 * 512);
}

/// Two places that are one: `disk check` says so, and nothing runs without end.
#[test]
fn overlaps_are_found_by_the_check_and_reading_ends() {
    let folder = tempfile::tempdir().unwrap();
    let with_table = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = qcow2(9);
        bytes.resize(6 * 512, 0);
        bytes[5 * 512..].fill(0xaa);
        be64(&mut bytes, 512, HUGE | (4 * 512));
        be64(&mut bytes, 4 * 512, HUGE | (5 * 512));
        for cluster in [4, 5] {
            bytes[3 * 512 + 2 * cluster + 1] = 1;
        }
        change(&mut bytes);
        bytes
    };
    let sound = save(folder.path(), "sound.qcow2", &with_table(&|_| {}));
    let told = bounded(&["disk", "check"], &[&sound]).unwrap();
    assert_eq!(told.code, Some(0), "{}", told.says);
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(&str, Change<'_>); 5] = [
        ("two entries", &|b| be64(b, 4 * 512 + 8, HUGE | (5 * 512))),
        ("data that is its own table", &|b| be64(b, 4 * 512, HUGE | (4 * 512))),
        ("data that is a table of reference counts", &|b| be64(b, 4 * 512 + 8, HUGE | (3 * 512))),
        ("an L2 table that is the L1 table", &|b| be64(b, 512, HUGE | 512)),
        ("an L1 table that is the header", &|b| be64(b, 40, 0)),
    ];
    for (name, change) in cases {
        let image = save(folder.path(), "a.qcow2", &with_table(change));
        let checked = bounded(&["disk", "check"], &[&image]).unwrap();
        assert_eq!(checked.code, Some(1), "{name}: {}", checked.says);
        let target = folder.path().join("out.raw");
        let told = bounded(&["disk", "convert", "--replace"], &[&image, &target]).unwrap();
        assert!(matches!(told.code, Some(0 | 1)), "{name}: {:?}: {}", told.code, told.says);
    }
}
