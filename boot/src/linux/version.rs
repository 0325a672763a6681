//! The order of versions that systemd-boot, kernel-install and bootctl use, and GRUB's blscfg for all that occurs: UAPI.10,
//! <https://uapi-group.org/specifications/specs/version_format_specification/>.

use std::cmp::Ordering;

/// Compares two versions; the newer is the greater.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip_others(a);
        b = skip_others(b);
        // `~` comes before everything, the end too; then come the end, `-`, `^` and `.`.
        match step(b'~', &mut a, &mut b) {
            Some(Ordering::Equal) => continue,
            Some(order) => return order,
            None => {}
        }
        match (a.is_empty(), b.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        match [b'-', b'^', b'.'].into_iter().find_map(|mark| step(mark, &mut a, &mut b)) {
            Some(Ordering::Equal) => continue,
            Some(order) => return order,
            None => {}
        }
        let is_number = |bytes: &[u8]| bytes.first().is_some_and(u8::is_ascii_digit);
        let order = if is_number(a) || is_number(b) {
            let (number_a, rest_a) = run(a, u8::is_ascii_digit);
            let (number_b, rest_b) = run(b, u8::is_ascii_digit);
            (a, b) = (rest_a, rest_b);
            let trim = |number: &[u8]| {
                number.iter().skip_while(|digit| **digit == b'0').copied().collect::<Vec<_>>()
            };
            let (x, y) = (trim(number_a), trim(number_b));
            // Where one of them has no number, it is the older.
            number_a
                .is_empty()
                .cmp(&number_b.is_empty())
                .reverse()
                .then(x.len().cmp(&y.len()))
                .then(x.cmp(&y))
        } else {
            let (word_a, rest_a) = run(a, u8::is_ascii_alphabetic);
            let (word_b, rest_b) = run(b, u8::is_ascii_alphabetic);
            (a, b) = (rest_a, rest_b);
            word_a.cmp(word_b)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Where either begins with the mark: the order, or both without it.
fn step(mark: u8, a: &mut &[u8], b: &mut &[u8]) -> Option<Ordering> {
    let (x, y) = (a.strip_prefix(&[mark]), b.strip_prefix(&[mark]));
    match (x, y) {
        (Some(x), Some(y)) => {
            (*a, *b) = (x, y);
            Some(Ordering::Equal)
        }
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

fn skip_others(bytes: &[u8]) -> &[u8] {
    let others = bytes.iter().take_while(|byte| !(byte.is_ascii_alphanumeric() || b"~-^.".contains(byte)));
    bytes.get(others.count()..).unwrap_or_default()
}

fn run(bytes: &[u8], fits: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().take_while(|byte| fits(byte)).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tool;
    use proptest::prelude::*;

    /// Ascending, as the specification's examples and real kernels have it.
    const ASCENDING: &[&str] = &[
        "~1",
        "",
        "ab",
        "abb",
        "abc",
        "0001",
        "002",
        "12",
        "122",
        "122.9",
        "123~rc1",
        "123",
        "123-a",
        "123-a.1",
        "123-a1",
        "123-a1.1",
        "123-3",
        "123-3.1",
        "123^patch1",
        "123^1",
        "123.a-1",
        "123.1-1",
        "123a-1",
        "124",
    ];

    #[test]
    fn the_order_of_the_specification() {
        for (i, a) in ASCENDING.iter().enumerate() {
            for (j, b) in ASCENDING.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare("6.1.0-43-amd64", "6.1.0-9-amd64"), Ordering::Greater);
        assert_eq!(compare("0-rescue-ab", "5.14.0-1.el9.x86_64"), Ordering::Less);
    }

    #[test]
    fn systemds_own_order() {
        if tool("systemd-analyze").is_none() {
            return;
        }
        for (a, b) in [
            ("5.14.0-70.el9", "5.14.0-427.el9"),
            ("6.1~rc1", "6.1"),
            ("a-5.14.0", "a-5.14.0-1"),
            ("1.01", "1.1"),
        ] {
            let fits = |order: &str| {
                let folder = std::process::Command::new(tool("systemd-analyze").unwrap())
                    .args(["compare-versions", a, order, b])
                    .status();
                folder.is_ok_and(|status| status.success())
            };
            let expected = match (fits("lt"), fits("gt")) {
                (true, _) => Ordering::Less,
                (_, true) => Ordering::Greater,
                _ => Ordering::Equal,
            };
            assert_eq!(compare(a, b), expected, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-9a-c.~^-]{0,8}", b in "[0-9a-c.~^-]{0,8}", c in "[0-9a-c.~^-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
