//! `landfall certificate`

use super::Run;
use super::shown::{Side, table};
use crate::cli::args::CertificateVerb;
use crate::cli::text::say;
use crate::ops::certificate;
use crate::receive::rights::Rights;
use landfall_image::Result;
use std::path::PathBuf;

pub fn run(run: &Run<'_>, verb: &CertificateVerb) -> Result<u8> {
    match verb {
        CertificateVerb::Trust { service, fingerprint, output } => {
            let trusted = certificate::trust(service, *fingerprint, output)?;
            run.show(&trusted, |trusted| match &trusted.file {
                Some(file) => format!("{file}\n"),
                None => format!(
                    "The authority of {service} has the SHA-256\n  {}\nCompare it with the one on the appliance's console. Only if they are the same:\n  \
                     landfall certificate trust {service} --fingerprint {}\n",
                    trusted.fingerprint, trusted.fingerprint
                ),
            })?;
            // Nothing is trusted yet: whoever runs it in a script has to notice.
            return Ok(u8::from(trusted.file.is_none()));
        }
        CertificateVerb::Add { name, send, recover, output, at } => {
            let send = match send.is_empty() && recover.is_empty() {
                true => vec!["*".to_owned()],
                false => send.clone(),
            };
            let rights = Rights { send, recover: recover.clone() };
            let folder = output.clone().unwrap_or_else(|| PathBuf::from(name));
            let written = certificate::add(&run.service(at)?, name, rights, &folder)?;
            run.show(&written, |written| format!("{}\n", written.folder))?;
            if !run.as_json {
                say(&format!(
                    "{name} may {}. The key in {}/client-key.pem is nowhere else.",
                    may(&written.certificate.rights),
                    written.folder
                ));
            }
        }
        CertificateVerb::List { at } => {
            let all = run.service(at)?.certificates()?;
            run.show(&all, |all| {
                let rows: Vec<[String; 4]> = all
                    .certificates
                    .iter()
                    .map(|one| {
                        let state = match one.taken_back {
                            Some(at) => format!("taken back {at}"),
                            None => may(&one.rights),
                        };
                        let short: String = one.sha256.chars().take(16).collect();
                        [one.name.clone(), one.made.to_string(), short, state]
                    })
                    .collect();
                match rows.is_empty() {
                    true => "No certificate was handed out.\n".to_owned(),
                    false => table(
                        [
                            ("NAME", Side::Left),
                            ("MADE", Side::Left),
                            ("SHA-256", Side::Left),
                            ("MAY", Side::Left),
                        ],
                        &rows,
                        30,
                    ),
                }
            })?;
        }
        CertificateVerb::Remove { name, at } => {
            run.service(at)?.remove_certificate(name)?;
            if !run.as_json {
                say(&format!(
                    "The certificate {name:?} lets nobody in any longer. Connections that are open go on; restart the service to end them."
                ));
            }
        }
    }
    Ok(0)
}

/// What it allows, for people.
fn may(rights: &Rights) -> String {
    let what = |verb: &str, patterns: &[String]| match patterns {
        [] => None,
        [one] if one == "*" => Some(format!("{verb} all machines")),
        _ => Some(format!("{verb} {}", patterns.join(", "))),
    };
    let all: Vec<String> =
        [what("send", &rights.send), what("recover", &rights.recover)].into_iter().flatten().collect();
    all.join("; ")
}
