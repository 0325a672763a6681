//! Hardware addresses in the registry: where Windows keeps them for an adapter, and in the names of its device.
//!
//! ```text
//! Control\NetworkSetup2\Interfaces\{GUID}\Kernel   PermanentAddress, CurrentAddress   Windows 10 and later
//! Control\Nsi\{eb004a11-…}\10                      row of the adapter                 Windows 7 and 8
//! …\000C29FFFFF3FFDE00                             serial number of a PCI Express card in its device's instance
//! ```
//! A card of PCI Express says a serial number of 64 bits (PCI Express Base Specification, "Device Serial Number"), which e1000e
//! and vmxnet3 of VMware make of the hardware address by putting FFFF into its middle; Windows ends it with the function's
//! number. Compared with a hive that has all of it.

use super::super::registry::Registry;
use crate::Result;

/// `00:0c:29:f3:ff:de`; `None` for what is no address of one card.
pub fn from_octets(octets: &[u8]) -> Option<String> {
    let is_one = octets.len() == 6 && octets.iter().any(|octet| *octet != 0) && octets[0] & 1 == 0;
    let text: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    is_one.then(|| text.join(":"))
}

/// `000C29F3FFDE` or `00-0C-29-F3-FF-DE`, as people write it into the driver's settings.
pub fn from_text(text: &str) -> Option<String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !b":- ".contains(byte)).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_whole = digits.len() == 12 && digits.iter().all(u8::is_ascii_hexdigit);
    let octets: Option<Vec<u8>> = digits.chunks_exact(2).map(pair).collect();
    octets.filter(|_| is_whole).and_then(|octets| from_octets(&octets))
}

/// The address in the instance of a PCI Express card.
pub fn from_device(device: &str) -> Option<String> {
    let (id, instance) = device.rsplit_once('\\')?;
    let is_serial = id.to_ascii_uppercase().starts_with("PCI\\") && matches!(instance.len(), 16 | 18);
    let middle = instance.get(6..10)?.to_ascii_uppercase();
    if !is_serial || !["FFFF", "FFFE"].contains(&middle.as_str()) {
        return None;
    }
    from_text(&format!("{}{}", instance.get(..6)?, instance.get(10..16)?))
}

/// What Windows 10 and later keep of the adapter.
pub fn from_setup(registry: &Registry, key: &str) -> Result<Option<String>> {
    for name in ["PermanentAddress", "CurrentAddress"] {
        if let Some(mac) = registry.value(key, name)?.and_then(|data| from_octets(&data.bytes)) {
            return Ok(Some(mac));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_every_spelling() {
        let mac = Some("00:0c:29:f3:ff:de");
        assert_eq!(from_text("000C29F3FFDE").as_deref(), mac);
        assert_eq!(from_text("00-0c-29-F3-FF-DE").as_deref(), mac);
        let device = r"PCI\VEN_8086&DEV_10D3&SUBSYS_07D015AD&REV_00\000C29FFFFF3FFDE00";
        assert_eq!(from_device(device).as_deref(), mac);
        for none in [
            "",
            "000C29F3FFD",
            "000C29F3FFDEE",
            "010C29F3FFDE",
            "000000000000",
            "zz0C29F3FFDE",
            "é00C29F3FFD",
        ] {
            assert_eq!(from_text(none), None, "{none}");
        }
        for none in [
            r"PCI\VEN_8086&DEV_100F&SUBSYS_075015AD&REV_01\4&B70F118&0&0888",
            r"USB\VID_0B95&PID_7720\000C29FFFFF3FFDE00",
            r"PCI\x\000C29ABCDF3FFDE00",
            "000C29FFFFF3FFDE00",
            r"PCI\x\é00C29FFFFF3FFD",
        ] {
            assert_eq!(from_device(none), None, "{none}");
        }
    }
}
