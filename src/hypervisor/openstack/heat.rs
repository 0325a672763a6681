//! The template for Heat: ports, volumes and the machine, of images that are there already.
//!
//! Source: the specification of Heat's templates and its resource types. Heat uploads no file: the images are parameters.
//! Deliberately absent: security groups; Neutron's default counts.

use super::write::{Port, Volume, short};
use crate::hypervisor::fit;
use crate::hypervisor::yaml;
use crate::machine::Machine;
use serde_json::{Map, Value, json};

/// The template.
pub(super) fn template(
    machine: &Machine,
    name: &str,
    volumes: &[Volume],
    ports: &[Port],
    volume_type: Option<&str>,
) -> String {
    let mut parameters = Map::new();
    let mut resources = Map::new();
    parameters.insert(
        "flavor".into(),
        json!({
            "type": "string",
            "description": format!(
                "A flavor with {} processors and {} MiB of memory",
                machine.cpus.count,
                fit::mebibytes(machine.memory)
            ),
            "constraints": [{ "custom_constraint": "nova.flavor" }],
        }),
    );
    let mut networks = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let parameter = format!("network_{index}");
        let mut network = json!({ "type": "string", "description": format!("Network of {}", port.name) });
        network["constraints"] = json!([{ "custom_constraint": "neutron.network" }]);
        if let Some(chosen) = &port.network {
            network["default"] = json!(chosen);
        }
        let mut properties = json!({
            "name": port.name,
            "network": { "get_param": parameter },
            "admin_state_up": port.connected,
        });
        if let Some(mac) = &port.mac {
            properties["mac_address"] = json!(mac);
        }
        parameters.insert(parameter, network);
        let resource = format!("port_{index}");
        networks.push(json!({ "port": { "get_resource": resource } }));
        resources.insert(resource, json!({ "type": "OS::Neutron::Port", "properties": properties }));
    }
    let mut mapping: Vec<Value> = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let parameter = format!("image_{index}");
        parameters.insert(
            parameter.clone(),
            json!({
                "type": "string",
                "description": format!("Image made of {} with the properties in image-properties.json", volume.file),
                "constraints": [{ "custom_constraint": "glance.image" }],
            }),
        );
        let resource = format!("volume_{index}");
        mapping.push(json!({
            "volume_id": { "get_resource": resource },
            "boot_index": if index == 0 { 0 } else { -1 },
            "disk_bus": volume.bus,
            "device_type": "disk",
            "delete_on_termination": false,
        }));
        let mut properties =
            json!({ "name": volume.name, "size": volume.gibibytes, "image": { "get_param": parameter } });
        if let Some(kind) = volume_type {
            properties["volume_type"] = json!(kind);
        }
        resources.insert(resource, json!({ "type": "OS::Cinder::Volume", "properties": properties }));
    }
    let mut server = json!({
        "name": name,
        "flavor": { "get_param": "flavor" },
        "block_device_mapping_v2": mapping,
        "config_drive": false,
    });
    if !networks.is_empty() {
        server["networks"] = json!(networks);
    }
    // A server of Heat has no description of its own.
    let mut metadata = Map::new();
    if let Some(text) = machine.annotation.as_deref().filter(|text| !text.is_empty()) {
        metadata.insert("description".into(), json!(short(text)));
    }
    if !machine.tags.is_empty() {
        metadata.insert("tags".into(), json!(short(&machine.tags.join(","))));
    }
    if !metadata.is_empty() {
        server["metadata"] = json!(metadata);
    }
    resources.insert("server".into(), json!({ "type": "OS::Nova::Server", "properties": server }));
    // Heat knows the versions of its templates as dates in text.
    yaml::document(&json!({
        "heat_template_version": "2018-08-31",
        "description": machine.annotation.clone().unwrap_or_else(|| name.to_owned()),
        "parameters": parameters,
        "resources": resources,
    }))
}
