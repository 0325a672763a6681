//! What an INF file puts into the registry: its add-registry sections (Microsoft, "INF AddReg Directive").
//!
//! ```text
//! root, [key], [name], [flags], [data …]      HKR, "Parameters\PnpInterface", "5", 0x00010001, 1
//! ```
//! Only what is relative (`HKR`) counts here: the rest is done by Windows itself when it installs the device.

use super::{Inf, number};
use crate::windows::data::{Data, REG_BINARY, REG_DWORD, REG_NONE};
use crate::windows::registry::Registry;
use crate::{Error, Result};

/// Values that one package sets. Cards with thousands of settings keep them in the part that is not read here.
const VALUES_AT_MOST: usize = 8192;

/// Names on the path of a key.
const KEYS_AT_MOST: usize = 16;

/// Letters of a key's name; of a value's.
const KEY_NAME_AT_MOST: usize = 255;
const VALUE_NAME_AT_MOST: usize = 1023;

// Flags (setupapi.h).
const BINARY: u32 = 1;
const NO_CLOBBER: u32 = 2;
const DELETE: u32 = 4;
const APPEND: u32 = 8;
const KEY_ONLY: u32 = 0x10;
const OVERWRITE_ONLY: u32 = 0x20;
const KEY_ONLY_COMMON: u32 = 0x2000;

/// One line of such a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the key that it is relative to; empty for that itself.
    pub key: String,
    /// Name of the value.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
}

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its key is made.
    Key,
    /// It is set.
    Set(Data),
    /// It is set where it is absent.
    SetNew(Data),
    /// It is set where it is there.
    SetOld(Data),
    /// Texts are added to it.
    Append(Vec<String>),
    /// It goes.
    Delete,
}

/// Entries of the sections that `AddReg` of a section names.
pub fn entries(inf: &Inf, section: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for name in inf.values(section, "AddReg")? {
        // Twice the same is once the same.
        if seen.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
            continue;
        }
        for line in inf.lines(&name) {
            let fields = line.fields.iter().map(|field| inf.expand(field)).collect::<Result<Vec<_>>>()?;
            entries.extend(entry(&fields)?);
            if entries.len() > VALUES_AT_MOST {
                return Err(Error::refused(format!("the INF file sets more than {VALUES_AT_MOST} values")));
            }
        }
        seen.push(name);
        if seen.len() > VALUES_AT_MOST {
            return Err(Error::refused(format!("AddReg names more than {VALUES_AT_MOST} sections")));
        }
    }
    Ok(entries)
}

fn entry(fields: &[String]) -> Result<Option<Entry>> {
    let field = |index: usize| fields.get(index).map_or("", String::as_str);
    if !field(0).eq_ignore_ascii_case("HKR") {
        return Ok(None);
    }
    let (key, name) = (field(1).trim_matches('\\').to_owned(), field(2).to_owned());
    let names: Vec<&str> = key.split('\\').collect();
    let odd = |name: &&str| name.encode_utf16().count() > KEY_NAME_AT_MOST || name.contains('\0');
    let is_odd = !key.is_empty() && names.iter().any(|name| name.is_empty());
    if is_odd
        || names.len() > KEYS_AT_MOST
        || names.iter().any(odd)
        || name.encode_utf16().count() > VALUE_NAME_AT_MOST
        || name.contains('\0')
    {
        return Err(Error::refused(format!("{key:?}, {name:?} is no name of a registry value")));
    }
    let flags = match field(3) {
        "" => 0,
        text => {
            number(text).ok_or_else(|| Error::corrupt(format!("flags {text:?} of {name:?} are no number")))?
        }
    };
    let data = fields.get(4..).unwrap_or_default();
    let is_key =
        flags & (KEY_ONLY | KEY_ONLY_COMMON) != 0 || (name.is_empty() && data.is_empty() && flags == 0);
    let change = match flags {
        _ if is_key => Change::Key,
        flags if flags & DELETE != 0 => Change::Delete,
        flags if flags & APPEND != 0 => Change::Append(data.to_vec()),
        flags if flags & NO_CLOBBER != 0 => Change::SetNew(value(flags, data, &name)?),
        flags if flags & OVERWRITE_ONLY != 0 => Change::SetOld(value(flags, data, &name)?),
        _ => Change::Set(value(flags, data, &name)?),
    };
    Ok(Some(Entry { key, name, change }))
}

/// The data that fields stand for.
fn value(flags: u32, fields: &[String], name: &str) -> Result<Data> {
    let wrong = |field: &str| Error::corrupt(format!("{field:?} of the value {name:?} is no number"));
    let first = fields.first().map_or("", String::as_str);
    let bytes = || {
        let bytes = fields.iter().filter(|field| !field.is_empty()).map(|field| {
            let digits = field.trim_start_matches("0x");
            u8::from_str_radix(digits, 16).map_err(|_| wrong(field))
        });
        bytes.collect::<Result<Vec<u8>>>()
    };
    let kind = flags & 0xffff_0000;
    Ok(match (flags & BINARY, kind) {
        (0, 0x0001_0000) => Data::texts(fields.iter().filter(|field| !field.is_empty())),
        (0, 0x0002_0000) => Data::expand(first),
        (0, _) => Data::text(first),
        // Four bytes, as files for Windows 95 had it, or one number.
        (_, 0x0001_0000) if fields.len() == 4 => Data { kind: REG_DWORD, bytes: bytes()? },
        (_, 0x0001_0000) => Data::dword(match first {
            "" => 0,
            first => number(first).or_else(|| signed(first)).ok_or_else(|| wrong(first))?,
        }),
        (_, 0x0002_0000) => Data { kind: REG_NONE, bytes: bytes()? },
        (_, 0) => Data { kind: REG_BINARY, bytes: bytes()? },
        // Any other type is said by its number.
        (_, kind) => Data { kind: kind >> 16, bytes: bytes()? },
    })
}

fn signed(text: &str) -> Option<u32> {
    text.parse::<i32>().ok().map(i32::cast_unsigned)
}

/// Does to the key in a hive what the entries say.
pub fn apply(entries: &[Entry], registry: &mut Registry, key: &str, why: &str) -> Result<()> {
    for entry in entries {
        let below = match entry.key.as_str() {
            "" => key.to_owned(),
            path => format!("{key}\\{path}"),
        };
        let name = entry.name.as_str();
        let was = registry.value(&below, name)?;
        match &entry.change {
            Change::Key => registry.create(&below, why)?,
            Change::Set(data) => registry.set(&below, name, data.clone(), why)?,
            Change::SetNew(data) if was.is_none() => registry.set(&below, name, data.clone(), why)?,
            Change::SetOld(data) if was.is_some() => registry.set(&below, name, data.clone(), why)?,
            Change::SetNew(_) | Change::SetOld(_) => {}
            Change::Append(more) => {
                let mut texts = was.and_then(|data| data.as_texts()).unwrap_or_default();
                let more = more.iter().filter(|text| !texts.iter().any(|old| old.eq_ignore_ascii_case(text)));
                let more: Vec<String> = more.cloned().collect();
                texts.extend(more);
                registry.set(&below, name, Data::texts(texts), why)?;
            }
            Change::Delete => registry.delete_value(&below, name, why)?,
        }
    }
    Ok(())
}
