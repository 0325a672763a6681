//! The schemas of the JSON documents that landfall prints, and of the TOML files that it is given (JSON Schema, draft 2020-12),
//! made from the types that print and read them.
//!
//! Deliberately absent: a schema for `schema` itself, and for files of other makers.

use crate::ops::appliance::Built;
use crate::ops::batch::{BatchReport, WrittenFleet};
use crate::ops::map::{MapChecked, WrittenMap};
use crate::proof::Proof;
use crate::receive::folder::manifest::Manifest;
use crate::recovery::Recovery;
use crate::report::api::{
    Alarms, CertificateTrusted, CertificateWritten, Certificates, MachineShown, PointSet, PointShown,
    TokenMade, Tokens, Told, Verification,
};
use crate::report::failure::{Explained, Failed};
use crate::report::images::{Conversions, ImageInfo, ImageMap, ImageServed, ImagesChecked, ImagesCompared};
use crate::report::protection::{History, Points, Status};
use crate::report::receiving::{PointExported, Pulled, ReceivedStreams, Scanned};
use crate::report::recovery::{Ended, Prepared, Recovered, Recoveries};
use crate::report::registration::Registration;
use crate::report::sending::{HeldShown, Seeded, Sending};
use crate::report::serving::ServeChecked;
use crate::report::{Converted, Inspected, VERSION};
use crate::service::config::Written;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};

/// A document's schema.
pub struct Row {
    /// Its name: the verb, or `error` for what every verb prints where it fails.
    pub name: &'static str,
    /// In one line, what it is.
    pub says: &'static str,
    make: fn() -> Schema,
}

/// All of them, by name.
pub const TABLE: &[Row] = &[
    row::<Alarms>("alarms", "what is wrong now, and what was"),
    row::<Built>("appliance-build", "images of the appliance that were built"),
    row::<BatchReport>("batch", "what became of a fleet; also batch-report.json beside the machines"),
    row::<CertificateWritten>("certificate", "a certificate that was handed out, and its folder"),
    row::<CertificateTrusted>(
        "certificate-trust",
        "the authority of a service, and whether it is trusted now",
    ),
    row::<Certificates>("certificates", "the certificates that a service has handed out"),
    row::<Converted>("convert", "a machine that was converted; also report.json beside it"),
    row::<ImagesChecked>("disk-check", "structures of images that were checked"),
    row::<ImagesCompared>("disk-compare", "whether two images hold the same"),
    row::<Conversions>("disk-convert", "images that were converted"),
    row::<ImageInfo>("disk-info", "an image, its layers and partitions"),
    row::<ImageMap>("disk-map", "which runs of a disk hold data"),
    row::<ImageServed>("disk-serve", "what was served, when it has ended"),
    file::<Manifest>("drop-manifest", "landfall.json, the manifest of a drop in a watched folder"),
    row::<Failed>("error", "any verb that did not do what was asked"),
    row::<History>("evidence", "what was seen of a machine's points, signed"),
    row::<Explained>("explain", "what can be found, and what to do about it"),
    row::<PointExported>("export-point", "a recovery point that was exported as an RBD diff"),
    file::<WrittenFleet>("fleet-file", "the TOML file of landfall batch"),
    row::<HeldShown>("give-up", "what a machine holds of another landfall, after a send was given up"),
    row::<Inspected>("inspect", "a machine, its disks, its guest, and what would be changed"),
    row::<MapChecked>("map-check", "what the rules of a map say"),
    file::<WrittenMap>("map-file", "the TOML file of --map"),
    row::<PointShown>("point", "a recovery point, with what a recovery needs"),
    row::<Points>("points", "the recovery points of a machine"),
    row::<MachineShown>("protect", "a protected machine, and where its disks are sent; also status MACHINE"),
    row::<Proof>("prove", "a trial boot; also proof.json beside the evidence"),
    row::<Scanned>("receive-folder", "what became of the drops in a watched folder"),
    row::<Pulled>("receive-pull", "disks that were pulled from NBD exports"),
    row::<ReceivedStreams>("receive-rbd", "RBD streams that were taken"),
    row::<Recovered>("recover", "a machine that was recovered; also report.json beside it"),
    row::<Ended>("recover-end", "what became of a recovery: commit, rollback, remove, resume"),
    row::<Recoveries>("recover-list", "the recoveries that there are"),
    row::<Prepared>("recover-prepare", "a point that was patched ahead"),
    row::<Recovery>("recovery-file", "recovery.json beside a machine that was recovered"),
    row::<Registration>(
        "register",
        "what came of a registration; also `registration` in what convert --register prints",
    ),
    row::<Seeded>("seed", "a seed that was written"),
    row::<Sending>("send", "a point that was sent to another landfall, or a seed that was taken"),
    row::<ServeChecked>("serve-check", "what the service's file means"),
    file::<Written>("serve-file", "the TOML file of landfall serve"),
    row::<PointSet>("set-point", "a recovery point that was set or named"),
    row::<Status>("status", "how well everything is protected, and what is wrong"),
    row::<TokenMade>("token", "a token that was made, with its secret"),
    row::<Tokens>("tokens", "the tokens of a service, without their secrets"),
    row::<Verification>("verify", "the verification of a recovery point"),
    row::<Told>("webhook", "what the webhook of alarms gets"),
];

