//! Patterns of names: of devices as the kernel's modules list them, of paths that an image is made without.

/// A pattern as fnmatch(3) has it, without flags: `*`, `?`, `[…]` with ranges and `!`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last star has to take one byte more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let one = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(b'?'), Some(_)) => Some(p + 1),
            (Some(b'['), Some(byte)) => class(pattern, p, *byte),
            (Some(want), Some(byte)) if want == byte => Some(p + 1),
            _ => None,
        };
        match (one, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after, taken))) if taken < text.len() => {
                star = Some((after, taken + 1));
                p = after;
                t = taken + 1;
            }
            _ => return false,
        }
    }
}

/// The place behind a class that holds the byte.
fn class(pattern: &[u8], open: usize, byte: u8) -> Option<usize> {
    let mut at = open + 1;
    let not = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(not);
    let first = at;
    let mut inside = false;
    loop {
        match pattern.get(at)? {
            b']' if at > first => break,
            low => match (pattern.get(at + 1), pattern.get(at + 2)) {
                (Some(b'-'), Some(high)) if *high != b']' => {
                    inside |= (*low..=*high).contains(&byte);
                    at += 3;
                }
                _ => {
                    inside |= *low == byte;
                    at += 1;
                }
            },
        }
    }
    (inside != not).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_kernel_means_them() {
        for (pattern, text, same) in [
            (
                "pci:v000015ADd000007C0sv*sd*bc*sc*i*",
                "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00",
                true,
            ),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", true),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc08i01", false),
            ("scsi:t-0x00*", "scsi:t-0x00", true),
            ("scsi:t-0x0[!5-7]*", "scsi:t-0x05", false),
            ("virtio:d0000000[0-38]v*", "virtio:d00000008v00001AF4", true),
            ("virtio:d0000000[0-38]v*", "virtio:d00000007v00001AF4", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "aXbY", false),
            ("*", "", true),
            ("?", "", false),
            ("[", "x", false),
        ] {
            assert_eq!(matches(pattern, text), same, "{pattern} {text}");
        }
    }
}
