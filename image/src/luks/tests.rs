//! Against QEMU and cryptsetup, and headers that lie.

use super::*;
use crate::Kind;
use crate::disk::Disk;
use crate::formats::{self, Format, OpenOptions};
use crate::testing::{noise_bytes, read_all};
use crate::units::GuestOffset;
use std::path::Path;
use std::sync::Arc;

fn with_key(key: &[u8]) -> OpenOptions {
    OpenOptions { key: Some(Secret::new(key.to_vec())), ..OpenOptions::default() }
}

fn open(path: &Path, key: &[u8]) -> crate::Result<Arc<dyn Disk>> {
    Ok(formats::open(path, &with_key(key))?.disk)
}

/// Runs a command in `folder`, a few times: on a busy machine QEMU cannot time its key derivation. False, after a loud
/// word, where the tool is not there or cannot.
fn made(folder: &Path, command: &str) -> bool {
    for _ in 0..20 {
        match std::process::Command::new("bash").args(["-c", command]).current_dir(folder).output() {
            Ok(output) if output.status.success() => return true,
            Ok(output) if String::from_utf8_lossy(&output.stderr).contains("not found") => break,
            _ => {}
        }
    }
    eprintln!("SKIPPED: cannot run here: {command}");
    false
}

/// Every cipher mode and hash that QEMU writes and we read; reads of any alignment.
#[test]
fn volumes_of_qemu_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise_bytes(5, 1_000_960);
    std::fs::write(dir.path().join("a.raw"), &bytes).unwrap();
    for options in [
        "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64",
        "cipher-alg=aes-128,cipher-mode=xts,ivgen-alg=plain,hash-alg=sha1",
        "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512",
        "cipher-alg=aes-192,cipher-mode=cbc,ivgen-alg=plain64",
    ] {
        let command = format!(
            "rm -f a.luks; qemu-img convert -f raw -O luks --object secret,id=s,data=landfall \
             -o key-secret=s,iter-time=10,{options} a.raw a.luks"
        );
        if !made(dir.path(), &command) {
            continue;
        }
        let path = dir.path().join("a.luks");
        let disk = open(&path, b"landfall").unwrap_or_else(|e| panic!("{options}: {e}"));
        assert!(read_all(&*disk).unwrap() == bytes, "{options}");
        for (at, len) in
            [(0, 1), (511, 2), (513, 5000), (1000, 24), (65_536, 512), (99_999, 77_777), (1_000_959, 1)]
        {
            let mut some = vec![0; len];
            disk.read_at(GuestOffset(at as u64), &mut some).unwrap();
            assert!(some == bytes[at..at + len], "{options}: {len} bytes at {at}");
        }
        let error = open(&path, b"landfall\n").err().unwrap();
        assert!(error.kind() == Kind::Refused && error.says().contains("opens none"), "{error}");
        // Without a key it is the disk as its guest left it; asked to open it, that needs the key.
        let image = formats::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(image.layers[0].format, Format::Raw);
        let asked = OpenOptions { format: Some(Format::Luks), ..OpenOptions::default() };
        let error = formats::open(&path, &asked).err().unwrap();
        assert!(error.kind() == Kind::Refused && error.hint_text().unwrap().contains("-f raw"), "{error}");
    }
}

/// LUKS 1 and 2 as cryptsetup makes them; the payload is compared through QEMU or written by `cryptsetup reencrypt
/// --encrypt`, which needs no device mapper.
#[test]
fn volumes_of_cryptsetup_are_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "landfall").unwrap();
    let bytes = noise_bytes(6, 4 << 20);
    for options in [
        "--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000",
        "--type luks2 --pbkdf argon2id --pbkdf-memory 32768 --pbkdf-force-iterations 4 --pbkdf-parallel 2",
        "--type luks2 --pbkdf argon2i --pbkdf-memory 8192 --pbkdf-force-iterations 4 --sector-size 4096",
        "--type luks1 --pbkdf-force-iterations 1000 --hash sha512",
        "--type luks1 --pbkdf-force-iterations 1000 --cipher aes-cbc-essiv:sha256 --key-size 256",
    ] {
        std::fs::write(dir.path().join("a.img"), &bytes).unwrap();
        let command = format!(
            "truncate -s +32M a.img && cryptsetup reencrypt -q --encrypt --key-file key {options} \
             --reduce-device-size 32M a.img"
        );
        let formatted = if made(dir.path(), &command) {
            true
        } else {
            let format =
                format!("truncate -s 64M a.img && cryptsetup luksFormat -q --key-file key {options} a.img");
            if !made(dir.path(), &format) {
                continue;
            }
            false
        };
        let path = dir.path().join("a.img");
        let disk = open(&path, b"landfall").unwrap_or_else(|e| panic!("{options}: {e}"));
        if formatted {
            let mut read = vec![0; bytes.len()];
            disk.read_at(GuestOffset(0), &mut read).unwrap();
            assert!(read == bytes, "{options}");
        }
        let error = open(&path, b"wrong").err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{options}: {error}");
        if options.contains("luks2") {
            // A damaged first header: the second copy opens it.
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"xxxx", 5000).unwrap();
            assert!(open(&path, b"landfall").is_ok(), "{options}");
        }
    }
}

