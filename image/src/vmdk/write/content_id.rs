//! The content id (CID): what a snapshot knows its parent by.
//!
//! VMware draws a random number whenever a disk is first written to. Here it comes from the digest of the content, so
//! that a conversion gives the same file every time, and a disk that differs is not taken for another one's parent.

use std::sync::OnceLock;

/// Filled in when the whole content is known.
#[derive(Debug, Default)]
pub(super) struct ContentId(OnceLock<Cid>);

impl ContentId {
    /// Takes the digest of the content; the first one counts.
    pub(super) fn set(&self, digest: blake3::Hash) {
        let _ = self.0.set(Cid::of(&digest));
    }

    /// The id, for a disk of that many sectors. Where nobody told the content, any number does.
    pub(super) fn get(&self, sectors: u64) -> Cid {
        self.0.get().copied().unwrap_or_else(|| Cid::of(&blake3::hash(&sectors.to_le_bytes())))
    }
}

/// A content id in its long form, 128 bits, which ends in the short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cid([u8; 16]);

impl Cid {
    fn of(digest: &blake3::Hash) -> Cid {
        let mut id = [0; 16];
        for (byte, from) in id.iter_mut().zip(digest.as_bytes()) {
            *byte = *from;
        }
        let [.., a, b, c, d] = &mut id;
        // No parent is 0xffffffff, a disk that was never written to 0xfffffffe, and 0 is left to VMware, too.
        match u32::from_be_bytes([*a, *b, *c, *d]) {
            0 => *d = 1,
            0xffff_fffe | 0xffff_ffff => *a = 0x7f,
            _ => {}
        }
        Cid(id)
    }

    /// The value of `CID`.
    pub(super) fn short(self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The 32 digits of `ddb.longContentID`.
    pub(super) fn long(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_the_content_and_never_one_that_means_something_else() {
        for (low, wanted) in [(0u32, 1u32), (0xffff_ffff, 0x7fff_ffff), (0xffff_fffe, 0x7fff_fffe), (5, 5)] {
            let mut digest = [0xab; 32];
            digest[12..16].copy_from_slice(&low.to_be_bytes());
            let id = ContentId::default();
            id.set(digest.into());
            id.set([1; 32].into());
            let cid = id.get(1000);
            assert_eq!(cid.short(), wanted);
            assert_eq!(cid.long().len(), 32);
            assert!(cid.long().ends_with(&format!("{wanted:08x}")));
        }
        assert_eq!(ContentId::default().get(7), ContentId::default().get(7));
    }
}
