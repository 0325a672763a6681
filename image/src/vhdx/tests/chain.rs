//! Which parents a differencing disk takes.

use super::forge::*;
use super::open;
use crate::error::Kind;
use crate::formats::{self, OpenOptions};
use crate::units::GuestOffset;
use std::path::Path;
use uuid::Uuid;

const FIRST: Uuid = Uuid::from_u128(11);
const SECOND: Uuid = Uuid::from_u128(22);

fn base(size: u64, sector_size: u64, id: Uuid) -> Forge {
    let mut base = Forge::new(size, MIB, sector_size);
    base.data_write_guid = id;
    base.put_block(0, FULLY, vec![7; 4096]);
    base
}

fn child(size: u64, sector_size: u64, linkages: &[(&'static str, String)]) -> Forge {
    let mut child = Forge::new(size, MIB, sector_size);
    let mut locator = linkages.to_vec();
    locator.push(("relative_path", ".\\base.vhdx".into()));
    child.parent = Some(locator);
    child
}

fn braced(id: Uuid) -> String {
    format!("{{{id}}}")
}

/// The first byte that the child reads over the parent.
fn reads(folder: &Path, base: &Forge, child: &Forge) -> crate::Result<u8> {
    base.write(&folder.join("base.vhdx"));
    let path = folder.join("child.vhdx");
    child.write(&path);
    let mut byte = [0];
    formats::open(&path, &OpenOptions::default())?.disk.read_at(GuestOffset(0), &mut byte)?;
    Ok(byte[0])
}

/// [MS-VHDX] 2.6.2.6.3: while a child is merged into it, a parent has one id before and another behind the merge.
#[test]
fn either_linkage_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let both = [("parent_linkage", braced(FIRST)), ("parent_linkage2", braced(SECOND))];
    let over = |id, linkages: &[(&'static str, String)]| {
        reads(dir.path(), &base(4 * MIB, 512, id), &child(4 * MIB, 512, linkages))
    };
    assert_eq!(over(FIRST, &both).unwrap(), 7);
    assert_eq!(over(SECOND, &both).unwrap(), 7);
    let error = over(Uuid::from_u128(33), &both).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.says().contains(&format!("wants {FIRST} or {SECOND}")), "{error}");
    // The second alone is not enough, and neither is one that says nothing.
    assert_eq!(over(SECOND, &both[..1]).unwrap_err().kind(), Kind::Corrupt);
    assert!(over(SECOND, &both[1..]).unwrap_err().says().contains("no \"parent_linkage\""));
    for nothing in [braced(Uuid::nil()), "x".into(), String::new()] {
        let linkages = [("parent_linkage", braced(FIRST)), ("parent_linkage2", nothing)];
        assert_eq!(over(FIRST, &linkages).unwrap(), 7);
        assert_eq!(over(Uuid::nil(), &linkages).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn sectors_must_be_those_of_the_parent_and_the_size_is_the_childs() {
    let dir = tempfile::tempdir().unwrap();
    let linkage = [("parent_linkage", braced(FIRST))];
    let over = |size, sector_size, child_size, child_sector_size| {
        reads(dir.path(), &base(size, sector_size, FIRST), &child(child_size, child_sector_size, &linkage))
    };
    assert_eq!(over(4 * MIB, 4096, 4 * MIB, 4096).unwrap(), 7);
    for (sectors, of_child) in [(512, 4096), (4096, 512)] {
        let error = over(4 * MIB, sectors, 4 * MIB, of_child).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert_eq!(error.path(), Some(&*dir.path().join("base.vhdx")));
        assert!(
            error.says().contains(&format!("sectors of {sectors} bytes, its child of {of_child}")),
            "{error}"
        );
    }
    // A child may have grown; behind its parent's end there are zeros.
    assert_eq!(over(4 * MIB, 512, 9 * MIB, 512).unwrap(), 7);
    let mut bytes = [1; 512];
    open(&dir.path().join("child.vhdx")).disk.read_at(GuestOffset(4 * MIB), &mut bytes).unwrap();
    assert_eq!(bytes, [0; 512]);
    // Or shrunk.
    assert_eq!(over(4 * MIB, 512, 3 * MIB + 512, 512).unwrap(), 7);
    assert_eq!(open(&dir.path().join("child.vhdx")).disk.size().0, 3 * MIB + 512);
}

/// Entries that share one long text would take more memory than any file has.
#[test]
fn a_locator_has_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let over = |more: Vec<(&'static str, String)>| {
        let linkages = [vec![("parent_linkage", braced(FIRST))], more].concat();
        reads(dir.path(), &base(4 * MIB, 512, FIRST), &child(4 * MIB, 512, &linkages))
    };
    // With the linkage and the path there are two more.
    assert_eq!(over(vec![("other", "x".into()); 62]).unwrap(), 7);
    let error = over(vec![("other", "x".into()); 63]).unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.says().contains("65 entries"), "{error}");
    assert_eq!(over(vec![("other", "x".repeat(4096))]).unwrap(), 7);
    let error = over(vec![("other", "x".repeat(4097))]).unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.says().contains("8194 bytes"), "{error}");
}
