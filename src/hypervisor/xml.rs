//! XML as definitions use it: small documents as trees, and the few calls that write one.
//!
//! Names are local: `ovf:DiskSection` is `DiskSection`, and an element or attribute keeps its prefix apart, because the
//! producers of one format do not agree on prefixes. Deliberately absent: document types and the entities that they declare
//! (refused: no format here has them), validation, and namespaces that differ from what their prefix usually says.

use landfall_image::{Error, FileOffset, Result};
use quick_xml::Reader;
use quick_xml::Writer;
use quick_xml::events::{BytesStart, BytesText, Event};
use std::io;

/// Deeper than any definition: libvirt's has 12 levels.
const DEPTH: usize = 64;
/// Elements of one document; the largest real definition at hand has 4,000.
const ELEMENTS: usize = 200_000;

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Local name.
    pub name: String,
    /// Its prefix, empty where there is none.
    pub prefix: String,
    /// Local names and values, in order; `xmlns` declarations too.
    pub attributes: Vec<(String, String)>,
    /// Elements in it.
    pub children: Vec<Element>,
    /// The text in it, without that of its elements, trimmed.
    pub text: String,
}

impl Element {
    /// Reads a document: its root.
    ///
    /// # Errors
    /// Corrupt where it is no well-formed XML or not UTF-8 (UTF-16 with its mark is read), refused where it has a document type, more
    /// than 64 levels or more than 200,000 elements.
    pub fn parse(bytes: &[u8]) -> Result<Element> {
        let text = decode(bytes)?;
        let mut reader = Reader::from_str(&text);
        let mut open: Vec<Element> = vec![Element::default()];
        let mut count = 0_usize;
        loop {
            let at = reader.buffer_position();
            let broken =
                |says: String| Error::corrupt(format!("is not well-formed XML: {says}")).at(FileOffset(at));
            let event = reader.read_event().map_err(|e| broken(e.to_string()))?;
            if matches!(event, Event::Start(_) | Event::Empty(_)) {
                count += 1;
                if open.len() > DEPTH || count > ELEMENTS {
                    return Err(Error::refused(format!(
                        "has more than {DEPTH} levels or {ELEMENTS} elements: that is no definition"
                    ))
                    .at(FileOffset(at)));
                }
            }
            match event {
                Event::Start(start) => open.push(element(&start).map_err(broken)?),
                Event::Empty(start) => {
                    let child = element(&start).map_err(broken)?;
                    if let Some(parent) = open.last_mut() {
                        parent.children.push(child);
                    }
                }
                Event::End(_) => {
                    let Some(mut done) = open.pop().filter(|_| !open.is_empty()) else {
                        return Err(broken("an element ends that never began".into()));
                    };
                    done.text = done.text.trim().to_owned();
                    if let Some(parent) = open.last_mut() {
                        parent.children.push(done);
                    }
                }
                Event::Text(text) => {
                    let text = text.xml_content().map_err(|e| broken(e.to_string()))?;
                    append(&mut open, &text);
                }
                Event::CData(data) => {
                    let text = data.xml_content().map_err(|e| broken(e.to_string()))?;
                    append(&mut open, &text);
                }
                Event::GeneralRef(entity) => {
                    let name = entity.decode().map_err(|e| broken(e.to_string()))?;
                    let letters = match entity.resolve_char_ref().map_err(|e| broken(e.to_string()))? {
                        Some(letter) => letter.to_string(),
                        None => quick_xml::escape::resolve_predefined_entity(&name)
                            .ok_or_else(|| broken(format!("the entity &{name}; is not known")))?
                            .to_owned(),
                    };
                    append(&mut open, &letters);
                }
                Event::DocType(_) => {
                    return Err(
                        Error::refused("has a document type, which no definition needs").at(FileOffset(at))
                    );
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        let mut root = match open.pop() {
            Some(root) if open.is_empty() => root,
            _ => return Err(Error::corrupt("is not well-formed XML: it ends inside of an element")),
        };
        match (root.children.pop(), root.children.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => Err(Error::corrupt("is not well-formed XML: it has no root, or several")),
        }
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The first element of that name in it.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Every element of that name in it.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The element at the end of a path of names: `os/nvram`.
    pub fn at(&self, path: &str) -> Option<&Element> {
        path.split('/').try_fold(self, |element, name| element.child(name))
    }

    /// The text of the element at the end of a path, where it is not empty.
    pub fn text_at(&self, path: &str) -> Option<&str> {
        self.at(path).map(|element| element.text.as_str()).filter(|text| !text.is_empty())
    }
}

fn append(open: &mut [Element], text: &str) {
    if let Some(last) = open.last_mut() {
        last.text.push_str(text);
    }
}

/// Prefixes of the namespace of `xsi:type`, by the names that its writers give it. Its attributes are called `xsi:type` here,
/// because VMware's documents have them beside a `type` of their own.
const XSI: [&str; 2] = ["xsi", "XMLSchema-instance"];

fn element(start: &BytesStart<'_>) -> std::result::Result<Element, String> {
    let split = |name: &[u8]| -> std::result::Result<(String, String), String> {
        let name = std::str::from_utf8(name).map_err(|e| e.to_string())?;
        Ok(match name.split_once(':') {
            Some((prefix, local)) if XSI.contains(&prefix) => (prefix.to_owned(), format!("xsi:{local}")),
            Some((prefix, local)) if prefix != "xmlns" => (prefix.to_owned(), local.to_owned()),
            _ => (String::new(), name.to_owned()),
        })
    };
    let (prefix, name) = split(start.name().as_ref())?;
    let mut out = Element { name, prefix, ..Element::default() };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let value = attribute.unescape_value().map_err(|e| e.to_string())?;
        out.attributes.push((split(attribute.key.as_ref())?.1, value.into_owned()));
    }
    Ok(out)
}

/// UTF-8, or UTF-16 by its byte-order mark: Hyper-V writes the latter.
fn decode(bytes: &[u8]) -> Result<String> {
    let utf16 = |rest: &[u8], number: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks::<2>();
        let text: std::result::Result<String, _> =
            char::decode_utf16(pairs.iter().map(|pair| number(*pair))).collect();
        text.ok().filter(|_| odd.is_empty()).ok_or_else(|| Error::corrupt("is not well-formed UTF-16"))
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => std::str::from_utf8(rest)
            .map(str::to_owned)
            .map_err(|e| Error::corrupt("is not UTF-8").at(FileOffset(e.valid_up_to() as u64))),
    }
}

/// The document with other values in one attribute of all elements of that name, where `change` has one; the rest of it byte
/// for byte.
///
/// # Errors
/// Corrupt where it is no well-formed XML.
pub fn with_attribute(
    document: &str,
    name: &str,
    attribute: &str,
    change: &dyn Fn(&str) -> Option<String>,
) -> Result<String> {
    let broken = |says: String| Error::corrupt(format!("is not well-formed XML: {says}"));
    let mut reader = Reader::from_str(document);
    let mut writer = Writer::new(Vec::new());
    loop {
        let mut event = reader.read_event().map_err(|e| broken(e.to_string()))?;
        if let Event::Start(start) | Event::Empty(start) = &mut event
            && start.name().as_ref() == name.as_bytes()
        {
            let mut changed = start.to_owned();
            changed.clear_attributes();
            for own in start.attributes() {
                let own = own.map_err(|e| broken(e.to_string()))?;
                let value = own.unescape_value().map_err(|e| broken(e.to_string()))?;
                match (own.key.as_ref() == attribute.as_bytes()).then(|| change(&value)).flatten() {
                    Some(new) => changed.push_attribute((attribute, new.as_str())),
                    None => changed.push_attribute(own),
                }
            }
            *start = changed;
        }
        if matches!(event, Event::Eof) {
            break;
        }
        writer.write_event(event).map_err(|e| Error::io("cannot write XML", e))?;
    }
    String::from_utf8(writer.into_inner()).map_err(|_| Error::corrupt("what was written is not UTF-8"))
}

/// The document without all elements of that name (as it is written) and what is in them.
///
/// # Errors
/// Corrupt where it is no well-formed XML.
pub fn without(document: &str, name: &str) -> Result<String> {
    let broken = |says: String| Error::corrupt(format!("is not well-formed XML: {says}"));
    let mut reader = Reader::from_str(document);
    let mut writer = Writer::new(Vec::new());
    let mut inside = 0_usize;
    loop {
        let event = reader.read_event().map_err(|e| broken(e.to_string()))?;
        let is_it = |own: &[u8]| own == name.as_bytes();
        match &event {
            Event::Eof => break,
            Event::Start(start) if is_it(start.name().as_ref()) => inside += 1,
            Event::End(end) if is_it(end.name().as_ref()) => {
                inside = inside.saturating_sub(1);
                continue;
            }
            Event::Empty(start) if is_it(start.name().as_ref()) => continue,
            _ => {}
        }
        if inside == 0 {
            writer.write_event(event).map_err(|e| Error::io("cannot write XML", e))?;
        }
    }
    String::from_utf8(writer.into_inner()).map_err(|_| Error::corrupt("what was written is not UTF-8"))
}

/// What a document is written to.
pub type Xml = Writer<Vec<u8>>;

/// True for what an attribute of XML can hold, and comes back from it as it was.
pub fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// `text` without the characters that no XML can hold; line breaks and tabs stay.
pub fn holdable(text: &str) -> String {
    text.chars().filter(|&c| is_plain(c) || c == '\n' || c == '\t').collect()
}

/// `text` with the characters that mean something in XML, and in HTML, written as entities.
pub fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

/// The declaration at a document's beginning.
pub fn declaration(xml: &mut Xml) -> io::Result<()> {
    xml.write_event(Event::Decl(quick_xml::events::BytesDecl::new("1.0", Some("UTF-8"), None)))
}

/// An element with attributes and nothing in it.
pub fn empty(xml: &mut Xml, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
    xml.create_element(name).with_attributes(attributes.iter().copied()).write_empty().map(|_| ())
}

/// An element with attributes and text.
pub fn text(xml: &mut Xml, name: &str, attributes: &[(&str, &str)], content: &str) -> io::Result<()> {
    let element = xml.create_element(name).with_attributes(attributes.iter().copied());
    element.write_text_content(BytesText::new(content)).map(|_| ())
}

/// An element with attributes and other elements.
pub fn parent(
    xml: &mut Xml,
    name: &str,
    attributes: &[(&str, &str)],
    content: impl FnOnce(&mut Xml) -> io::Result<()>,
) -> io::Result<()> {
    let element = xml.create_element(name).with_attributes(attributes.iter().copied());
    element.write_inner_content(content).map(|_| ())
}

/// The document that `write` writes, with a line break at its end.
pub fn document(write: impl FnOnce(&mut Xml) -> io::Result<()>) -> Result<String> {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    write(&mut xml).map_err(|e| Error::io("cannot write XML", e))?;
    let mut out = xml.into_inner();
    out.push(b'\n');
    String::from_utf8(out).map_err(|_| Error::corrupt("what was written is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;

    #[test]
    fn documents_become_trees() {
        let text = "<?xml version='1.0'?><!-- c --><o:a xmlns:o='u' x='1 &lt; 2' o:y=\"&#65;\"><b> one &amp; <![CDATA[<two>]]> </b><b/><c><d>deep</d></c></o:a>";
        let root = Element::parse(text.as_bytes()).unwrap();
        assert_eq!((root.name.as_str(), root.prefix.as_str()), ("a", "o"));
        assert_eq!(root.attribute("x"), Some("1 < 2"));
        assert_eq!(root.attribute("y"), Some("A"));
        assert_eq!(root.text_at("b"), Some("one & <two>"));
        assert_eq!(root.all("b").count(), 2);
        assert_eq!(root.text_at("c/d"), Some("deep"));
        for xsi in XSI {
            let text = format!("<a xmlns:{xsi}='u' {xsi}:type='Ref' type='Folder'/>");
            let root = Element::parse(text.as_bytes()).unwrap();
            assert_eq!((root.attribute("type"), root.attribute("xsi:type")), (Some("Folder"), Some("Ref")));
        }
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain("<a>ä</a>".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(Element::parse(&utf16).unwrap().text, "ä");
    }

    #[test]
    fn one_attribute_is_changed_and_nothing_else() {
        let text = "<?xml version=\"1.0\"?>\n<a x='1'>\n  <s f=\"/o/a&amp;b\" z='2'/><!-- c --> t &lt; <s f='/p'></s>\n</a>\n";
        let change = |value: &str| value.strip_prefix("/o/").map(|rest| format!("/n'\"<&/{rest}"));
        let changed = with_attribute(text, "s", "f", &change).unwrap();
        let wanted = text.replace("/o/a&amp;b", "/n&apos;&quot;&lt;&amp;/a&amp;b");
        assert_eq!(changed.replace("f=\"/p\"", "f='/p'").replace("z=\"2\"", "z='2'"), wanted);
        assert_eq!(
            Element::parse(changed.as_bytes()).unwrap().child("s").unwrap().attribute("f"),
            Some("/n'\"<&/a&b")
        );
        assert!(with_attribute("<a", "s", "f", &change).is_err());
    }

    #[test]
    fn elements_of_a_name_go_with_what_is_in_them() {
        let text = "<a x='1'><b><c/><b><d/></b> t</b>k &amp; l<b/><c y=\"&lt;\"/><bb/></a>";
        assert_eq!(without(text, "b").unwrap(), "<a x='1'>k &amp; l<c y=\"&lt;\"/><bb/></a>");
        assert_eq!(without(text, "z").unwrap(), text);
        assert!(without("<a", "b").is_err());
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<a>".repeat(100);
        let many = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS + 1));
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>";
        for (text, kind) in [
            (deep.as_str(), Kind::Refused),
            (many.as_str(), Kind::Refused),
            (bomb, Kind::Refused),
            ("<a>&b;</a>", Kind::Corrupt),
            ("<a>", Kind::Corrupt),
            ("</a>", Kind::Corrupt),
            ("<a></b>", Kind::Corrupt),
            ("<a/><b/>", Kind::Corrupt),
            ("", Kind::Corrupt),
            ("text", Kind::Corrupt),
            ("<a x='1' x='2'/>", Kind::Corrupt),
            ("<a x='&b;'/>", Kind::Corrupt),
        ] {
            let shown = &text[..text.len().min(40)];
            let error = Element::parse(text.as_bytes()).map(|_| ());
            assert_eq!(error.unwrap_err().kind(), kind, "{shown}");
        }
        assert_eq!(Element::parse(b"<a>\xff</a>").unwrap_err().kind(), Kind::Corrupt);
    }
}
