//! Each rule of a valid hive, broken once.

use super::super::Hive;
use super::super::read::nk;
use crate::Kind;
use crate::windows::data::Data;

/// A hive whose records are the places to break: two keys with values, one of them in pieces, and a long list.
fn sound() -> Hive {
    let mut hive = Hive::new();
    for n in 0..600 {
        hive.create_key(&format!("many\\Key {n:03}")).unwrap();
    }
    let key = hive.create_key("a\\b").unwrap();
    hive.set(key, "long", &Data::binary(vec![1; 100])).unwrap();
    hive.set(key, "longer", &Data::binary(vec![2; 100])).unwrap();
    hive.set(key, "longest", &Data::binary(vec![3; 40_000])).unwrap();
    hive.set(key, "short", &Data::dword(4)).unwrap();
    hive.create_key("a\\c").unwrap();
    hive
}

/// What is broken, and what is said of it.
type Rule = (&'static str, fn(&mut Hive));

fn key(hive: &Hive, path: &str) -> u32 {
    hive.key(path).unwrap().unwrap().0
}
fn value(hive: &Hive, name: &str) -> u32 {
    hive.find_value(hive.key("a\\b").unwrap().unwrap(), name).unwrap().unwrap().1
}
fn list(hive: &Hive, path: &str) -> u32 {
    hive.cells.u32(key(hive, path), nk::SUBKEY_LIST).unwrap()
}
fn get(hive: &Hive, cell: u32, at: usize) -> u32 {
    hive.cells.u32(cell, at).unwrap()
}
fn put(hive: &mut Hive, cell: u32, at: usize, number: u32) {
    hive.cells.write(cell, at, &number.to_le_bytes()).unwrap();
}

const RULES: [Rule; 21] = [
    ("belongs to two things", |hive| {
        let data = get(hive, value(hive, "long"), 8);
        put(hive, value(hive, "longer"), 8, data);
    }),
    ("belongs to two things", |hive| {
        // A key that is in its own list.
        let (at, below) = (key(hive, "a\\c"), key(hive, "a"));
        put(hive, list(hive, "a"), 4, below);
        put(hive, at, nk::PARENT, below);
    }),
    ("belongs to two things", |hive| {
        let security = get(hive, key(hive, "a"), nk::SECURITY);
        put(hive, value(hive, "long"), 8, security);
    }),
    ("is not where it sorts", |hive| {
        // Two entries, each with its hash, in the other order.
        let list = list(hive, "a");
        let entries = hive.cells.read(list, 4, 16).unwrap().to_vec();
        hive.cells.write(list, 4, &[&entries[8..], &entries[..8]].concat()).unwrap();
    }),
    ("has another hash", |hive| put(hive, list(hive, "a"), 8, 7)),
    ("names another parent", |hive| put(hive, key(hive, "a\\b"), nk::PARENT, hive.root().0)),
    ("has 2 subkeys and says 3", |hive| put(hive, key(hive, "a"), nk::SUBKEYS, 3)),
    ("in memory only", |hive| put(hive, key(hive, "a\\b"), 0, 0x0021_6b6e)),
    ("should be a key and is none", |hive| put(hive, list(hive, "a"), 4, value(hive, "long"))),
    ("should be a list of keys and is none", |hive| {
        put(hive, key(hive, "a"), nk::SUBKEY_LIST, value(hive, "long"));
    }),
    ("should be a value and is none", |hive| {
        let values = get(hive, key(hive, "a\\b"), nk::VALUE_LIST);
        let other = hive.cells.add(&[0; 24]).unwrap();
        put(hive, values, 0, other);
    }),
    ("a list of keys is empty", |hive| {
        let leaf = get(hive, list(hive, "many"), 8);
        put(hive, leaf, 0, 0x686c);
    }),
    ("the ring of security descriptors is broken", |hive| {
        let other = hive.cells.add(&[0; 24]).unwrap();
        put(hive, get(hive, key(hive, "a"), nk::SECURITY), 4, other);
    }),
    ("is not in the ring of all", |hive| {
        let security = get(hive, key(hive, "a"), nk::SECURITY);
        let copy = hive.cells.get(security).unwrap().to_vec();
        let other = hive.cells.add(&copy).unwrap();
        put(hive, key(hive, "a\\c"), nk::SECURITY, other);
    }),
    ("lie in a field of 4", |hive| put(hive, value(hive, "short"), 4, 0x8000_0005)),
    ("bytes of data lie in a cell of", |hive| put(hive, value(hive, "long"), 4, 200)),
    ("are said to lie in 3 pieces", |hive| put(hive, value(hive, "longest"), 4, 17_000)),
    ("should be listed here", |hive| put(hive, value(hive, "long"), 4, 17_000)),
    ("should hold 16", |hive| {
        let short = hive.cells.add(&[0; 4]).unwrap();
        put(hive, key(hive, "a\\b"), nk::VALUE_LIST, short);
    }),
    ("should hold 500 at 76", |hive| put(hive, key(hive, "a"), nk::NAME_LEN, 500)),
    ("is said to be a cell in use and is none", |hive| put(hive, value(hive, "long"), 8, 44)),
];

#[test]
fn what_breaks_a_rule_is_found() {
    sound().validate().unwrap();
    for (n, (word, broken)) in RULES.into_iter().enumerate() {
        let mut hive = sound();
        broken(&mut hive);
        let Err(error) = hive.validate() else { panic!("rule {n}, {word}: accepted") };
        assert_eq!(error.kind(), Kind::Corrupt, "rule {n}: {error}");
        assert!(error.says().contains(word), "rule {n}, {word}: {error}");
        assert!(error.offset().is_some(), "rule {n}: {error}");
        // And nothing of the kind is ever written.
        assert!(hive.finish().is_err(), "rule {n}");
    }
}