const fn row<T: JsonSchema>(name: &'static str, says: &'static str) -> Row {
    Row { name, says, make: make::<T> }
}

const fn file<T: JsonSchema>(name: &'static str, says: &'static str) -> Row {
    Row { name, says, make: make_read::<T> }
}

/// As it is read: only what it cannot do without is required. A key that is not there has no value; TOML has no `null`.
fn make_read<T: JsonSchema>() -> Schema {
    let without_default = |schema: &mut Schema| drop(schema.remove("default"));
    let settings = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(plain))
        .with_transform(RecursiveTransform(without_default));
    settings.into_generator().into_root_schema_for::<T>()
}

/// As it is written, not as it could be read: fields that are always there are required.
fn make<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(RecursiveTransform(plain));
    settings.into_generator().into_root_schema_for::<T>()
}

/// Descriptions come from the documentation of the code: without its line ends and links.
pub(crate) fn plain(schema: &mut Schema) {
    let Some(text) = schema.get("description").and_then(|text| text.as_str()) else { return };
    let mut out = String::new();
    for (index, part) in text.replace('\n', " ").split("[`").enumerate() {
        match part.split_once("`]") {
            Some((name, rest)) if index > 0 => {
                // A link may name its place behind it.
                let rest =
                    rest.strip_prefix('(').and_then(|rest| Some(rest.split_once(')')?.1)).unwrap_or(rest);
                out.push_str(&format!("`{name}`{rest}"));
            }
            _ => out.push_str(part),
        }
    }
    schema.insert("description".into(), out.into());
}

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

impl Row {
    /// The schema.
    pub fn schema(&self) -> serde_json::Value {
        let mut schema = (self.make)();
        let title = format!("landfall {}, version {VERSION}", self.name);
        schema.insert("title".into(), title.into());
        schema.to_value()
    }

    /// The schema as it is printed and kept in `schemas/`.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.schema())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_every_field_is_described() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for row in TABLE {
            let mut bare = Vec::new();
            undescribed(&row.schema(), row.name, &mut bare);
            assert!(bare.is_empty(), "without a description: {bare:?}");
            assert!(!row.text().contains("[`"), "{}: a link of the code's documentation", row.name);
        }
    }

    fn undescribed(schema: &serde_json::Value, at: &str, out: &mut Vec<String>) {
        let Some(map) = schema.as_object() else { return };
        if let Some(properties) = map.get("properties").and_then(|properties| properties.as_object()) {
            let fields = properties.values().filter(|field| field.get("const").is_none()).count();
            for (name, field) in properties {
                // A variant's only field, beside its name, has the variant's description.
                let is_variant = fields == 1 && map.contains_key("description");
                if field.get("description").is_none() && field.get("const").is_none() && !is_variant {
                    out.push(format!("{at}.{name}"));
                }
            }
        }
        for (name, inner) in map {
            match inner {
                serde_json::Value::Object(_) => undescribed(inner, &format!("{at}.{name}"), out),
                serde_json::Value::Array(list) => list.iter().for_each(|inner| undescribed(inner, at, out)),
                _ => {}
            }
        }
    }
}
