//! The sizes of the disks that `ova.xml` names.
//!
//! ```text
//! struct { version, objects: array of struct { class, id, snapshot: struct { …, virtual_size } } }
//! ```
//! Values are those of XML-RPC, with a type (`<value><i4>1</i4></value>`) or without. All else in the document is passed over.

use crate::error::{Error, Result};
use crate::limits;
use crate::units::FileOffset;
use quick_xml::Reader;
use quick_xml::events::Event;
use std::collections::HashMap;

/// Deeper than any definition: xapi's has 14 levels.
const DEPTH: usize = 64;

/// Structs around an object's own members, and around those of its snapshot.
const OBJECT: usize = 2;
const SNAPSHOT: usize = 3;

/// Sizes in bytes by the ids of the disks.
pub(super) fn read(document: &[u8]) -> Result<HashMap<String, u64>> {
    let text = std::str::from_utf8(document)
        .map_err(|e| Error::corrupt("ova.xml is not UTF-8").at(FileOffset(e.valid_up_to() as u64)))?;
    let mut reader = Reader::from_str(text);
    let mut sizes = HashMap::new();
    // Elements that are open; the name of the member in each open struct; the text of the last element.
    let (mut depth, mut members, mut text) = (0_usize, Vec::<String>::new(), String::new());
    let (mut id, mut size) = (None, None);
    loop {
        let broken = |says: String| Error::corrupt(format!("ova.xml is not well-formed XML: {says}"));
        match reader.read_event().map_err(|e| broken(e.to_string()))? {
            Event::Start(start) => {
                depth += 1;
                if depth > DEPTH {
                    return Err(Error::refused(format!("ova.xml has more than {DEPTH} levels")));
                }
                text.clear();
                if start.name().as_ref() == b"struct" {
                    members.push(String::new());
                }
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                let (level, name) = (members.len(), members.last().map_or("", String::as_str));
                match end.name().as_ref() {
                    b"name" => {
                        if let Some(last) = members.last_mut() {
                            text.trim().clone_into(last);
                        }
                    }
                    b"value" if level == OBJECT && name == "id" => id = Some(text.trim().to_owned()),
                    b"value" if level == SNAPSHOT && name == "virtual_size" => {
                        size = Some(text.trim().parse::<u64>().map_err(|_| {
                            Error::corrupt(format!("ova.xml gives a disk the size {:?}", shown(text.trim())))
                        })?);
                    }
                    b"struct" => {
                        members.pop();
                        if level == OBJECT
                            && let (Some(id), Some(size)) = (id.take(), size.take())
                        {
                            if sizes.len() >= limits::XVA_OBJECTS {
                                let says = format!("ova.xml has more than {} disks", limits::XVA_OBJECTS);
                                return Err(Error::refused(says));
                            }
                            if sizes.insert(id.clone(), size).is_some_and(|other| other != size) {
                                let says = format!("ova.xml has two disks with the id {:?}", shown(&id));
                                return Err(Error::corrupt(says));
                            }
                        }
                    }
                    _ => {}
                }
                // The text of a typed value is that of its type's element.
                if !matches!(end.name().as_ref(), b"string" | b"int" | b"i4" | b"i8") {
                    text.clear();
                }
            }
            Event::Text(part) => text.push_str(&part.xml_content().map_err(|e| broken(e.to_string()))?),
            Event::Eof if depth > 0 => return Err(broken("it ends inside of an element".into())),
            Event::Eof => return Ok(sizes),
            Event::DocType(_) => return Err(Error::refused("ova.xml has a document type, which none has")),
            _ => {}
        }
    }
}

/// The beginning of a text from a file, for an error.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(id: &str, size: &str) -> String {
        format!(
            "<value><struct><member><name>class</name><value>VDI</value></member><member><name>id</name><value>{id}\
             </value></member><member><name>snapshot</name><value><struct><member><name>sm_config</name><value><struct>\
             <member><name>virtual_size</name><value>9</value></member></struct></value></member><member><name>virtual_size\
             </name><value>{size}</value></member></struct></value></member></struct></value>"
        )
    }

    fn document(objects: &str) -> String {
        format!(
            "<value><struct><member><name>version</name><value><struct/></value></member><member><name>objects</name><value>\
             <array><data>{objects}</data></array></value></member></struct></value>"
        )
    }

    #[test]
    fn sizes_are_those_of_the_disks() {
        let text = document(
            &(object("Ref:1", "4096")
                + &object("Ref:2", "<string>77</string>")
                + &object("Ref:3", " <i4>1</i4> ")),
        );
        let sizes = read(text.as_bytes()).unwrap();
        assert_eq!((sizes["Ref:1"], sizes["Ref:2"], sizes["Ref:3"], sizes.len()), (4096, 77, 1, 3));
        let spaced = text.replace("><", ">\n  <");
        assert_eq!(read(spaced.as_bytes()).unwrap(), sizes);
    }

    #[test]
    fn hostile_documents_are_errors() {
        let deep = "<value>".repeat(65);
        for bad in [
            document(&object("Ref:1", "-1")),
            document(&object("Ref:1", "99999999999999999999")),
            document(&object("Ref:1", "")),
            document(&(object("Ref:1", "1") + &object("Ref:1", "2"))),
            "<value>".into(),
            "<a></b>".into(),
            deep,
            "<!DOCTYPE a><a/>".into(),
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(read(b"\xff").is_err());
        assert!(read(b"").unwrap().is_empty());
    }
}
