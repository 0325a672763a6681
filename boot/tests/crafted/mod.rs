//! Storage metadata that mean harm, made by hand: no tool would write them.

use sha2::{Digest, Sha256};

/// lvm2's checksum.
fn lvm_crc(data: &[u8]) -> u32 {
    data.iter().fold(0xf597_a6cf, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

fn put(raw: &mut [u8], at: usize, bytes: &[u8]) {
    raw[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A physical volume of a group with these logical volumes, in extents of 4 KiB.
pub fn physical_volume(logical_volumes: &str) -> Vec<u8> {
    let text = format!(
        "vg0 {{ id = \"x\" seqno = 1 extent_size = 8\nphysical_volumes {{ pv0 {{ id = \"{}\" pe_start = 0 pe_count = 1024 }} }}\n\
         logical_volumes {{ {logical_volumes} }} }}\n",
        "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
    );
    let area = (text.len() + 512).next_multiple_of(4096) as u64;
    let mut raw = vec![0; 4096 + usize::try_from(area).unwrap() + (8 << 20)];
    let size = raw.len() as u64;
    let mut label = vec![0; 512];
    put(&mut label, 0, b"LABELONE\x01\0\0\0\0\0\0\0");
    put(&mut label, 20, b"\x20\0\0\0LVM2 001");
    put(&mut label, 32, &[b'a'; 32]);
    put(&mut label, 64, &size.to_le_bytes());
    put(&mut label, 72, &4096_u64.to_le_bytes());
    put(&mut label, 104, &4096_u64.to_le_bytes());
    put(&mut label, 112, &area.to_le_bytes());
    let sum = lvm_crc(&label[20..]);
    put(&mut label, 16, &sum.to_le_bytes());
    put(&mut raw, 512, &label);
    let mut header = vec![0; 512];
    put(&mut header, 4, b" LVM2 x[5A%r0N*>\x01");
    for (at, value) in [(24, 4096), (32, area), (40, 512), (48, text.len() as u64)] {
        put(&mut header, at, &value.to_le_bytes());
    }
    put(&mut header, 56, &lvm_crc(text.as_bytes()).to_le_bytes());
    let sum = lvm_crc(&header[4..]);
    put(&mut header, 0, &sum.to_le_bytes());
    put(&mut raw, 4096, &header);
    put(&mut raw, 4608, text.as_bytes());
    raw
}

/// Partitions that overlap, which an array mirrors on each other, which has such partitions, and so on.
pub fn nested_arrays(levels: u8) -> Vec<u8> {
    const SECTORS: u32 = 8192;
    let mut raw = vec![0; 512 * usize::try_from(SECTORS).unwrap()];
    let (mut base, mut sectors) = (0, SECTORS);
    for level in 0..levels {
        put(&mut raw, base + 510, b"\x55\xaa");
        let inside = sectors - 40;
        for (number, first, data) in [(0_u32, 8_u32, 32_u64), (1, 16, 24)] {
            let entry = base + 446 + 16 * usize::try_from(number).unwrap();
            put(&mut raw, entry + 4, &[0xfd]);
            put(&mut raw, entry + 8, &first.to_le_bytes());
            put(&mut raw, entry + 12, &(sectors - first).to_le_bytes());
            let mut member = vec![0; 260];
            put(&mut member, 0, &0xa92b_4efc_u32.to_le_bytes());
            put(&mut member, 16, &[level + 1; 16]);
            for (at, word) in [(4, 1), (72, 1), (92, 2), (160, number), (220, 2)] {
                put(&mut member, at, &u32::to_le_bytes(word));
            }
            let long =
                [(80, inside.into()), (128, data), (136, inside.into()), (144, 8), (200, 1), (208, u64::MAX)];
            for (at, value) in long {
                put(&mut member, at, &u64::to_le_bytes(value));
            }
            put(&mut member, 256, b"\0\0\x01\0");
            let words =
                member.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            let sum: u64 = words.sum();
            put(&mut member, 216, &u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap().to_le_bytes());
            put(&mut raw, base + usize::try_from(first).unwrap() * 512 + 4096, &member);
        }
        (base, sectors) = (base + 40 * 512, inside);
    }
    raw
}

/// A header of LUKS2 with so many key slots, all of which take their time.
pub fn many_slots(slots: usize) -> Vec<u8> {
    let slot = r#"{"type":"luks2","key_size":64,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},"area":{"type":"raw","offset":"8388608","size":"258048","encryption":"aes-xts-plain64","key_size":64},"kdf":{"type":"argon2id","time":4,"memory":1048576,"cpus":4,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}}"#;
    let all: Vec<String> = (0..slots).map(|n| format!("\"{n}\":{slot}")).collect();
    let names: Vec<String> = (0..slots).map(|n| format!("\"{n}\"")).collect();
    let json = format!(
        r#"{{"keyslots":{{{}}},"segments":{{"0":{{"type":"crypt","offset":"12582912","size":"dynamic","sector_size":512,"iv_tweak":"0","encryption":"aes-xts-plain64"}}}},"digests":{{"0":{{"type":"pbkdf2","keyslots":[{}],"segments":["0"],"hash":"sha256","iterations":1000,"salt":"AAAA","digest":"AAAA"}}}}}}"#,
        all.join(","),
        names.join(",")
    );
    let whole = (4096 + json.len()).next_power_of_two();
    let mut raw = vec![0; 16 << 20];
    put(&mut raw, 0, b"LUKS\xba\xbe\0\x02");
    put(&mut raw, 8, &(whole as u64).to_be_bytes());
    put(&mut raw, 72, b"sha256");
    put(&mut raw, 168, b"11111111-2222-4333-8444-555555555555");
    put(&mut raw, 4096, json.as_bytes());
    let sum = Sha256::digest(&raw[..whole]);
    put(&mut raw, 448, &sum);
    raw
}
