//! Sector bitmaps, in either order of bits.

/// The bit in its byte that stands for sector `n % 8`.
pub type Order = fn(u64) -> u8;

/// The first sector is the least significant bit: VHDX.
pub const LEAST_FIRST: Order = |n| 1 << (n % 8);
/// The first sector is the most significant bit: VHD.
pub const MOST_FIRST: Order = |n| 0x80 >> (n % 8);

/// The value of bit `from`, and how many bits from there up to `to` or the end of `bits` have it. At least one.
pub fn run(bits: &[u8], from: u64, to: u64, order: Order) -> (bool, u64) {
    let byte = |at: u64| usize::try_from(at / 8).ok().and_then(|at| bits.get(at)).copied();
    let bit = |at: u64| byte(at).map(|byte| byte & order(at) != 0);
    let value = bit(from).unwrap_or(false);
    let whole = if value { 0xff } else { 0 };
    let mut at = from.saturating_add(1);
    while at < to {
        if at.is_multiple_of(8) && to - at >= 8 && byte(at) == Some(whole) {
            at += 8;
        } else if bit(at) == Some(value) {
            at += 1;
        } else {
            break;
        }
    }
    (value, at.saturating_sub(from))
}

/// Sets the bits `from` to `to`; those behind the end of `bits` do not count.
pub fn set(bits: &mut [u8], from: u64, to: u64, order: Order) {
    let mut at = from;
    while at < to {
        let Some(byte) = usize::try_from(at / 8).ok().and_then(|index| bits.get_mut(index)) else { return };
        if at.is_multiple_of(8) && to - at >= 8 {
            *byte = 0xff;
            at += 8;
        } else {
            *byte |= order(at);
            at += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_what_counting_gives(bits in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..12), from in 0u64..96, len in 1u64..100, least: bool) {
            let order = if least { LEAST_FIRST } else { MOST_FIRST };
            let total = bits.len() as u64 * 8;
            let from = from % total;
            let to = (from + len).min(total);
            let bit = |at: u64| match least {
                true => bits[(at / 8) as usize] >> (at % 8) & 1 == 1,
                false => bits[(at / 8) as usize] << (at % 8) & 0x80 != 0,
            };
            let counted = (from..to).take_while(|&at| bit(at) == bit(from)).count() as u64;
            prop_assert_eq!(run(&bits, from, to, order), (bit(from), counted));
            // Past the end: stops there.
            prop_assert!(run(&bits, from, to + 1000, order).1 <= total - from);
            let mut new = bits.clone();
            set(&mut new, from, to, order);
            prop_assert_eq!(run(&new, from, to, order), (true, to - from));
            prop_assert!(from == 0 || run(&new, 0, from, order) == run(&bits, 0, from, order));
        }
    }
}
