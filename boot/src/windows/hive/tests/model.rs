//! Thousands of random edits, compared with a map that gets the same: what is read, before and after a write, is what the map holds.

use super::super::{Hive, Key};
use super::corpus::real;
use super::lengths;
use crate::windows::data::Data;
use std::collections::BTreeMap;

/// Numbers that look random and come again with the same seed (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit
    }
}

/// Values of a key: by their name in upper case, with the name as it was first given.
type Values = BTreeMap<String, (String, Data)>;

/// A hive as a map: keys by their path in upper case, with the path as it was first given.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model(BTreeMap<String, (String, Values)>);

/// Names here have letters only whose upper case nobody disputes.
fn fold(name: &str) -> String {
    name.to_uppercase()
}

impl Model {
    fn of(hive: &Hive) -> Model {
        let mut model = Model::default();
        let mut waiting = vec![(hive.root(), String::new())];
        while let Some((key, path)) = waiting.pop() {
            let mut values = Values::new();
            for (name, data) in hive.values(key).unwrap() {
                assert!(values.insert(fold(&name), (name.clone(), data)).is_none(), "{path}: {name} twice");
            }
            for (name, child) in hive.subkeys(key).unwrap() {
                waiting.push((child, format!("{path}\\{name}")));
            }
            assert!(model.0.insert(fold(&path), (path.clone(), values)).is_none(), "{path} twice");
        }
        model
    }
    fn create(&mut self, path: &str) {
        let mut given = String::new();
        for name in path.split('\\') {
            // A key below one that is there is below its name as that was given.
            let next = format!("{given}\\{name}");
            let (known, _) = self.0.entry(fold(&next)).or_insert((next, Values::new()));
            given = known.clone();
        }
    }
    fn values(&mut self, path: &str) -> Option<&mut Values> {
        self.0.get_mut(&fold(&format!("\\{path}"))).map(|(_, values)| values)
    }
    fn delete(&mut self, path: &str) -> bool {
        let key = fold(&format!("\\{path}"));
        let below = format!("{key}\\");
        let before = self.0.len();
        self.0.retain(|path, _| *path != key && !path.starts_with(&below));
        self.0.len() != before
    }
}

fn in_some_case(random: &mut Random, name: String) -> String {
    match random.below(3) {
        0 => name.to_uppercase(),
        1 => name.to_lowercase(),
        _ => name,
    }
}

/// A path of one to four names; the second has hundreds of siblings.
fn path(random: &mut Random) -> String {
    const TOPS: [&str; 4] = ["ControlSet001", "Märkte", "ключ", "a key"];
    let mut path = TOPS[random.below(TOPS.len())].to_owned();
    for level in 0..random.below(4) {
        let n = if level == 0 { random.below(1500) } else { random.below(3) };
        path.push_str(&match n % 3 {
            0 => format!("\\Service {n}"),
            1 => format!("\\{n:04} Ärger"),
            _ => format!("\\Ω{n}"),
        });
    }
    in_some_case(random, path)
}

fn data(random: &mut Random) -> Data {
    const SIZES: [usize; 14] = [0, 1, 2, 3, 4, 5, 8, 40, 300, 4084, 16344, 16345, 33000, 70000];
    let most = if random.below(10) == 0 { SIZES.len() } else { 9 };
    let size = SIZES[random.below(most)];
    let byte = u8::try_from(random.below(256)).unwrap();
    Data { kind: u32::try_from(random.below(12)).unwrap(), bytes: vec![byte; size] }
}

/// The key at a path, which a path for an edit is not always.
fn some_key(hive: &Hive, path: &str) -> Option<Key> {
    hive.key(path).unwrap()
}

fn edit(random: &mut Random, hive: &mut Hive, model: &mut Model) {
    let path = path(random);
    let value = format!("Value {}", random.below(40));
    let value = if random.below(12) == 0 { String::new() } else { in_some_case(random, value) };
    match random.below(20) {
        0..6 => {
            hive.create_key(&path).unwrap();
            model.create(&path);
        }
        6..15 => {
            let data = data(random);
            let key = hive.create_key(&path).unwrap();
            hive.set(key, &value, &data).unwrap();
            model.create(&path);
            let values = model.values(&path).unwrap();
            values.entry(fold(&value)).or_insert((value, Data::dword(0))).1 = data;
        }
        15..18 => {
            let there = some_key(hive, &path);
            let deleted = there.is_some_and(|key| hive.delete_value(key, &value).unwrap());
            let known = model.values(&path);
            assert_eq!(there.is_some(), known.is_some(), "{path}");
            assert_eq!(
                deleted,
                known.is_some_and(|values| values.remove(&fold(&value)).is_some()),
                "{path} {value}"
            );
        }
        _ => {
            // Those at the top only now and then, or nothing would grow.
            if path.contains('\\') || random.below(40) == 0 {
                assert_eq!(hive.delete_key(&path).unwrap(), model.delete(&path), "{path}");
            }
        }
    }
}

/// Edits a hive and its model, and compares them.
fn run(seed: u64, bytes: Vec<u8>, edits: usize, validate_every: usize, compare_every: usize) {
    let mut random = Random::new(seed);
    let mut hive = Hive::open(bytes, None, None).unwrap().hive;
    let mut model = Model::of(&hive);
    let lost = hive.validate().unwrap().lost_cells;
    for n in 1..=edits {
        edit(&mut random, &mut hive, &mut model);
        if n % validate_every == 0 {
            let contents = hive.validate().unwrap_or_else(|error| panic!("seed {seed}, edit {n}: {error}"));
            assert_eq!((contents.lost_cells, contents.miscounted), (lost, 0), "seed {seed}, edit {n}");
            assert_eq!(contents.keys, model.0.len(), "seed {seed}, edit {n}");
        }
        if n % compare_every == 0 {
            assert_eq!(Model::of(&hive), model, "seed {seed}, edit {n}");
            lengths(&hive);
            let written = hive.finish().unwrap();
            hive = Hive::open(written, None, None).unwrap().hive;
            assert_eq!(Model::of(&hive), model, "seed {seed}, edit {n}, written");
        }
    }
}

#[test]
fn edits_of_a_new_hive_are_those_of_a_map() {
    for seed in 0..3 {
        run(seed, Hive::new().finish().unwrap(), 10_000, 20, 1000);
    }
}

#[test]
fn edits_of_a_real_boot_store_are_those_of_a_map() {
    // Version 1.3: other lists, large values in one cell.
    let Some(bytes) = real("hives/regipy/BCD") else { return };
    run(11, bytes, 10_000, 20, 1000);
}

#[test]
fn edits_of_a_real_system_hive_are_those_of_a_map() {
    let Some(bytes) = real("hives/regipy/SYSTEM") else { return };
    run(12, bytes, 10_000, 500, 2500);
}
