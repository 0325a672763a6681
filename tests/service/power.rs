//! The host loses its power: what was acknowledged and in no point may be gone, and no client's word is enough.

use super::*;
use crate::receive::{noise, read_all};
use landfall_image::GuestOffset;
use landfall_image::nbd::{Client, ClientOptions, Uri};

const SIZE: u64 = 2 << 20;

fn connect(site: &Site) -> Client {
    let uri = Uri::parse(&site.uri("web01/sda")).unwrap();
    Client::connect(&uri, &ClientOptions::default()).unwrap()
}

/// As after a loss of power: the host has started since, and what the service had not synced is gone.
fn lose_power(site: &mut Site) {
    site.kill();
    let running = site.path("vault/running");
    let mut said: serde_json::Value = serde_json::from_slice(&std::fs::read(&running).unwrap()).unwrap();
    said["boot_id"] = "another".into();
    std::fs::write(&running, said.to_string()).unwrap();
}

#[test]
fn after_a_loss_of_power_only_a_copy_of_the_whole_disk_makes_new_points() {
    let mut site =
        Site::new("[protect]\ncheckpoint = \"1s\"\nin_sync = \"flush\"\n[upkeep]\nevery = \"1h\"\n");
    site.protect("web01", &["sda"], SIZE);
    site.start();
    let client = connect(&site);
    let first = noise(1, usize::try_from(SIZE).unwrap());
    client.write_at(GuestOffset(0), &first).unwrap();
    client.flush().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    // It is in the journal, and may never get to the medium.
    client.write_at(GuestOffset(0), &[1; 4096]).unwrap();
    lose_power(&mut site);
    drop(client);
    site.start();
    assert!(site.log().contains("writes that were acknowledged may be missing"), "{}", site.log());
    // A backup of what has changed since.
    let client = connect(&site);
    client.write_at(GuestOffset(1 << 20), &[2; 65_536]).unwrap();
    client.flush().unwrap();
    drop(client);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(site.log().contains("was not sent as a whole since"), "{}", site.log());
    site.kill();
    let points = |site: &Site| -> Vec<Vec<u8>> {
        let (vault, _) = Vault::open(&site.path("vault")).unwrap();
        let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
        let points = machine.points().unwrap();
        points.iter().map(|point| of_point(&machine.at(point.sequence).unwrap(), "sda")).collect()
    };
    let before = points(&site);
    assert!(
        !before.is_empty() && before.iter().all(|content| *content == first),
        "what was published is there"
    );
    // And the whole disk.
    site.start();
    let client = connect(&site);
    let second = noise(2, usize::try_from(SIZE).unwrap());
    for (at, piece) in second.chunks(256 << 10).enumerate() {
        client.write_at(GuestOffset(at as u64 * (256 << 10)), piece).unwrap();
    }
    client.flush().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    client.write_at(GuestOffset(0), &[3; 512]).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let mut wanted = second.clone();
    assert!(read_all(&machine.live("sda").unwrap())[512..] == wanted[512..]);
    drop((machine, vault));
    let after = points(&site);
    assert!(after.len() > before.len() && after.contains(&second), "{} and {}", before.len(), after.len());
    wanted[..512].fill(3);
    assert!(after.last() == Some(&wanted));
}
