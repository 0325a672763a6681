//! Where a row's data and parity lie, by the names and numbers of the kernel (`drivers/md/raid5.h`).

use super::field;

/// Disks of level 6: more would share factors of Q.
const DISKS_OF_SIX: usize = 255;

/// How the disk with P moves from row to row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// From the last disk down.
    Left,
    /// From the first disk up.
    Right,
    /// On the first disk.
    First,
    /// On the last one, or the last two.
    Last,
}

/// Where Q is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// Level 4 or 5.
    None,
    /// Behind P.
    Behind,
    /// Before P.
    Before,
    /// Always on the last disk; the others are as of level 5.
    Last,
}

/// A layout of level 4, 5 or 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    turn: Turn,
    /// The data of a row begin behind its parity, and go on at the first disk.
    is_symmetric: bool,
    second: Second,
    /// Factors of Q go by the number of the disk, and the first row is as the second one of others.
    by_disk: bool,
    starts_at_second: bool,
}

/// Data of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// The disk that it is on.
    pub disk: usize,
    /// Its factor in Q.
    pub factor: u8,
}

/// Where everything of a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// In the order of the array's bytes.
    pub data: Vec<Data>,
    /// The disk with P.
    pub p: usize,
    /// The disk with Q.
    pub q: Option<usize>,
}

impl Layout {
    /// By level and number of md. `None` for one that is not known.
    pub fn of(level: i32, number: u32) -> Option<Layout> {
        let simple = |turn, is_symmetric, second| Layout {
            turn,
            is_symmetric,
            second,
            by_disk: false,
            starts_at_second: false,
        };
        let five = |number, second| {
            Some(match number {
                0 => simple(Turn::Left, false, second),
                1 => simple(Turn::Right, false, second),
                2 => simple(Turn::Left, true, second),
                3 => simple(Turn::Right, true, second),
                4 => simple(Turn::First, false, second),
                5 => simple(Turn::Last, false, second),
                _ => return None,
            })
        };
        match (level, number) {
            (4, _) => five(5, Second::None),
            (5, number) => five(number, Second::None),
            (6, number @ 0..=5) => five(number, Second::Behind),
            // Those of DDF.
            (6, 8) => Some(Layout { by_disk: true, ..simple(Turn::Right, false, Second::Behind) }),
            (6, 9) => Some(Layout {
                by_disk: true,
                starts_at_second: true,
                ..simple(Turn::Left, false, Second::Behind)
            }),
            (6, 10) => Some(Layout { by_disk: true, ..simple(Turn::Left, true, Second::Before) }),
            (6, number @ 16..=20) => five(number - 16, Second::Last),
            _ => None,
        }
    }

    /// Disks of a row that hold no data.
    pub fn parities(self) -> usize {
        if self.second == Second::None { 1 } else { 2 }
    }

    /// Disks of a row that hold data; `None` where an array cannot have so few disks, or so many.
    pub fn data_disks(self, disks: usize) -> Option<usize> {
        let is_few = self.second == Second::None || disks <= DISKS_OF_SIX;
        disks.checked_sub(self.parities()).filter(|&data| data >= 1 && is_few)
    }

    /// A row of an array of so many disks.
    pub fn row(self, disks: usize, number: u64) -> Row {
        let data_disks = self.data_disks(disks).unwrap_or(1);
        // The disks that take turns.
        let ring = if self.second == Second::Last { disks - 1 } else { disks };
        let ring = ring.max(1);
        let number = number.saturating_add(self.starts_at_second.into());
        let step = usize::try_from(number % ring as u64).unwrap_or(0);
        let p = match self.turn {
            Turn::Left => ring - 1 - step,
            Turn::Right => step,
            Turn::First => 0,
            Turn::Last => data_disks,
        };
        let q = match self.second {
            Second::None => None,
            Second::Behind => Some((p + 1) % ring),
            Second::Before => Some((p + ring - 1) % ring),
            Second::Last => Some(disks - 1),
        };
        let is_parity = |disk: usize| disk == p || Some(disk) == q;
        let first = match (self.is_symmetric, self.second) {
            (false, _) => 0,
            (true, Second::Behind) => p + 2,
            (true, _) => p + 1,
        };
        let mut data: Vec<Data> = (0..ring)
            .map(|step| (first + step) % ring)
            .filter(|&disk| !is_parity(disk))
            .map(|disk| Data { disk, factor: 0 })
            .collect();
        if let Some(q) = q {
            // Factors are counted from the disk behind Q on, around the array.
            let behind = (0..disks).map(|step| (q + 1 + step) % disks).filter(|&disk| !is_parity(disk));
            for (next, disk) in behind.enumerate() {
                if let Some(data) = data.iter_mut().find(|data| data.disk == disk) {
                    data.factor = field::power(if self.by_disk { disk } else { next });
                }
            }
        }
        Row { data, p, q }
    }
}