/// A header of version 1 that is right in itself.
fn header() -> Vec<u8> {
    let mut head = vec![0; luks1::HEADER];
    head[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    head[8..11].copy_from_slice(b"aes");
    head[40..51].copy_from_slice(b"xts-plain64");
    head[72..78].copy_from_slice(b"sha256");
    head[104..108].copy_from_slice(&8u32.to_be_bytes());
    head[108..112].copy_from_slice(&64u32.to_be_bytes());
    head[164..168].copy_from_slice(&1000u32.to_be_bytes());
    head[208..212].copy_from_slice(&0x00ac_71f3u32.to_be_bytes());
    head[212..216].copy_from_slice(&1000u32.to_be_bytes());
    head[248..252].copy_from_slice(&8u32.to_be_bytes());
    head[252..256].copy_from_slice(&4000u32.to_be_bytes());
    head
}

#[test]
fn limits_hold_one_step_beyond() {
    let good = luks1::parse(&header()).unwrap();
    assert_eq!((good.slots.len(), good.key_bytes, good.payload_at), (1, 64, 4096));
    let beyond = [
        (108, crate::limits::LUKS_KEY + 1, Kind::Corrupt),
        (108, 0, Kind::Corrupt),
        (164, crate::limits::LUKS_ITERATIONS + 1, Kind::Refused),
        (164, 0, Kind::Refused),
        (252, 65_537, Kind::Corrupt),
        (252, 0, Kind::Corrupt),
    ];
    for (at, value, kind) in beyond {
        let mut head = header();
        head[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
        let error = luks1::parse(&head).unwrap_err();
        assert_eq!(error.kind(), kind, "{at} {value}: {error}");
    }
    for len in 0..luks1::HEADER {
        assert_eq!(luks1::parse(&header()[..len]).unwrap_err().kind(), Kind::Corrupt);
    }
}

/// Whatever the metadata of version 2 say: an error, and no panic.
#[test]
fn metadata_that_lie_are_refused() {
    use sha2::{Digest, Sha256};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let open_with = |json: &str| {
        let mut image = vec![0; 8 << 20];
        let whole = (4096 + json.len()).next_power_of_two().max(16384);
        image[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        image[8..16].copy_from_slice(&(whole as u64).to_be_bytes());
        image[72..78].copy_from_slice(b"sha256");
        image[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        let checksum = Sha256::digest(&image[..whole]);
        image[448..480].copy_from_slice(&checksum);
        std::fs::write(&path, image).unwrap();
        open(&path, b"key").err().unwrap_or_else(|| panic!("{json} was opened"))
    };
    let json = |area: &str, kdf: &str, segment: &str| {
        format!(
            r#"{{"keyslots":{{"0":{{"type":"luks2","key_size":64,"af":{{"type":"luks1","stripes":4000,"hash":"sha256"}},"area":{{"type":"raw",{area}"encryption":"aes-xts-plain64","key_size":64}},"kdf":{kdf}}}}},"segments":{{"0":{{"type":"crypt",{segment}"iv_tweak":"0","encryption":"aes-xts-plain64"}}}},"digests":{{"0":{{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"hash":"sha256","iterations":1000,"salt":"AAAA","digest":"AAAA"}}}}}}"#
        )
    };
    let area = r#""offset":"32768","size":"258048","#;
    let pbkdf2 = r#"{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"AAAA"}"#;
    let segment = r#""offset":"524288","size":"dynamic","sector_size":512,"#;
    // So many of them, each as the only one.
    let many = |what: &str, count: usize| {
        let text = json(area, pbkdf2, segment);
        let mut metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
        let one = metadata[what]["0"].clone();
        metadata[what] = (0..count).map(|n| (n.to_string(), one.clone())).collect();
        metadata.to_string()
    };
    for (text, says) in [
        (json(area, pbkdf2, segment), "opens none of the 1"),
        (json(r#""offset":"99999999999","#, pbkdf2, segment), "truncated"),
        (json(r#""offset":"x","#, pbkdf2, segment), "where a number is expected"),
        (
            json(area, r#"{"type":"pbkdf2","hash":"sha256","iterations":4000000000,"salt":"AAAA"}"#, segment),
            "steps",
        ),
        (
            json(area, r#"{"type":"argon2id","time":4,"memory":4000000000,"cpus":4,"salt":"AAAA"}"#, segment),
            "memory in 4 passes",
        ),
        (
            json(
                area,
                r#"{"type":"argon2id","time":4000000000,"memory":64,"cpus":4,"salt":"AAAAAAAAAAAA"}"#,
                segment,
            ),
            "passes",
        ),
        (
            json(
                area,
                r#"{"type":"argon2id","time":4,"memory":64,"cpus":4000000000,"salt":"AAAAAAAAAAAA"}"#,
                segment,
            ),
            "lanes",
        ),
        (json(area, pbkdf2, r#""offset":"524288","size":"dynamic","sector_size":513,"#), "sectors of 513"),
        (json(area, pbkdf2, segment).replace("4000", "99999999999"), "stripes"),
        (json(area, pbkdf2, segment).replace("\"key_size\":64,", "\"key_size\":0,"), "stripes"),
        (
            json(area, pbkdf2, segment).replace("\"type\":\"crypt\"", "\"type\":\"linear\""),
            "one encrypted segment",
        ),
        (many("keyslots", 33), "33 key slots"),
        (many("digests", 10_000), "10000 digests"),
        ("{}".to_owned(), "metadata"),
        ("[[[[".to_owned(), "metadata"),
    ] {
        let error = open_with(&text);
        assert!(error.says().contains(says), "{says}: {error}");
    }
}

/// What is written at any place reads back, here and by QEMU, which knows version 1; nothing else changes.
#[test]
fn a_volume_of_a_guest_is_written() {
    use crate::units::{Bytes, GuestRange};
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "landfall").unwrap();
    let bytes = noise_bytes(7, 3 << 20);
    std::fs::write(dir.path().join("a.raw"), &bytes).unwrap();
    let qemu = |options: &str| {
        format!(
            "rm -f a.luks; qemu-img convert -f raw -O luks --object secret,id=s,data=landfall \
             -o key-secret=s,iter-time=10,{options} a.raw a.luks"
        )
    };
    let cryptsetup = |options: &str| {
        format!(
            "rm -f a.luks; truncate -s 24M a.luks && cryptsetup luksFormat -q --type luks2 --key-file key \
             --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {options} a.luks"
        )
    };
    for (command, is_of_qemu) in [
        (qemu("cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64"), true),
        (qemu("cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256"), true),
        (cryptsetup(""), false),
        (cryptsetup("--sector-size 4096"), false),
    ] {
        if !made(dir.path(), &command) {
            continue;
        }
        let path = dir.path().join("a.luks");
        let raw_options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        let raw = formats::open(&path, &raw_options).unwrap().disk;
        let header = read_all(&*raw).unwrap();
        let overlay = Arc::new(crate::Overlay::new(raw, dir.path()).unwrap());
        assert!(
            open_volume(overlay.clone(), &Secret::new(b"wrong".to_vec()), &mut Effort::default())
                .unwrap()
                .is_none()
        );
        let volume = open_volume(overlay.clone(), &Secret::new(b"landfall".to_vec()), &mut Effort::default())
            .unwrap()
            .unwrap();
        let mut model = read_all(&*volume).unwrap();
        if is_of_qemu {
            assert!(model == bytes, "{command}");
        }
        let len = model.len();
        for (n, (at, size)) in
            [(0, 1), (511, 2), (4095, 4098), (8192, 4096), (70_001, 600_000), (len - 5, 5), (1 << 20, 0)]
                .into_iter()
                .enumerate()
        {
            let data = noise_bytes(n as u64, size);
            volume.write_at(GuestOffset(at as u64), &data).unwrap();
            model[at..at + size].copy_from_slice(&data);
        }
        volume.zero_at(GuestRange::new(GuestOffset(1_000_001), Bytes(700_000))).unwrap();
        model[1_000_001..1_700_001].fill(0);
        assert!(volume.write_at(GuestOffset(len as u64), &[0]).is_err());
        volume.flush().unwrap();
        assert!(read_all(&*volume).unwrap() == model, "{command}");
        for (at, len) in [(1, 1), (500, 30), (4000, 9000), (333, 700_000)] {
            let mut some = vec![0; len];
            volume.read_at(GuestOffset(at as u64), &mut some).unwrap();
            assert!(some == model[at..at + len], "{command}: {len} at {at}");
        }
        let whole = read_all(&*overlay).unwrap();
        let payload = whole.len() - len;
        assert!(whole[..payload] == header[..payload], "the header stays as it is");
        std::fs::write(&path, &whole).unwrap();
        assert!(read_all(&*open(&path, b"landfall").unwrap()).unwrap() == model, "{command}");
        let back = "qemu-img convert --object secret,id=s,data=landfall -O raw \
                    --image-opts driver=luks,key-secret=s,file.filename=a.luks b.raw";
        if is_of_qemu && made(dir.path(), back) {
            assert!(std::fs::read(dir.path().join("b.raw")).unwrap() == model, "{command}");
        }
    }
}

/// Replaces text in the metadata of a volume of version 2, which stay as long as they are.
fn lie(image: &mut [u8], from: &str, to: &str) {
    use sha2::{Digest, Sha256};
    assert_eq!(from.len(), to.len());
    let at = image[4096..16384].windows(from.len()).position(|text| text == from.as_bytes()).unwrap() + 4096;
    image[at..at + to.len()].copy_from_slice(to.as_bytes());
    image[448..512].fill(0);
    let checksum = Sha256::digest(&image[..16384]);
    image[448..480].copy_from_slice(&checksum);
}

/// A slot that cannot be used does not hide the one that the key is for, and is told of where the key is for none.
#[test]
fn an_unusable_slot_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.luks");
    std::fs::write(dir.path().join("first"), "first").unwrap();
    std::fs::write(dir.path().join("second"), "second").unwrap();
    for version in [1, 2] {
        let pbkdf = "--pbkdf-force-iterations 1000";
        let command = format!(
            "rm -f a.luks; truncate -s 24M a.luks && cryptsetup luksFormat -q --type luks{version} --key-file first \
             --pbkdf pbkdf2 {pbkdf} a.luks && cryptsetup luksAddKey -q --key-file first --pbkdf pbkdf2 {pbkdf} a.luks second"
        );
        if !made(dir.path(), &command) {
            continue;
        }
        let mut image = std::fs::read(&path).unwrap();
        match version {
            1 => image[212..216].copy_from_slice(&u32::MAX.to_be_bytes()),
            _ => lie(&mut image, "\"hash\":\"sha256\"", "\"hash\":\"sha3-6\""),
        }
        std::fs::write(&path, image).unwrap();
        assert!(open(&path, b"second").is_ok(), "{version}");
        for key in [b"first".as_slice(), b"wrong"] {
            let error = open(&path, key).err().unwrap();
            let says = if version == 1 { "4294967295 steps" } else { "sha3-6" };
            assert!(error.says().contains(says), "{version}: {error}");
        }
    }
}

#[test]
fn work_for_keys_is_bounded_and_ends_when_cancelled() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "landfall").unwrap();
    for (options, steps) in [
        // Two digests of SHA-256 make the key of the area; the volume key's digest takes 1000 steps at least.
        ("--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000", 3000),
        ("--type luks2 --pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 32768", 4 * 32_768 + 1000),
        ("--type luks1 --pbkdf-force-iterations 1000", 3000),
    ] {
        let command = format!(
            "rm -f a.luks; truncate -s 24M a.luks && cryptsetup luksFormat -q --key-file key {options} a.luks"
        );
        if !made(dir.path(), &command) {
            continue;
        }
        let raw_options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        let raw = formats::open(&dir.path().join("a.luks"), &raw_options).unwrap().disk;
        let overlay = Arc::new(crate::Overlay::new(raw, dir.path()).unwrap());
        let open =
            |effort: &mut Effort| open_volume(overlay.clone(), &Secret::new(b"landfall".to_vec()), effort);
        assert!(open(&mut Effort::default()).unwrap().is_some());
        let mut little = Effort::of(steps - 1);
        for _ in 0..2 {
            let error = open(&mut little).err().unwrap();
            assert_eq!(error.kind(), Kind::Refused, "{options}");
            assert!(error.says().contains("key derivation"), "{error}");
        }
        let cancel = Arc::new(AtomicBool::new(true));
        assert_eq!(open(&mut Effort::until(cancel.clone())).err().unwrap().kind(), Kind::Interrupted);
        cancel.store(false, Ordering::Relaxed);
        assert!(open(&mut Effort::until(cancel)).unwrap().is_some());
    }
}

/// Keys are wiped: the ciphers' by what [`SectorCipher`] takes, the memory of Argon2 as everything in [`Zeroizing`].
#[test]
fn what_keeps_keys_wipes_them() {
    fn wipes<T: zeroize::ZeroizeOnDrop>() {}
    wipes::<aes::Aes128>();
    wipes::<aes::Aes192>();
    wipes::<aes::Aes256>();
    wipes::<Zeroizing<Vec<argon2::Block>>>();
}
