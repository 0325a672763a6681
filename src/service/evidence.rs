//! Evidence that can be shown to others: each piece is signed, and names the one before it, so that none can be changed or left out without
//! being noticed.
//!
//! ```text
//! statement 1 -> SHA-256 -+    statement: what was tried and seen, as JSON
//! statement 2 <-----------+    signature: Ed25519 (RFC 8032) of the statement's bytes
//!   `-> SHA-256 -> statement 3 …
//! ```
//! The key lies in the vault's folder and is made with the first statement. Whoever has it could write another history: its public half is
//! to be noted down elsewhere, and compared. The last statements of a history can be left out unnoticed by who does not have a later one.

use crate::moment::Moment;
use crate::report::protection::{Evidence, History, Signed, Statement};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::{Error, Result};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Its file's name, in the vault's folder.
pub const KEY: &str = "evidence.key";

/// What signs.
pub struct Signer(Ed25519KeyPair);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.public()).finish()
    }
}

impl Signer {
    /// The key in a file, which is made where it is not there.
    ///
    /// # Errors
    /// As the file's; corrupt where it is none.
    pub fn open(path: &Path) -> Result<Signer> {
        let failed = |doing: &str| {
            let doing = doing.to_owned();
            move |error| Error::io(doing, error).in_file(path)
        };
        let raw = match std::fs::read(path) {
            Ok(raw) => Zeroizing::new(raw),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| Error::io("no random numbers can be had", ErrorKind::Other.into()))?;
                // As a whole or not at all.
                let new = path.with_extension("key.new");
                let mut options = std::fs::OpenOptions::new();
                let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
                let mut file = file.map_err(failed("cannot make"))?;
                file.write_all(made.as_ref()).map_err(failed("cannot write"))?;
                file.sync_all().map_err(failed("cannot write"))?;
                std::fs::rename(&new, path).map_err(failed("cannot make"))?;
                Zeroizing::new(made.as_ref().to_vec())
            }
            Err(error) => return Err(failed("cannot read")(error)),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&raw).map_err(|error| {
            Error::corrupt(format!("is no key to sign evidence with: {error}"))
                .in_file(path)
                .hint("bring it back from a copy of the vault, or move it away: another one is made, and what the old one signed is checked with its public half")
        })?;
        Ok(Signer(pair))
    }

    /// The public half, in base64.
    pub fn public(&self) -> String {
        STANDARD.encode(self.0.public_key().as_ref())
    }

    /// The next statement, behind `last`.
    ///
    /// # Errors
    /// Where it cannot be written down.
    pub fn next(
        &self,
        last: Option<&Signed>,
        machine: (&str, &Uuid),
        point: u64,
        evidence: &Evidence,
    ) -> Result<Signed> {
        let (number, previous) = match last {
            Some(last) => (read(last)?.number + 1, Some(digest(&last.statement))),
            None => (1, None),
        };
        let (name, id) = machine;
        let statement = Statement {
            number,
            machine: name.to_owned(),
            id: *id,
            point,
            evidence: evidence.clone(),
            signed: Moment::now(),
            previous,
        };
        let text = serde_json::to_string(&statement)
            .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
        let signature = STANDARD.encode(self.0.sign(text.as_bytes()).as_ref());
        Ok(Signed { key: self.public(), statement: text, signature })
    }
}

