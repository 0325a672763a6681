//! `landfall token`

use super::Run;
use super::shown::{Side, table};
use crate::cli::args::TokenVerb;
use crate::cli::text::say;
use crate::report::api::Role;
use landfall_image::Result;

pub fn run(run: &Run<'_>, verb: &TokenVerb) -> Result<u8> {
    match verb {
        TokenVerb::Add { name, role, at } => {
            let role = Role::parse(role).unwrap_or(Role::Read);
            let made = run.service(at)?.make_token(name, role)?;
            // Alone on standard output: it can be piped to where it belongs.
            run.show(&made, |made| format!("{}\n", made.secret))?;
            if !run.as_json {
                say(&format!(
                    "{name} may {}. This is shown once: keep it where it is used, as LANDFALL_TOKEN.",
                    may(role)
                ));
            }
        }
        TokenVerb::List { at } => {
            let tokens = run.service(at)?.tokens()?;
            run.show(&tokens, |tokens| {
                let rows: Vec<[String; 4]> = tokens
                    .tokens
                    .iter()
                    .map(|token| {
                        let made = token.made.to_string();
                        [token.name.clone(), token.role.name().to_owned(), made, may(token.role).to_owned()]
                    })
                    .collect();
                match rows.is_empty() {
                    true => "There is no token: only this machine reaches the service.\n".to_owned(),
                    false => table(
                        [
                            ("NAME", Side::Left),
                            ("ROLE", Side::Left),
                            ("MADE", Side::Left),
                            ("MAY", Side::Left),
                        ],
                        &rows,
                        30,
                    ),
                }
            })?;
        }
        TokenVerb::Remove { name, at } => {
            run.service(at)?.remove_token(name)?;
            if !run.as_json {
                say(&format!("The token {name:?} opens nothing any longer."));
            }
        }
    }
    Ok(0)
}

fn may(role: Role) -> &'static str {
    match role {
        Role::Read => "look",
        Role::Operate => "look, protect, set and name points",
        Role::Admin => "do everything",
    }
}
