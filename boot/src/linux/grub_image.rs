//! What is built into GRUB 2's own image: where it looks for its files, and the commands that it runs before.
//!
//! ```text
//! core.img (BIOS):  diskboot.img 512 bytes | decompressor: +8 compressed size, +12 uncompressed size | LZMA stream
//!                   the stream holds the kernel, then the modules
//! grubx64.efi:      the modules are the section `mods`
//! modules:          "mimg" u32, [u32 in 64-bit images], offset, size (u32, or u64 in 64-bit images)
//!                   each: type u32, size u32 (header included); 2 is a configuration, 3 the prefix
//! ```
//! GRUB's `include/grub/kernel.h` and `offsets.h`. Deliberately absent: images before 1.99, whose prefix lies elsewhere.

use liblzma::stream::{Action, Filters, LzmaOptions, Status, Stream};

/// A core image lies in a gap of 62 sectors to 1 MiB; unpacked it is 50 to 200 KiB long.
const UNPACKED_AT_MOST: usize = 4 << 20;

/// The decompressor in front of the stream is 2.8 KiB long; its end is a multiple of 16.
const STREAM_WITHIN: usize = 16 << 10;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// `(,msdos1)/boot/grub`, `/EFI/debian`.
    pub prefix: Option<String>,
    /// Commands that run first: `search.fs_uuid … root`.
    pub config: Option<String>,
}

/// From the modules of an image; `None` where they are not what they should be.
pub fn modules(bytes: &[u8]) -> Option<Built> {
    if !bytes.starts_with(b"mimg") {
        return None;
    }
    let u32_at = |at: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(field.try_into().ok()?)).ok()
    };
    // In a 64-bit image the offset follows padding and is 24; in a 32-bit one it is 12.
    let (mut at, end) = match (u32_at(4)?, u32_at(8)?) {
        (12, size) => (12, size),
        (0, 24) => (24, u32_at(16)?),
        _ => return None,
    };
    if end > bytes.len() {
        return None;
    }
    let mut built = Built::default();
    while at < end {
        let (kind, size) = (u32_at(at)?, u32_at(at + 4)?);
        let object = bytes.get(at + 8..at.checked_add(size)?)?;
        let text = || {
            let text = object.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(String::from_utf8_lossy(text).into_owned())
        };
        match kind {
            2 => built.config = text(),
            3 => built.prefix = text(),
            _ => {}
        }
        at += size;
    }
    Some(built)
}

/// From a core image for BIOS, read from the sector that the boot sector names.
pub fn core(image: &[u8]) -> Option<Built> {
    let body = image.get(512..)?;
    let field = |at: usize| -> Option<usize> {
        usize::try_from(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    let (packed, unpacked) = (field(8)?, field(12)?);
    if unpacked > UNPACKED_AT_MOST || packed > body.len() {
        return None;
    }
    // Where the stream begins is written nowhere. It begins with a zero, and only the right place gives the right length
    // with modules at the end.
    (0x100..STREAM_WITHIN).step_by(16).find_map(|at| {
        let stream = body.get(at..)?;
        let stream = stream.get(..packed).unwrap_or(stream);
        if stream.first() != Some(&0) {
            return None;
        }
        let image = unpack(stream, unpacked)?;
        let mut places = image.windows(4).enumerate().filter(|(_, window)| *window == b"mimg");
        places.find_map(|(at, _)| modules(image.get(at..)?))
    })
}

/// GRUB's LZMA: no header, no end mark.
fn unpack(stream: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut options = LzmaOptions::new_preset(6).ok()?;
    options.dict_size(1 << 16).literal_context_bits(3).literal_position_bits(0).position_bits(2);
    let mut filters = Filters::new();
    filters.lzma1(&options);
    let mut decoder = Stream::new_raw_decoder(&filters).ok()?;
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        let done = usize::try_from(decoder.total_in()).ok()?;
        let before = out.len();
        let status = decoder.process_vec(stream.get(done..)?, &mut out, Action::Run).ok()?;
        if out.len() == before || status == Status::StreamEnd {
            break;
        }
    }
    (out.len() == length).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tool, tool};
    use proptest::prelude::*;

    #[test]
    fn modules_of_both_widths() {
        let object = |kind: u32, text: &[u8]| {
            let size = u32::try_from(text.len() + 8).unwrap();
            [&kind.to_le_bytes(), &size.to_le_bytes(), text].concat()
        };
        let objects =
            [object(0, b"ELF"), object(2, b"search\0"), object(3, b"(,gpt2)/boot/grub\0\0")].concat();
        let end = |start: usize| u32::try_from(start + objects.len()).unwrap().to_le_bytes();
        let narrow = [b"mimg", &12u32.to_le_bytes()[..], &end(12), &objects].concat();
        let zero = [0u8; 4];
        let wide = [b"mimg", &zero[..], &24u32.to_le_bytes(), &zero, &end(24), &zero, &objects].concat();
        for image in [narrow, wide] {
            let built = modules(&image).unwrap();
            assert_eq!(built.prefix.as_deref(), Some("(,gpt2)/boot/grub"));
            assert_eq!(built.config.as_deref(), Some("search"));
            for length in 0..image.len() {
                assert_eq!(modules(&image[..length]), None);
            }
        }
    }

    #[test]
    fn images_of_grubs_own_tool() {
        let modules_folder = crate::testing::loaders().join("usr/lib/grub");
        if tool("grub-mkimage").is_none() || !modules_folder.join("i386-pc/kernel.img").exists() {
            eprintln!("SKIPPED: GRUB's modules for BIOS are not at {}", modules_folder.display());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("core.img");
        for prefix in ["(,msdos1)/boot/grub", "(hd1,gpt2)/grub", "(lvmid/a/b)/grub", "(mduuid/1)/boot/grub2"]
        {
            for format in ["i386-pc", "x86_64-efi"] {
                let from = modules_folder.join(format);
                Tool::line(&format!(
                    "grub-mkimage -d {} -O {format} -p {prefix} -o {} ext2 part_msdos part_gpt search_fs_uuid",
                    from.display(),
                    out.display()
                ))
                .run();
                let image = std::fs::read(&out).unwrap();
                let built = match format {
                    "i386-pc" => core(&image),
                    _ => {
                        crate::linux::loader::pe::Pe::parse(&image).unwrap().section("mods").and_then(modules)
                    }
                };
                assert_eq!(built.unwrap().prefix.as_deref(), Some(prefix), "{format}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_image_panics(mut image in prop::collection::vec(any::<u8>(), 0..4096), start in 0usize..2) {
            let _ = core(&image);
            if let (1, Some(head)) = (start, image.get_mut(..4)) {
                head.copy_from_slice(b"mimg");
            }
            let _ = modules(&image);
        }
    }
}