fn digest(statement: &str) -> String {
    Sha256::digest(statement.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(signed: &Signed) -> Result<Statement> {
    serde_json::from_str(&signed.statement)
        .map_err(|error| Error::corrupt(format!("a statement cannot be read: {error}")))
}

/// Checks a history: its statements, in their order.
///
/// # Errors
/// Corrupt where a statement is not what was signed, is not signed with `key` (where that is given), or is missing.
pub fn check(history: &History, key: Option<&str>) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    let mut previous = None;
    for (number, signed) in (1..).zip(&history.statements) {
        let wrong = |says: &str| {
            Error::corrupt(format!("statement {number} of {}: {says}", history.machine))
                .hint("this is no evidence any more; compare it with an earlier copy")
        };
        if key.is_some_and(|key| key != signed.key) {
            return Err(wrong(&format!("it is signed with another key, {}", signed.key)));
        }
        let decoded = STANDARD.decode(&signed.key).ok().zip(STANDARD.decode(&signed.signature).ok());
        let (public, signature) = decoded.ok_or_else(|| wrong("its key or signature is none"))?;
        UnparsedPublicKey::new(&ED25519, public)
            .verify(signed.statement.as_bytes(), &signature)
            .map_err(|_| wrong("it is not what was signed"))?;
        let statement = read(signed)?;
        if statement.machine != history.machine {
            return Err(wrong(&format!("it is of another machine, {}", statement.machine)));
        }
        if statement.number != number || statement.previous != previous {
            return Err(wrong("it does not follow the one before it: some are missing, or in another order"));
        }
        previous = Some(digest(&signed.statement));
        statements.push(statement);
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::VERSION;
    use crate::report::protection::Proven;

    fn evidence(says: &str) -> Evidence {
        Evidence {
            at: Moment(5),
            target: "kvm".into(),
            outcome: Proven::Booted,
            says: says.into(),
            seconds_to_login: None,
            accelerator: None,
            folder: "f".into(),
        }
    }

    fn history(signer: &Signer, count: usize) -> History {
        let mut statements: Vec<Signed> = Vec::new();
        for number in 0..count {
            let next =
                signer.next(statements.last(), ("web01", &Uuid::nil()), 7, &evidence(&number.to_string()));
            statements.push(next.unwrap());
        }
        History { version: VERSION, machine: "web01".into(), statements }
    }

    #[test]
    fn a_history_is_checked_and_nothing_of_it_can_be_changed_or_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::open(&dir.path().join(KEY)).unwrap();
        let good = history(&signer, 4);
        assert_eq!(check(&good, Some(&signer.public())).unwrap().len(), 4);
        assert!(check(&history(&signer, 0), None).unwrap().is_empty());
        let wrong = |change: &dyn Fn(&mut Vec<Signed>)| {
            let mut bad = good.clone();
            change(&mut bad.statements);
            check(&bad, None).unwrap_err().to_string()
        };
        assert!(
            wrong(&|all| all[2].statement = all[2].statement.replace("booted", "stopped"))
                .contains("statement 3")
        );
        assert!(wrong(&|all| drop(all.remove(1))).contains("does not follow"));
        assert!(wrong(&|all| drop(all.remove(0))).contains("statement 1"));
        assert!(wrong(&|all| all.swap(1, 2)).contains("does not follow"));
        // One with the same number, signed for something else.
        let mut others: Vec<Signed> = Vec::new();
        for _ in 0..2 {
            others.push(signer.next(others.last(), ("web01", &Uuid::nil()), 9, &evidence("other")).unwrap());
        }
        assert!(wrong(&|all| all[1] = others[1].clone()).contains("does not follow"));
        let foreign = signer.next(None, ("db", &Uuid::nil()), 9, &evidence("x")).unwrap();
        assert!(wrong(&|all| all[0] = foreign.clone()).contains("another machine"));
        assert!(wrong(&|all| all[3].signature.clear()).contains("statement 4"));
        // Another key signs what it likes.
        let other = Signer::open(&dir.path().join("other.key")).unwrap();
        let forged = history(&other, 4);
        assert!(check(&forged, None).is_ok());
        assert!(check(&forged, Some(&signer.public())).unwrap_err().to_string().contains("another key"));
    }

    #[test]
    fn the_key_stays_and_nobody_else_reads_it() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY);
        let first = Signer::open(&path).unwrap().public();
        assert_eq!(Signer::open(&path).unwrap().public(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::write(&path, "x").unwrap();
        let error = Signer::open(&path).unwrap_err();
        assert!(error.hint_text().is_some() && error.to_string().contains("evidence.key"), "{error}");
    }
}
