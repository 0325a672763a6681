//! Quantities of OVF: a number and its unit, `byte * 2^30`.
//!
//! Source: DMTF DSP0004 annex C.1 "Programmatic units", as far as amounts of bytes need it, and the older words (`MegaBytes`) that
//! OVF 0.9, VirtualBox and oVirt use. Deliberately absent: quotients, units of anything else than bytes.

use landfall_image::{Bytes, Error, Result};

/// Larger than any disk or memory: 8 EiB.
const AT_MOST: u128 = 1 << 63;

/// `quantity` of `unit` in bytes; an empty unit is bytes.
///
/// # Errors
/// Corrupt for what is no whole number of bytes up to 8 EiB, or no unit of bytes.
pub(super) fn bytes(quantity: &str, unit: &str) -> Result<Bytes> {
    let corrupt = |says: String| Error::corrupt(says);
    let number: u128 = quantity
        .trim()
        .parse()
        .map_err(|_| corrupt(format!("says {quantity:?} where a whole number of bytes is wanted")))?;
    let size = factor(unit)
        .ok_or_else(|| corrupt(format!("counts in {unit:?}, which is no unit of bytes")))?
        .checked_mul(number)
        .filter(|size| *size <= AT_MOST)
        .ok_or_else(|| corrupt(format!("says {quantity} in units of {unit:?}, which is more than 8 EiB")))?;
    Ok(Bytes(u64::try_from(size).unwrap_or(u64::MAX)))
}

fn factor(unit: &str) -> Option<u128> {
    let mut parts = unit.split('*').map(str::trim);
    let mut factor = match parts.next()?.to_ascii_lowercase().as_str() {
        "" | "byte" | "bytes" => 1,
        "kb" | "kilobyte" | "kilobytes" | "kibibyte" => 1 << 10,
        "mb" | "megabyte" | "megabytes" | "mebibyte" => 1 << 20,
        "gb" | "gigabyte" | "gigabytes" | "gibibyte" => 1 << 30,
        "tb" | "terabyte" | "terabytes" | "tebibyte" => 1 << 40,
        _ => return None,
    };
    for part in parts {
        let (base, power) = match part.split_once('^') {
            Some((base, power)) => {
                (base.trim(), power.trim().parse::<u32>().ok().filter(|power| *power <= 64)?)
            }
            None => (part, 1),
        };
        factor = base.parse::<u128>().ok()?.checked_pow(power)?.checked_mul(factor)?;
    }
    Some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_every_producer() {
        for (quantity, unit, expected) in [
            ("512", "", Some(512)),
            ("2", "byte * 2^30", Some(2 << 30)),
            ("2", "byte*1024*1024", Some(2 << 20)),
            (" 3 ", "byte * 10^9", Some(3_000_000_000)),
            ("8192", "MegaBytes", Some(8192 << 20)),
            ("20", "GB", Some(20 << 30)),
            ("0", "byte", Some(0)),
            ("8", "byte * 2^60", Some(8 << 60)),
            ("9", "byte * 2^60", None),
            ("1", "byte * 2^999999999", None),
            (
                "340282366920938463463374607431768211455",
                "byte * 340282366920938463463374607431768211455",
                None,
            ),
            ("-1", "byte", None),
            ("1.5", "GB", None),
            ("", "byte", None),
            ("${size}", "byte", None),
            ("1", "hertz * 10^6", None),
            ("1", "byte / 2", None),
        ] {
            assert_eq!(bytes(quantity, unit).ok(), expected.map(Bytes), "{quantity} {unit}");
        }
    }
}
