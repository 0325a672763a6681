//! NoCloud (cloud-init's documentation, "NoCloud" and "Network configuration"): a file system called `cidata`.
//!
//! | document | taken |
//! |---|---|
//! | `meta-data` (YAML or JSON) | `instance-id`, `local-hostname`, `hostname`, `public-keys` |
//! | `user-data` | see [`user_data`](super::user_data) |
//! | `network-config`, versions 1 and 2 | see [`network`] |
//!
//! Deliberately absent: `vendor-data`, `network-interfaces` in `meta-data`, and `seedfrom`: nothing is fetched.

mod network;

use super::Given;
use super::draft::{Draft, text};
use landfall_boot::linux::yaml::{self, Value};
use landfall_image::{Error, Result};

/// The documents, as far as they are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Documents<'a> {
    /// `meta-data`
    pub meta: &'a [u8],
    /// `user-data`
    pub user: &'a [u8],
    /// `network-config`
    pub network: &'a [u8],
}

/// What the documents say.
///
/// # Errors
/// Refused or corrupt where `meta-data` is no YAML, or too large: it says whose documents they are.
pub fn parse(documents: Documents<'_>) -> Result<Given> {
    let mut draft = Draft::default();
    let meta = yaml::resolved(text("meta-data", documents.meta)?)
        .map_err(|why| Error::corrupt(format!("meta-data: {why}")))?;
    let of = |key: &str| meta.get(key).and_then(Value::text).filter(|text| !text.is_empty());
    let host = of("local-hostname").or_else(|| of("hostname"));
    if let Some(name) = host {
        draft.settings.hostname = draft.value("meta-data: local-hostname", name);
    }
    for entry in meta.entries() {
        match entry.key.as_str() {
            "instance-id" | "instance_id" | "local-hostname" | "hostname" | "dsmode" => {}
            "public-keys" | "public_keys" => keys(&mut draft, &entry.value),
            key => draft.unread(key),
        }
    }
    super::user_data::read(&mut draft, documents.user);
    if !documents.network.is_empty() {
        match text("network-config", documents.network).and_then(|text| {
            yaml::resolved(text).map_err(|why| Error::corrupt(format!("network-config: {why}")))
        }) {
            Ok(root) => network::read(&mut draft, &root),
            Err(error) => draft.network_is_wrong("the network is not set as given", &error),
        }
    }
    let instance = of("instance-id").or_else(|| of("instance_id"));
    Ok(draft.finish("NoCloud", instance, &[documents.meta, documents.user, documents.network]))
}

/// A list, one key, or keys by their names.
fn keys(draft: &mut Draft, value: &Value) {
    let named = value.entries().iter().map(|entry| &entry.value);
    let all = value.items().iter().chain(named.clone()).chain(named.flat_map(Value::items)).chain([value]);
    for text in all.filter_map(Value::text).flat_map(str::lines) {
        draft.ssh_key("meta-data: public-keys", text);
    }
}

#[cfg(test)]
mod tests;
