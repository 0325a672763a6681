//! The subjects of certificates (RFC 4514): read from a certificate or from what a person wrote, and compared.
//!
//! What counts are the attributes with their values, in their order. RFC 4514 (and `openssl x509 -nameopt RFC2253`) writes the last one of the
//! certificate first, and many programs the first one: both are the same subject.
//!
//! Absent: the rules of X.500 for which different values are equal (case, spaces within): values are compared as they are.

use std::fmt::{self, Write};
use x509_parser::asn1_rs::Any;
use x509_parser::x509::X509Name;

/// Names of attribute types, each with its number; the first of a number is the one that is printed.
const TYPES: [(&str, &str); 29] = [
    ("CN", "2.5.4.3"),
    ("commonName", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("surname", "2.5.4.4"),
    ("serialNumber", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("countryName", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("localityName", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("S", "2.5.4.8"),
    ("stateOrProvinceName", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("streetAddress", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("organizationName", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("organizationalUnitName", "2.5.4.11"),
    ("title", "2.5.4.12"),
    ("GN", "2.5.4.42"),
    ("givenName", "2.5.4.42"),
    ("initials", "2.5.4.43"),
    ("dnQualifier", "2.5.4.46"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("domainComponent", "0.9.2342.19200300.100.1.25"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("E", "1.2.840.113549.1.9.1"),
    ("EMAIL", "1.2.840.113549.1.9.1"),
];

/// A subject: its parts in their order, each of one attribute or more. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject(Vec<Vec<Attribute>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    /// The number of its type, with dots.
    kind: String,
    /// Its value; `None` where it is no text.
    text: Option<String>,
    /// The same in DER; `None` where a person wrote text.
    der: Option<Vec<u8>>,
}

impl Attribute {
    fn is(&self, other: &Attribute) -> bool {
        let same_text = self.text.is_some() && self.text == other.text;
        self.kind == other.kind && (same_text || self.der.is_some() && self.der == other.der)
    }
}

impl Subject {
    /// That of a certificate.
    pub fn of(name: &X509Name<'_>) -> Subject {
        let one = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| Attribute {
            kind: attribute.attr_type().to_id_string(),
            text: text(attribute.attr_value()),
            der: Some(der(attribute.attr_value())),
        };
        Subject(name.iter().map(|part| part.iter().map(one).collect()).collect())
    }

    /// What a person wrote: `CN=hv1,O=Example`.
    ///
    /// # Errors
    /// In words, where it is no subject.
    pub fn parse(written: &str) -> Result<Subject, String> {
        let (mut parts, mut rest, mut is_same_part) = (Vec::<Vec<Attribute>>::new(), written, false);
        loop {
            let (name, behind) = rest.split_once('=').ok_or_else(|| format!("{:?} has no =", rest.trim()))?;
            let (text, der, behind) = value(behind)?;
            let attribute = Attribute { kind: kind(name.trim())?, text, der };
            match parts.last_mut().filter(|_| is_same_part) {
                Some(part) => part.push(attribute),
                None => parts.push(vec![attribute]),
            }
            let mut letters = behind.chars();
            is_same_part = match letters.next() {
                None => return Ok(Subject(parts)),
                next => next == Some('+'),
            };
            rest = letters.as_str();
        }
    }

    /// True where both are the same, in either order. One without attributes is nobody's.
    pub fn is(&self, other: &Subject) -> bool {
        let same = |(a, b): (&Vec<Attribute>, &Vec<Attribute>)| {
            let within = |a: &[Attribute], b: &[Attribute]| a.iter().all(|a| b.iter().any(|b| a.is(b)));
            a.len() == b.len() && within(a, b) && within(b, a)
        };
        let (mine, others) = (&self.0, &other.0);
        !mine.is_empty()
            && mine.len() == others.len()
            && (mine.iter().zip(others).all(same) || mine.iter().zip(others.iter().rev()).all(same))
    }

    /// True where it has no attributes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Subject {
    /// As RFC 4514 has it, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().rev().enumerate() {
            for (within, attribute) in part.iter().enumerate() {
                let before = match (at, within) {
                    (0, 0) => "",
                    (_, 0) => ",",
                    _ => "+",
                };
                let name = TYPES.iter().find(|(_, number)| *number == attribute.kind);
                write!(f, "{before}{}=", name.map_or(attribute.kind.as_str(), |(name, _)| name))?;
                match (&attribute.text, &attribute.der) {
                    (Some(text), _) => escaped(text, f)?,
                    (None, der) => {
                        f.write_char('#')?;
                        der.iter().flatten().try_for_each(|byte| write!(f, "{byte:02X}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The number of a type, by its name in any case or by itself.
fn kind(name: &str) -> Result<String, String> {
    let known = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let number = name.strip_prefix("OID.").or_else(|| name.strip_prefix("oid.")).unwrap_or(name);
    let is_number = number.contains('.')
        && number.split('.').all(|part| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit()));
    match known {
        Some((_, number)) => Ok((*number).to_owned()),
        None if is_number => Ok(number.to_owned()),
        None => Err(format!("{name:?} is no type of attribute that is known here")),
    }
}

/// As text or as DER, and what is behind it: a separator, or nothing.
type Value<'t> = (Option<String>, Option<Vec<u8>>, &'t str);

/// The value at the beginning of `written`.
fn value(written: &str) -> Result<Value<'_>, String> {
    let written = written.trim_start();
    if let Some(digits) = written.strip_prefix('#') {
        let end = digits.find([',', ';', '+']).unwrap_or(digits.len());
        let (digits, rest) = digits.split_at(end);
        let digits = digits.trim_end();
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| format!("#{digits} are no hexadecimal digits"))?;
        return Ok((None, Some(bytes), rest));
    }
    // Some programs put quotes around what has separators in it.
    let quoted = written.strip_prefix('"');
    let inside = quoted.unwrap_or(written);
    let (mut bytes, mut kept, mut letters) = (Vec::new(), 0, inside.chars());
    let rest = loop {
        let rest = letters.as_str();
        match letters.next() {
            None if quoted.is_some() => return Err("a quote is not closed".to_owned()),
            None => break rest,
            Some('"') if quoted.is_some() => {
                kept = bytes.len();
                break letters.as_str().trim_start();
            }
            Some(',' | ';' | '+') if quoted.is_none() => break rest,
            Some('\\') => {
                let rest = letters.as_str();
                let pair = rest.get(..2).filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
                match pair.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        letters = rest.get(2..).unwrap_or_default().chars();
                    }
                    None => {
                        let letter = letters.next().ok_or("nothing is behind its last \\")?;
                        bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes());
                    }
                }
                kept = bytes.len();
            }
            Some(letter) => {
                bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes());
                if letter != ' ' || quoted.is_some() {
                    kept = bytes.len();
                }
            }
        }
    };
    if !(rest.is_empty() || rest.starts_with([',', ';', '+'])) {
        return Err(format!("{rest:?} is behind a closed quote"));
    }
    bytes.truncate(kept);
    let text = String::from_utf8(bytes).map_err(|_| "its escapes make no UTF-8".to_owned())?;
    Ok((Some(text), None, rest))
}

/// A value as RFC 4514 writes it. What a terminal would not show is escaped, too.
fn escaped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let last = text.chars().count().saturating_sub(1);
    for (at, letter) in text.chars().enumerate() {
        let is_unseen = letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{letter}")?,
            '#' | ' ' if at == 0 => write!(f, "\\{letter}")?,
            ' ' if at == last => f.write_str("\\ ")?,
            _ if is_unseen => {
                letter.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\{byte:02X}"))?;
            }
            _ => f.write_char(letter)?,
        }
    }
    Ok(())
}

/// The text of a value that is one.
fn text(value: &Any<'_>) -> Option<String> {
    // Universal tags of X.680.
    const UTF8: u32 = 12;
    const ASCII: [u32; 4] = [18, 19, 20, 22];
    const BMP: u32 = 30;
    match value.tag().0 {
        UTF8 => String::from_utf8(value.data.to_vec()).ok(),
        tag if ASCII.contains(&tag) && value.data.is_ascii() => String::from_utf8(value.data.to_vec()).ok(),
        BMP => {
            let (pairs, []) = value.data.as_chunks::<2>() else { return None };
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// A value in DER.
fn der(value: &Any<'_>) -> Vec<u8> {
    x509_parser::asn1_rs::ToDer::to_der_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    fn certificate(names: &[(DnType, DnValue)]) -> Subject {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(made.der()).unwrap();
        Subject::of(parsed.subject())
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn a_subject_is_the_same_in_either_order_and_however_it_is_written() {
        let of = certificate(&[
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::OrganizationName, utf8("Example, Inc. + \"Söhne\" ")),
            (DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99_999, 7]), utf8("rack 4")),
            (DnType::CommonName, utf8("hv1")),
        ]);
        let shown = of.to_string();
        assert_eq!(shown, r#"CN=hv1,1.3.6.1.4.1.99999.7=rack 4,O=Example\, Inc. \+ \"Söhne\"\ ,C=DE"#);
        for same in [
            shown.as_str(),
            r#"C=DE, O=Example\, Inc. \+ \"S\C3\B6hne\"\20, OID.1.3.6.1.4.1.99999.7=rack 4, CN=hv1"#,
            r#"cn = hv1 ; 1.3.6.1.4.1.99999.7 = #0C067261636B2034 ; o = "Example, Inc. + \"Söhne\" " ; c = DE"#,
            r#"commonName=hv1,1.3.6.1.4.1.99999.7=#0c067261636b2034,organizationName=Example\, Inc. \+ \"Söhne\"\ ,countryName=DE"#,
        ] {
            let written = Subject::parse(same).unwrap();
            assert!(written.is(&of) && of.is(&written), "{same}");
        }
        for other in [
            "CN=hv1",
            r#"CN=hv2,1.3.6.1.4.1.99999.7=rack 4,O=Example\, Inc. \+ \"Söhne\"\ ,C=DE"#,
            r#"CN=hv1,1.3.6.1.4.1.99999.8=rack 4,O=Example\, Inc. \+ \"Söhne\"\ ,C=DE"#,
            r#"CN=hv1,1.3.6.1.4.1.99999.7=rack 4,O=Example\, Inc. \+ \"Söhne\",C=DE"#,
            r#"O=Example\, Inc. \+ \"Söhne\"\ ,CN=hv1,1.3.6.1.4.1.99999.7=rack 4,C=DE"#,
            r#"CN=hv1+1.3.6.1.4.1.99999.7=rack 4,O=Example\, Inc. \+ \"Söhne\"\ ,C=DE"#,
            r#"CN=hv1,1.3.6.1.4.1.99999.7=rack 4,O=Example\, Inc. \+ \"Söhne\"\ ,C=DE,C=DE"#,
        ] {
            assert!(!Subject::parse(other).unwrap().is(&of), "{other}");
        }
    }

    #[test]
    fn an_escaped_comma_begins_no_attribute_and_values_keep_their_case() {
        // A certificate that says it is of two attributes, in one.
        let sly = certificate(&[(DnType::CommonName, utf8("hv1,O=Example"))]);
        assert!(!Subject::parse("CN=hv1,O=Example").unwrap().is(&sly));
        assert!(Subject::parse(r"CN=hv1\,O\=Example").unwrap().is(&sly));
        let plain = certificate(&[(DnType::CommonName, utf8("hv1"))]);
        assert!(!Subject::parse("CN=HV1").unwrap().is(&plain));
        let none = certificate(&[]);
        assert!(none.is_empty() && !none.is(&none));
        // What a terminal would obey, or not show.
        let rude = certificate(&[(DnType::CommonName, utf8("a\u{1b}[2J\u{202e}b\n"))]);
        assert_eq!(rude.to_string(), r"CN=a\1B[2J\E2\80\AEb\0A");
        assert!(Subject::parse(&rude.to_string()).unwrap().is(&rude));
    }

    #[test]
    fn parts_of_several_attributes_are_the_same_in_any_order() {
        let parse = |text| Subject::parse(text).unwrap();
        assert!(parse("CN=a+UID=7,O=x").is(&parse("O=x, UID=7 + CN=a")));
        assert!(!parse("CN=a+UID=7,O=x").is(&parse("CN=a+CN=a,O=x")));
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for (text, says) in [
            ("", "has no ="),
            ("hv1", "has no ="),
            ("CN=hv1,", "has no ="),
            ("KN=hv1", "no type"),
            ("1..2=x", "no type"),
            ("CN=#0", "no hexadecimal"),
            ("CN=\"hv1", "not closed"),
            ("CN=\"hv1\"x", "behind a closed quote"),
            ("CN=hv1\\", "behind its last"),
            ("CN=\\ff", "no UTF-8"),
        ] {
            let error = Subject::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
