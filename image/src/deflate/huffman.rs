//! Prefix codes of limited length: how many bits each symbol gets, and which (RFC 1951, section 3.2.2).

/// The longest code of a literal, a length or a distance.
pub(super) const LONGEST: usize = 15;

/// Lengths in bits of a complete code for symbols that occur so often; none is longer than `longest`, and a symbol that
/// does not occur has none (0). There are always two codes at least: some decoders refuse a code of one.
///
/// `longest` is at most [`LONGEST`], and there are at most 2^`longest` symbols, at least 2.
pub(super) fn lengths<const N: usize>(counts: &[u32; N], longest: usize) -> [u8; N] {
    let mut lengths = [0; N];
    // (count, symbol), the rarest first.
    let mut leaves = [(0u32, 0u16); N];
    let mut used = 0;
    for (symbol, &count) in (0u16..).zip(counts) {
        if count > 0 {
            leaves[used] = (count, symbol);
            used += 1;
        }
    }
    if used < 2 {
        let only = usize::from(leaves[0].1);
        lengths[only] = 1;
        lengths[if only == 0 { 1 } else { 0 }] = 1;
        return lengths;
    }
    let leaves = &mut leaves[..used];
    leaves.sort_unstable();

    let depths = depths::<N>(leaves);
    let mut count = [0u32; LONGEST + 1];
    for &depth in &depths[..used] {
        count[usize::from(depth).min(longest)] += 1;
    }
    // Codes that were cut to the longest take more than there is; each step gives one unit of it back: a shorter code
    // becomes two of the next length, one of which replaces one of the longest.
    let mut taken: u32 = (1..=longest).map(|len| count[len] << (longest - len)).sum();
    while taken > 1 << longest {
        let Some(len) = (1..longest).rev().find(|&len| count[len] > 0) else { break };
        count[longest] -= 1;
        count[len] -= 1;
        count[len + 1] += 2;
        taken -= 1;
    }
    let mut rarest_first = leaves.iter();
    for len in (1..=longest).rev() {
        for (_, symbol) in rarest_first.by_ref().take(count[len] as usize) {
            #[allow(clippy::cast_possible_truncation)] // at most 15
            {
                lengths[usize::from(*symbol)] = len as u8;
            }
        }
    }
    lengths
}

/// Depth of each leaf in the tree of Huffman, in the order of the leaves, which are sorted. The inner nodes come into
/// being in the order of their weights, so that two queues do (van Leeuwen).
fn depths<const N: usize>(leaves: &[(u32, u16)]) -> [u8; N] {
    let inner = leaves.len() - 1;
    let mut weight = [0u32; N];
    let mut parent_of_inner = [0u16; N];
    let mut parent_of_leaf = [0u16; N];
    let (mut next_leaf, mut next_inner) = (0, 0);
    for node in 0..inner {
        let parent = u16::try_from(node).unwrap_or(u16::MAX);
        for _ in 0..2 {
            let leaf_is_lighter =
                next_inner == node || next_leaf < leaves.len() && leaves[next_leaf].0 <= weight[next_inner];
            if leaf_is_lighter {
                weight[node] += leaves[next_leaf].0;
                parent_of_leaf[next_leaf] = parent;
                next_leaf += 1;
            } else {
                weight[node] += weight[next_inner];
                parent_of_inner[next_inner] = parent;
                next_inner += 1;
            }
        }
    }
    let mut depth_of_inner = [0u8; N];
    for node in (0..inner - 1).rev() {
        depth_of_inner[node] = depth_of_inner[usize::from(parent_of_inner[node])].saturating_add(1);
    }
    let mut depths = [0; N];
    for leaf in 0..leaves.len() {
        depths[leaf] = depth_of_inner[usize::from(parent_of_leaf[leaf])].saturating_add(1);
    }
    depths
}

/// The codes of such lengths, their first bit lowest, as deflate packs them.
pub(super) fn codes<const N: usize>(lengths: &[u8; N]) -> [u16; N] {
    let mut next = [0u16; LONGEST + 2];
    for &len in lengths {
        next[usize::from(len) + 1] += 1;
    }
    next[1] = 0; // those without a code
    for len in 1..=LONGEST {
        next[len + 1] = (next[len] + next[len + 1]) << 1;
    }
    lengths.map(|len| {
        if len == 0 {
            return 0;
        }
        let code = &mut next[usize::from(len)];
        *code += 1;
        (*code - 1).reverse_bits() >> (16 - u16::from(len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Complete, within the limit, and no worse than it must be.
    #[test]
    fn codes_are_complete_and_limited() {
        let fibonacci = {
            let mut counts = [0u32; 40];
            let (mut a, mut b) = (1, 1);
            for count in &mut counts {
                *count = a;
                (a, b) = (b, a + b);
            }
            counts
        };
        let mut one = [0; 40];
        one[7] = 3;
        for counts in [fibonacci, [1; 40], [0; 40], one] {
            for longest in [6, 7, 14, 15] {
                let lengths = lengths(&counts, longest);
                let taken: u32 = lengths
                    .iter()
                    .filter(|&&len| len > 0)
                    .map(|&len| 1 << (longest - usize::from(len)))
                    .sum();
                assert_eq!(taken, 1 << longest, "{lengths:?}");
                assert!(lengths.iter().all(|&len| usize::from(len) <= longest));
                for (count, len) in counts.iter().zip(lengths) {
                    assert!(*count == 0 || len > 0);
                }
            }
        }
        assert_eq!(lengths(&[5, 1, 1, 2], 15), [1, 3, 3, 2]);
        assert_eq!(lengths(&[1; 8], 15), [3; 8]);
    }

    /// The example of RFC 1951, section 3.2.2.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let plain = [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111u16];
        let lengths = [3, 3, 3, 3, 3, 2, 4, 4];
        for ((code, plain), len) in codes.iter().zip(plain).zip(lengths) {
            assert_eq!(code.reverse_bits() >> (16 - len), plain);
        }
    }
}
