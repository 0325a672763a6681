//! Where at a vSphere a machine is to go: datacenter, host or cluster, resource pool, datastore, folder, networks; each by the
//! name that was given, or the only one that there is.

use super::inventory::{Object, choose};
use super::soap::{Ref, Session};
use crate::registrar::Wanted;
use landfall_image::{Bytes, Error, Result};

/// The place.
pub(super) struct Place {
    pub datacenter: Ref,
    /// Inventory path of the datacenter, without the root: what an upload names it by.
    pub datacenter_path: String,
    pub folder: Ref,
    pub pool: Ref,
    pub host: Option<Ref>,
    pub datastore: Ref,
    pub datastore_name: String,
    pub free: Bytes,
    /// Networks of the host or cluster: name and object.
    pub networks: Vec<(String, Ref)>,
    /// Where it is, for people.
    pub says: String,
}

impl Place {
    /// Looks it up.
    ///
    /// # Errors
    /// Refused, with the names to choose from, where something is not there or not said.
    pub(super) fn find(session: &Session, wanted: &Wanted) -> Result<Place> {
        let root = session.content.manager("rootFolder")?;
        let paths = ["name", "parent", "vmFolder", "hostFolder"];
        let datacenters = session.below(&root, "Datacenter", &paths)?;
        let datacenter = choose(&datacenters, wanted.datacenter.as_deref(), "datacenter", "--datacenter")?;
        let part = |path: &str| {
            datacenter.object(path).ok_or_else(|| Error::corrupt(format!("the datacenter has no {path}")))
        };
        let (host, compute) = compute(session, &part("hostFolder")?, wanted.host.as_deref())?;

        let root_pool = compute
            .object("resourcePool")
            .ok_or_else(|| Error::unsupported(format!("{} has no resource pool", compute.name())))?;
        let (pool, pool_name) = match &wanted.pool {
            None => (root_pool, None),
            Some(name) => {
                let pools = session.below(&root_pool, "ResourcePool", &["name"])?;
                let found = match name == "Resources" {
                    true => root_pool,
                    false => choose(&pools, Some(name), "resource pool", "--pool")?.reference.clone(),
                };
                (found, Some(name))
            }
        };

        // A host sees what it sees; of a cluster, what any of its hosts does.
        let seen_by = match &host {
            Some(host) => session.properties(host, &["datastore", "network"])?,
            None => session.properties(&compute.reference, &["datastore", "network"])?,
        };
        let paths = ["name", "summary.accessible", "summary.maintenanceMode", "summary.freeSpace"];
        let mut datastores = session.below(&datacenter.reference, "Datastore", &paths)?;
        let reachable = seen_by.objects("datastore");
        datastores.retain(|datastore| {
            let works = datastore.text("summary.accessible") == Some("true")
                && datastore.text("summary.maintenanceMode").is_none_or(|mode| mode == "normal");
            works && reachable.contains(&datastore.reference)
        });
        let datastore = choose(&datastores, wanted.datastore.as_deref(), "datastore", "--datastore")?;

        let all = session.below(&datacenter.reference, "Network", &["name"])?;
        let plugged = seen_by.objects("network");
        let networks = all.iter().filter(|network| plugged.contains(&network.reference));

        let vm_folder = part("vmFolder")?;
        let (folder, folder_name) = match &wanted.folder {
            None => (vm_folder, "vm".to_owned()),
            Some(path) => (folder(session, &vm_folder, path)?, path.clone()),
        };
        Ok(Place {
            datacenter: datacenter.reference.clone(),
            datacenter_path: path_of(session, datacenter)?,
            folder,
            pool,
            datastore: datastore.reference.clone(),
            datastore_name: datastore.name(),
            free: Bytes(datastore.text("summary.freeSpace").and_then(|text| text.parse().ok()).unwrap_or(0)),
            networks: networks.map(|network| (network.name(), network.reference.clone())).collect(),
            says: format!(
                "datacenter {}, {} {}, {}datastore {}, folder {folder_name}",
                datacenter.name(),
                if host.is_some() { "host" } else { "cluster" },
                wanted.host.clone().unwrap_or_else(|| compute.name()),
                pool_name.map(|name| format!("pool {name}, ")).unwrap_or_default(),
                datastore.name(),
            ),
            host,
        })
    }

    /// The address of a file of the datastore, for uploads.
    pub(super) fn url(&self, session: &Session, path: &str) -> String {
        let quoted = |text: &str| text.bytes().map(quote).collect::<String>();
        let path: Vec<String> = path.split('/').map(quoted).collect();
        format!(
            "https://{}/folder/{}?dcPath={}&dsName={}",
            session.authority,
            path.join("/"),
            quoted(&self.datacenter_path),
            quoted(&self.datastore_name)
        )
    }
}

/// A byte as an address has it.
fn quote(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

/// The host (where one was named, or is all that there is) and its cluster.
fn compute(session: &Session, folder: &Ref, name: Option<&str>) -> Result<(Option<Ref>, Object)> {
    let computes = session.below(folder, "ComputeResource", &["name", "resourcePool", "host"])?;
    let by_name = |name: &str| computes.iter().filter(|compute| compute.name() == name).count() == 1;
    let is_cluster = |compute: &Object| compute.reference.kind == "ClusterComputeResource";
    let compute = match name {
        // A host that stands alone has the name of the compute resource around it.
        Some(name) if !by_name(name) => {
            let hosts = session.below(folder, "HostSystem", &["name", "parent"])?;
            let all: Vec<Object> = hosts.iter().chain(&computes).cloned().collect();
            let host = choose(&all, Some(name), "host or cluster", "--host")?.clone();
            let around = host.object("parent");
            let around = computes.iter().find(|compute| Some(&compute.reference) == around.as_ref());
            let around = around.ok_or_else(|| Error::corrupt("the host is in no cluster and not alone"))?;
            return Ok((Some(host.reference), around.clone()));
        }
        name => choose(&computes, name, "host or cluster", "--host")?,
    };
    let host = if is_cluster(compute) { None } else { compute.objects("host").into_iter().next() };
    Ok((host, compute.clone()))
}

/// A folder of machines by its path below the datacenter's.
fn folder(session: &Session, top: &Ref, path: &str) -> Result<Ref> {
    let all = session.below(top, "Folder", &["name", "parent"])?;
    let mut at = top.clone();
    for name in path.trim_matches('/').trim_start_matches("vm/").split('/') {
        let inside: Vec<Object> =
            all.iter().filter(|folder| folder.object("parent").as_ref() == Some(&at)).cloned().collect();
        at = choose(&inside, Some(name), "folder", "--register-folder")?.reference.clone();
    }
    Ok(at)
}

/// `Folder/Datacenter`: the names from below the root.
fn path_of(session: &Session, datacenter: &Object) -> Result<String> {
    let root = session.content.manager("rootFolder")?;
    let mut names = vec![datacenter.text("name").unwrap_or_default().to_owned()];
    let mut above = datacenter.object("parent");
    while let Some(folder) = above.filter(|folder| *folder != root) {
        // No vCenter has as many levels; a server that goes in circles has.
        if names.len() > 64 {
            return Err(Error::corrupt("the server's folders go in circles"));
        }
        let found = session.properties(&folder, &["name", "parent"])?;
        names.push(found.text("name").unwrap_or_default().to_owned());
        above = found.object("parent");
    }
    names.reverse();
    Ok(names.join("/"))
}
