//! Where a key of the running registry lies in the files of a guest that does not run.

use super::Hive;

/// A key of a hive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub hive: Hive,
    /// Below the hive's root; empty for the root itself.
    pub key: String,
}

/// What is wrong, and the way out.
type Refusal = (String, &'static str);

/// Bounds of the registry: characters of UTF-16 in a name, and keys below each other.
const NAME_AT_MOST: usize = 255;
const DEPTH_AT_MOST: usize = 512;

const BY_USER: &str =
    "write it for HKEY_USERS\\.DEFAULT, or let a group policy or a script set it when the user logs on";

/// The place of a full path such as `HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\disk`.
pub(super) fn place(path: &str) -> Result<Place, Refusal> {
    let mut names = path.split('\\');
    let root = names.next().unwrap_or_default();
    let names: Vec<&str> = names.collect();
    if names.len() > DEPTH_AT_MOST {
        return Err((format!("more than {DEPTH_AT_MOST} keys below each other"), "shorten the path"));
    }
    for name in &names {
        if name.is_empty() {
            return Err((
                "the path has an empty name in it".into(),
                "write one \\ between two names, and none at the end",
            ));
        }
        if name.encode_utf16().count() > NAME_AT_MOST {
            return Err((format!("a key's name is longer than {NAME_AT_MOST} characters"), "shorten it"));
        }
    }
    let below = |from: usize| names.get(from..).unwrap_or_default().join("\\");
    let first = names.first().map(|name| name.to_ascii_uppercase());
    let first = first.as_deref().unwrap_or_default();
    let hive = match root.to_ascii_uppercase().as_str() {
        "HKEY_LOCAL_MACHINE" | "HKLM" => local_machine(first)?,
        "HKEY_USERS" | "HKU" => user(first)?,
        "HKEY_CLASSES_ROOT" | "HKCR" => {
            let key = if names.is_empty() { "Classes".to_owned() } else { format!("Classes\\{}", below(0)) };
            return Ok(Place { hive: Hive::Software, key });
        }
        "HKEY_CURRENT_USER" | "HKCU" => {
            return Err(("HKEY_CURRENT_USER is nobody's while no user is logged on".into(), BY_USER));
        }
        "HKEY_CURRENT_CONFIG" | "HKCC" => {
            return Err((
                "HKEY_CURRENT_CONFIG is made anew at each start".into(),
                "write it for HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Hardware Profiles\\0001",
            ));
        }
        _ => {
            return Err((
                format!("{:?} is no root of the registry", root.chars().take(40).collect::<String>()),
                "begin the key with HKEY_LOCAL_MACHINE\\SYSTEM or HKEY_LOCAL_MACHINE\\SOFTWARE",
            ));
        }
    };
    Ok(Place { hive, key: below(1) })
}

fn local_machine(name: &str) -> Result<Hive, Refusal> {
    Ok(match name {
        "SYSTEM" => Hive::System,
        "SOFTWARE" => Hive::Software,
        "SAM" => Hive::Sam,
        "SECURITY" => Hive::Security,
        "BCD00000000" => Hive::Boot,
        "" => {
            return Err((
                "HKEY_LOCAL_MACHINE itself is no hive".into(),
                "name a key below it, such as HKEY_LOCAL_MACHINE\\SOFTWARE",
            ));
        }
        "HARDWARE" => {
            return Err((
                "HKEY_LOCAL_MACHINE\\HARDWARE is made anew at each start, and lies in no file".into(),
                "leave the key out",
            ));
        }
        other => {
            return Err((
                format!(
                    "HKEY_LOCAL_MACHINE\\{} is no hive that Windows loads from its disk",
                    other.chars().take(40).collect::<String>()
                ),
                "name a key of SYSTEM, SOFTWARE, SAM, SECURITY or BCD00000000",
            ));
        }
    })
}

fn user(name: &str) -> Result<Hive, Refusal> {
    match name {
        ".DEFAULT" | "S-1-5-18" => Ok(Hive::Default),
        "S-1-5-19" => Ok(Hive::LocalService),
        "S-1-5-20" => Ok(Hive::NetworkService),
        _ => Err(("the hive of a user lies in the user's profile, which is not opened".into(), BY_USER)),
    }
}
