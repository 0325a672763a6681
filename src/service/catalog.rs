//! What the service keeps beside the vault, in SQLite: tokens, names that were given to points later, points that were given up by
//! hand, evidence of proofs, certificates that were handed out ([`super::certificates`]), and a log of alarms.
//!
//! Absent: everything that a recovery needs, which is in the vault itself. A catalog that is lost or damaged is set aside and begun anew.

use super::evidence::{KEY, Signer};
use crate::moment::Moment;
use crate::report::api::{Change, Event, Role, Token, Verdict, Verification, Verified};
use crate::report::protection::{Alarm, Evidence, ProvenPoint, Signed};
use landfall_image::{Error, Result};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The tables, as they came to be: one text for each version.
const VERSIONS: [&str; 6] = [
    "
    CREATE TABLE token (
        name TEXT PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, role TEXT NOT NULL, made INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE tag (
        machine BLOB NOT NULL, point INTEGER NOT NULL, tag TEXT NOT NULL, made INTEGER NOT NULL,
        PRIMARY KEY (machine, point)
    ) STRICT;
    CREATE TABLE given_up (
        machine BLOB NOT NULL, point INTEGER NOT NULL, made INTEGER NOT NULL, PRIMARY KEY (machine, point)
    ) STRICT;
    CREATE TABLE evidence (
        machine BLOB NOT NULL, point INTEGER NOT NULL, document TEXT NOT NULL, made INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX evidence_of ON evidence (machine, point);
    CREATE TABLE event (
        at INTEGER NOT NULL, began INTEGER NOT NULL, id TEXT NOT NULL, machine TEXT, document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX event_at ON event (at);
",
    "
    CREATE TABLE verification (
        machine BLOB NOT NULL, point INTEGER NOT NULL, verdict TEXT NOT NULL, document TEXT NOT NULL, made INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX verification_of ON verification (machine, point);
",
    "
    CREATE TABLE sent (
        machine BLOB NOT NULL, place TEXT NOT NULL, point INTEGER NOT NULL, made INTEGER NOT NULL, PRIMARY KEY (machine, place)
    ) STRICT;
",
    "
    ALTER TABLE evidence ADD COLUMN signed TEXT;
    CREATE TRIGGER evidence_stays BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is only ever added to'); END;
    CREATE TRIGGER evidence_is_as_it_was BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is only ever added to'); END;
",
    // 0: the webhook has to be told; 1: it was; nothing: there was none.
    "
    ALTER TABLE event ADD COLUMN told INTEGER;
    CREATE INDEX event_to_tell ON event (told) WHERE told = 0;
",
    "
    CREATE TABLE certificate (
        sha256 BLOB PRIMARY KEY, key_sha256 BLOB NOT NULL, name TEXT NOT NULL, rights TEXT NOT NULL, made INTEGER NOT NULL, taken_back INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX certificate_name ON certificate (name) WHERE taken_back IS NULL;
    CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), believed INTEGER NOT NULL, latest INTEGER NOT NULL, ahead INTEGER NOT NULL) STRICT;
",
];

/// Its file's name, in the vault's folder.
pub const CATALOG: &str = "catalog.db";
/// Events that are kept.
const EVENTS_AT_MOST: i64 = 100_000;
/// Verifications of one point that are kept, besides the first.
const VERIFICATIONS_AT_MOST: i64 = 10;

/// The catalog.
#[derive(Debug)]
pub struct Catalog {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl Catalog {
    /// Opens the catalog at `path`, or makes it. The second value tells where a damaged one was set aside.
    ///
    /// # Errors
    /// Where neither works; unsupported where a later version wrote it.
    pub fn open(path: &Path) -> Result<(Catalog, Option<PathBuf>)> {
        match Catalog::open_sound(path) {
            Ok(catalog) => Ok((catalog, None)),
            Err(error) if error.kind() == landfall_image::Kind::Corrupt => {
                let aside = path.with_extension(format!("damaged-{}", Uuid::new_v4().simple()));
                std::fs::rename(path, &aside)
                    .map_err(|error| Error::io("cannot set aside", error).in_file(path))?;
                for more in ["-wal", "-shm"] {
                    drop(std::fs::remove_file(with_more(path, more)));
                }
                Ok((Catalog::open_sound(path)?, Some(aside)))
            }
            Err(error) => Err(error),
        }
    }

    fn open_sound(path: &Path) -> Result<Catalog> {
        let failed = |error| failed(path, error);
        let connection = Connection::open(path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        let sound: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if sound != "ok" {
            return Err(Error::corrupt(format!("the catalog is damaged: {sound}")).in_file(path));
        }
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        if version > VERSIONS.len() {
            return Err(Error::unsupported(format!(
                "a catalog of version {version}; this program knows {}",
                VERSIONS.len()
            ))
            .in_file(path)
            .hint("use the version of landfall that wrote it, or a later one"));
        }
        for (number, text) in VERSIONS.iter().enumerate().skip(version) {
            let step = format!("BEGIN IMMEDIATE; {text} PRAGMA user_version = {}; COMMIT;", number + 1);
            connection.execute_batch(&step).map_err(failed)?;
        }
        Ok(Catalog { connection: Mutex::new(connection), path: path.to_owned() })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.connection()).map_err(|error| failed(&self.path, error))
    }

    /// Hands out a token. Only the SHA-256 of its secret is kept.
    ///
    /// # Errors
    /// Refused where there is one of that name.
    pub fn add_token(&self, name: &str, sha256: &[u8; 32], role: Role) -> Result<()> {
        let insert = "INSERT OR IGNORE INTO token (name, sha256, role, made) VALUES (?1, ?2, ?3, ?4)";
        let made =
            self.with(|c| c.execute(insert, params![name, sha256, role.name(), signed(Moment::now().0)]))?;
        match made {
            0 => Err(Error::refused(format!("there is a token {name:?}"))
                .hint("take it back first, or choose another name")),
            _ => Ok(()),
        }
    }

    /// Takes a token back; false where there is none of that name.
    ///
    /// # Errors
    /// As the file's.
    pub fn remove_token(&self, name: &str) -> Result<bool> {
        Ok(self.with(|c| c.execute("DELETE FROM token WHERE name = ?1", [name]))? > 0)
    }

    /// The tokens by name.
    ///
    /// # Errors
    /// As the file's.
    pub fn tokens(&self) -> Result<Vec<Token>> {
        self.with(|c| {
            let mut found = c.prepare("SELECT name, role, made FROM token ORDER BY name")?;
            let tokens = found.query_map([], |row| {
                let (name, role, made): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Token { name, role: Role::parse(&role).unwrap_or(Role::Read), made: moment(made) })
            })?;
            tokens.collect()
        })
    }

    /// What the token with that secret's SHA-256 allows, and whose it is.
    ///
    /// # Errors
    /// As the file's.
    pub fn token(&self, sha256: &[u8; 32]) -> Result<Option<(String, Role)>> {
        let find = "SELECT name, role FROM token WHERE sha256 = ?1";
        let found: Option<(String, String)> =
            self.with(|c| c.query_row(find, [sha256], |row| Ok((row.get(0)?, row.get(1)?))).optional())?;
        Ok(found.and_then(|(name, role)| Some((name, Role::parse(&role)?))))
    }

    /// Names a point, which is kept from then on; with `None`, takes back the name that it was given here.
    ///
    /// # Errors
    /// As the file's.
    pub fn tag(&self, machine: &Uuid, point: u64, tag: Option<&str>) -> Result<()> {
        let (machine, point) = (machine.as_bytes(), signed(point));
        self.with(|c| match tag {
            None => c.execute("DELETE FROM tag WHERE machine = ?1 AND point = ?2", params![machine, point]),
            Some(tag) => c.execute(
                "INSERT OR REPLACE INTO tag (machine, point, tag, made) VALUES (?1, ?2, ?3, ?4)",
                params![machine, point, tag, signed(Moment::now().0)],
            ),
        })
        .map(drop)
    }

    /// The names that were given to points of a machine. An empty one takes back the name that the point was set with.
    ///
    /// # Errors
    /// As the file's.
    pub fn tags(&self, machine: &Uuid) -> Result<BTreeMap<u64, String>> {
        self.with(|c| {
            let mut found = c.prepare("SELECT point, tag FROM tag WHERE machine = ?1")?;
            let tags =
                found.query_map([machine.as_bytes()], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))?;
            tags.collect()
        })
    }

    /// Keeps which point of a machine another landfall holds.
    ///
    /// # Errors
    /// As the file's.
    pub fn set_sent(&self, machine: &Uuid, place: &str, point: u64) -> Result<()> {
        let insert = "INSERT OR REPLACE INTO sent (machine, place, point, made) VALUES (?1, ?2, ?3, ?4)";
        self.with(|c| {
            c.execute(insert, params![machine.as_bytes(), place, signed(point), signed(Moment::now().0)])
        })
        .map(drop)
    }

    /// The points of a machine that other landfalls hold, by their places, and when they were brought there.
    ///
    /// # Errors
    /// As the file's.
    pub fn sent(&self, machine: &Uuid) -> Result<BTreeMap<String, (u64, Moment)>> {
        self.with(|c| {
            let mut found = c.prepare("SELECT place, point, made FROM sent WHERE machine = ?1")?;
            let sent = found.query_map([machine.as_bytes()], |row| {
                Ok((row.get(0)?, (unsigned(row.get(1)?), Moment(unsigned(row.get(2)?)))))
            })?;
            sent.collect()
        })
    }

    /// Gives up a point by hand.
    ///
    /// # Errors
    /// As the file's.
    pub fn give_up(&self, machine: &Uuid, point: u64) -> Result<()> {
        let insert = "INSERT OR REPLACE INTO given_up (machine, point, made) VALUES (?1, ?2, ?3)";
        self.with(|c| c.execute(insert, params![machine.as_bytes(), signed(point), signed(Moment::now().0)]))
            .map(drop)
    }

    /// Points of a machine that were given up by hand.
    ///
    /// # Errors
    /// As the file's.
    pub fn given_up(&self, machine: &Uuid) -> Result<BTreeSet<u64>> {
        self.with(|c| {
            let mut found = c.prepare("SELECT point FROM given_up WHERE machine = ?1")?;
            let points = found.query_map([machine.as_bytes()], |row| Ok(unsigned(row.get(0)?)))?;
            points.collect()
        })
    }

    /// Forgets what it says of points up to a record, which are gone.
    ///
    /// # Errors
    /// As the file's.
    pub fn forget_through(&self, machine: &Uuid, through: u64) -> Result<()> {
        self.with(|c| {
            for table in ["tag", "given_up", "verification"] {
                let delete = format!("DELETE FROM {table} WHERE machine = ?1 AND point <= ?2");
                c.execute(&delete, params![machine.as_bytes(), signed(through)])?;
            }
            Ok(())
        })
    }

    /// Keeps what a proof of a point showed, signed. It is only ever added to.
    ///
    /// # Errors
    /// As the file's, and the key's.
    pub fn add_evidence(&self, name: &str, machine: &Uuid, point: u64, evidence: &Evidence) -> Result<()> {
        let signer = Signer::open(&self.path.with_file_name(KEY))?;
        // One at a time: each names the one before it.
        let connection = self.connection();
        let failed = |error| failed(&self.path, error);
        let last = signed_of(&connection, machine).map_err(failed)?.pop();
        let last = last.map(|text| parsed::<Signed>(&text)).transpose()?;
        let next = signer.next(last.as_ref(), (name, machine), point, evidence)?;
        let insert =
            "INSERT INTO evidence (machine, point, document, made, signed) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values =
            params![machine.as_bytes(), signed(point), text(evidence)?, signed(evidence.at.0), text(&next)?];
        connection.execute(insert, values).map_err(failed).map(drop)
    }

    /// All evidence of a machine as it was signed, in its order.
    ///
    /// # Errors
    /// As the file's; corrupt where it cannot be read.
    pub fn signed(&self, machine: &Uuid) -> Result<Vec<Signed>> {
        let all = self.with(|c| signed_of(c, machine))?;
        all.iter().map(|text| parsed(text)).collect()
    }

    /// All evidence of a machine that can be read, the oldest first.
    ///
    /// # Errors
    /// As the file's.
    pub fn proofs(&self, machine: &Uuid) -> Result<Vec<ProvenPoint>> {
        let all: Vec<(u64, String)> = self.with(|c| {
            let mut found =
                c.prepare("SELECT point, document FROM evidence WHERE machine = ?1 ORDER BY made, rowid")?;
            let rows =
                found.query_map([machine.as_bytes()], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))?;
            rows.collect()
        })?;
        let read = |(point, document): (u64, String)| {
            Some(ProvenPoint { point, evidence: serde_json::from_str(&document).ok()? })
        };
        Ok(all.into_iter().filter_map(read).collect())
    }

    /// The last evidence for each point of a machine.
    ///
    /// # Errors
    /// As the file's.
    pub fn evidence(&self, machine: &Uuid) -> Result<BTreeMap<u64, Evidence>> {
        Ok(self.proofs(machine)?.into_iter().map(|proof| (proof.point, proof.evidence)).collect())
    }

    /// Keeps what came of a verification.
    ///
    /// # Errors
    /// As the file's.
    pub fn add_verification(&self, machine: &Uuid, done: &Verification, verdict: Verdict) -> Result<()> {
        let insert =
            "INSERT INTO verification (machine, point, verdict, document, made) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (machine, point, document) = (machine.as_bytes(), signed(done.point), text(done)?);
        let made = done.ended.unwrap_or_else(Moment::now);
        self.with(|c| {
            c.execute(insert, params![machine, point, verdict.name(), document, signed(made.0)])?;
            // The first is what later ones are compared with.
            let old = "DELETE FROM verification WHERE machine = ?1 AND point = ?2
                AND rowid NOT IN (SELECT rowid FROM verification WHERE machine = ?1 AND point = ?2 ORDER BY rowid DESC LIMIT ?3)
                AND rowid IS NOT (SELECT min(rowid) FROM verification WHERE machine = ?1 AND point = ?2 AND verdict = 'matched')";
            c.execute(old, params![machine, point, VERIFICATIONS_AT_MOST])
        })
        .map(drop)
    }

    /// What came of the verifications of a point, the first that is kept first.
    ///
    /// # Errors
    /// As the file's.
    pub fn verifications(&self, machine: &Uuid, point: u64) -> Result<Vec<Verification>> {
        let all: Vec<String> = self.with(|c| {
            let find = "SELECT document FROM verification WHERE machine = ?1 AND point = ?2 ORDER BY rowid";
            let mut found = c.prepare(find)?;
            let rows = found.query_map(params![machine.as_bytes(), signed(point)], |row| row.get(0))?;
            rows.collect()
        })?;
        Ok(all.iter().filter_map(|document| serde_json::from_str(document).ok()).collect())
    }

    /// What came of the last verification of each point of a machine.
    ///
    /// # Errors
    /// As the file's.
    pub fn verified(&self, machine: &Uuid) -> Result<BTreeMap<u64, Verified>> {
        let all: Vec<(u64, String, i64)> = self.with(|c| {
            let mut found =
                c.prepare("SELECT point, verdict, made FROM verification WHERE machine = ?1 ORDER BY rowid")?;
            let rows = found.query_map([machine.as_bytes()], |row| {
                Ok((unsigned(row.get(0)?), row.get(1)?, row.get(2)?))
            })?;
            rows.collect()
        })?;
        let read = |(point, verdict, made): (u64, String, i64)| {
            Some((point, Verified { at: moment(made), verdict: Verdict::parse(&verdict)? }))
        };
        Ok(all.into_iter().filter_map(read).collect())
    }

    /// Points of a machine whose last verification that could be made did not match.
    ///
    /// # Errors
    /// As the file's.
    pub fn differed(&self, machine: &Uuid) -> Result<BTreeSet<u64>> {
        let all: Vec<(u64, String)> = self.with(|c| {
            let mut found =
                c.prepare("SELECT point, verdict FROM verification WHERE machine = ?1 ORDER BY rowid")?;
            let rows =
                found.query_map([machine.as_bytes()], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))?;
            rows.collect()
        })?;
        let mut differed = BTreeSet::new();
        for (point, verdict) in all {
            match Verdict::parse(&verdict) {
                Some(Verdict::Differed) => drop(differed.insert(point)),
                Some(Verdict::Matched) => drop(differed.remove(&point)),
                Some(Verdict::CouldNotRun) | None => {}
            }
        }
        Ok(differed)
    }

    /// Writes down that an alarm began or ended, and whether the webhook has to be told. Gives the event's number.
    ///
    /// # Errors
    /// As the file's.
    pub fn add_event(&self, event: &Event, to_tell: bool) -> Result<i64> {
        let Event { at, change, alarm } = event;
        let insert =
            "INSERT INTO event (at, began, id, machine, document, told) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (document, told) = (text(alarm)?, to_tell.then_some(0));
        self.with(|c| {
            c.execute(
                insert,
                params![signed(at.0), *change == Change::Began, alarm.id, alarm.machine, document, told],
            )?;
            let number = c.last_insert_rowid();
            let old = "DELETE FROM event WHERE rowid <= (SELECT max(rowid) FROM event) - ?1";
            c.execute(old, [EVENTS_AT_MOST])?;
            Ok(number)
        })
    }

    /// The webhook was told of an event.
    ///
    /// # Errors
    /// As the file's.
    pub fn told(&self, number: i64) -> Result<()> {
        self.with(|c| c.execute("UPDATE event SET told = 1 WHERE rowid = ?1", [number])).map(drop)
    }

    /// Events that the webhook has to be told, the oldest first, each with its number: those that it was not told, and alarms that are on
    /// since there was none.
    ///
    /// # Errors
    /// As the file's.
    pub fn to_tell(&self, at_most: usize) -> Result<Vec<(i64, Event)>> {
        let all: Vec<(i64, i64, bool, String)> = self.with(|c| {
            let news = format!("UPDATE event SET told = 0 WHERE told IS NULL AND {ON}");
            c.execute(&news, [])?;
            let find =
                "SELECT rowid, at, began, document FROM event WHERE told = 0 ORDER BY rowid DESC LIMIT ?1";
            let mut found = c.prepare(find)?;
            let rows = found.query_map([i64::try_from(at_most).unwrap_or(i64::MAX)], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
            rows.collect()
        })?;
        let read = |(number, at, began, document): (i64, i64, bool, String)| {
            Some((number, event(at, began, &document)?))
        };
        Ok(all.into_iter().rev().filter_map(read).collect())
    }

    /// Alarms that had begun and not ended when the service before this one did.
    ///
    /// # Errors
    /// As the file's.
    pub fn alarms_on(&self) -> Result<Vec<Alarm>> {
        let all: Vec<String> = self.with(|c| {
            let mut found = c.prepare(&format!("SELECT document FROM event WHERE {ON} ORDER BY rowid"))?;
            let rows = found.query_map([], |row| row.get(0))?;
            rows.collect()
        })?;
        Ok(all.iter().filter_map(|document| serde_json::from_str(document).ok()).collect())
    }

    /// The last alarms that began or ended, the newest first.
    ///
    /// # Errors
    /// As the file's.
    pub fn events(&self, at_most: u32) -> Result<Vec<Event>> {
        let all: Vec<(i64, bool, String)> = self.with(|c| {
            let mut found =
                c.prepare("SELECT at, began, document FROM event ORDER BY rowid DESC LIMIT ?1")?;
            let rows = found.query_map([at_most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })?;
        let read = |(at, began, document): (i64, bool, String)| event(at, began, &document);
        Ok(all.into_iter().filter_map(read).collect())
    }
}

/// Which rows are the last of their alarm, and say that it began.
const ON: &str = "began = 1 AND rowid IN (SELECT max(rowid) FROM event GROUP BY id, machine)";

fn event(at: i64, began: bool, document: &str) -> Option<Event> {
    let change = if began { Change::Began } else { Change::Ended };
    Some(Event { at: moment(at), change, alarm: serde_json::from_str(document).ok()? })
}

fn with_more(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::refused(format!("cannot be written down: {error}")))
}

/// SQLite's integers have a sign; ours are far from where it matters.
/// The signed evidence of a machine, in its order.
fn signed_of(connection: &Connection, machine: &Uuid) -> rusqlite::Result<Vec<String>> {
    let find = "SELECT signed FROM evidence WHERE machine = ?1 AND signed IS NOT NULL ORDER BY rowid";
    let mut found = connection.prepare(find)?;
    let rows = found.query_map([machine.as_bytes()], |row| row.get(0))?;
    rows.collect()
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::corrupt(format!("the catalog holds what cannot be read: {error}")))
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn moment(number: i64) -> Moment {
    Moment(unsigned(number))
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let is_corrupt = matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase));
    let error = match is_corrupt {
        true => Error::corrupt(format!("the catalog is damaged: {error}")),
        false => Error::io("the catalog cannot be used", std::io::Error::other(error)),
    };
    error.in_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::protection::{History, Proven};
    use crate::service::evidence::check;

    #[test]
    fn what_is_kept_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let evidence = |outcome, at| Evidence {
            at: Moment(at),
            target: "kvm".into(),
            outcome,
            says: "x".into(),
            seconds_to_login: Some(9.5),
            accelerator: None,
            folder: "f".into(),
        };
        {
            let (catalog, aside) = Catalog::open(&path).unwrap();
            assert_eq!(aside, None);
            catalog.add_token("ops", &[1; 32], Role::Operate).unwrap();
            assert!(catalog.add_token("ops", &[2; 32], Role::Read).unwrap_err().hint_text().is_some());
            catalog.tag(&one, 7, Some("before")).unwrap();
            catalog.tag(&one, 9, Some("after")).unwrap();
            catalog.tag(&other, 7, Some("x")).unwrap();
            catalog.give_up(&one, 8).unwrap();
            catalog.add_evidence("web01", &one, 9, &evidence(Proven::Stopped, 1)).unwrap();
            catalog.add_evidence("web01", &one, 9, &evidence(Proven::Booted, 2)).unwrap();
            catalog.add_evidence("db", &other, 9, &evidence(Proven::Booted, 2)).unwrap();
        }
        let (catalog, _) = Catalog::open(&path).unwrap();
        assert_eq!(catalog.token(&[1; 32]).unwrap(), Some(("ops".into(), Role::Operate)));
        assert_eq!(catalog.token(&[2; 32]).unwrap(), None);
        assert_eq!(
            catalog.tags(&one).unwrap().into_iter().collect::<Vec<_>>(),
            [(7, "before".into()), (9, "after".into())]
        );
        assert_eq!(catalog.given_up(&one).unwrap().into_iter().collect::<Vec<_>>(), [8]);
        assert_eq!(catalog.evidence(&one).unwrap()[&9].outcome, Proven::Booted);
        let history =
            History { version: 1, machine: "web01".into(), statements: catalog.signed(&one).unwrap() };
        assert_eq!(check(&history, None).unwrap().len(), 2);
        // Not even by hand.
        for statement in ["DELETE FROM evidence", "UPDATE evidence SET document = ''"] {
            assert!(catalog.with(|c| c.execute_batch(statement)).is_err(), "{statement}");
        }
        catalog.forget_through(&one, 8).unwrap();
        assert_eq!(catalog.tags(&one).unwrap().len(), 1);
        assert_eq!(catalog.tags(&other).unwrap().len(), 1);
        assert!(catalog.given_up(&one).unwrap().is_empty());
        assert!(catalog.remove_token("ops").unwrap() && !catalog.remove_token("ops").unwrap());
    }

    #[test]
    fn what_was_on_and_what_was_not_told_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let event = |id: &str, machine: Option<&str>, change, at| Event {
            at: Moment(at),
            change,
            alarm: Alarm {
                id: id.into(),
                gravity: crate::report::protection::Gravity::Warning,
                machine: machine.map(str::to_owned),
                says: "s".into(),
                remedy: "r".into(),
                since: Moment(at),
            },
        };
        let (began, ended) = (Change::Began, Change::Ended);
        {
            let (catalog, _) = Catalog::open(&path).unwrap();
            // Without a webhook: what is over is never told.
            catalog.add_event(&event("a", Some("x"), began, 1), false).unwrap();
            catalog.add_event(&event("a", Some("x"), ended, 2), false).unwrap();
            catalog.add_event(&event("b", None, began, 3), false).unwrap();
            assert_eq!(catalog.alarms_on().unwrap(), [event("b", None, began, 3).alarm]);
        }
        let (catalog, _) = Catalog::open(&path).unwrap();
        let told: Vec<(i64, Event)> = catalog.to_tell(9).unwrap();
        assert_eq!(told.iter().map(|it| &it.1).collect::<Vec<_>>(), [&event("b", None, began, 3)]);
        catalog.told(told[0].0).unwrap();
        for (id, change, at) in [("a", began, 4), ("b", ended, 5), ("c", began, 6)] {
            catalog.add_event(&event(id, None, change, at), true).unwrap();
        }
        let numbers = |at_most| -> Vec<u64> {
            catalog.to_tell(at_most).unwrap().iter().map(|(_, event)| event.at.0).collect()
        };
        assert_eq!(numbers(9), [4, 5, 6], "also what is over: it was told that it began");
        assert_eq!(numbers(2), [5, 6]);
        let on: Vec<String> = catalog.alarms_on().unwrap().into_iter().map(|alarm| alarm.id).collect();
        assert_eq!(on, ["a", "c"]);
    }

    #[test]
    fn a_damaged_one_is_set_aside_and_a_later_one_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        std::fs::write(&path, [7; 9000]).unwrap();
        let (catalog, aside) = Catalog::open(&path).unwrap();
        assert_eq!(std::fs::read(aside.unwrap()).unwrap(), [7; 9000]);
        catalog.with(|c| c.execute_batch("PRAGMA user_version = 99")).unwrap();
        drop(catalog);
        assert_eq!(Catalog::open(&path).unwrap_err().kind(), landfall_image::Kind::Unsupported);
    }
}
