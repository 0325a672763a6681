//! Asks the service, and gives it orders: over its socket on this machine, or over HTTPS with a token.
//!
//! ```text
//! verb -> Service -> HTTP (ureq) -> api.sock | TLS -> the service's API
//! ```
//! What it answers are the documents of [`report::protection`](crate::report::protection) and [`report::api`](crate::report::api); what it
//! refuses is the same error as it would be here. A vault on
//! which no service works is asked in the same way ([`with_vault`]).

mod alone;
mod receiving;
mod replica;
mod wanted;

pub use alone::with_vault;
pub use wanted::{Asked, Said, wanted};

use crate::moment::Moment;
use crate::name::Name;
use crate::receive::content::Changed;
use crate::receive::rights::Rights;
use crate::report::api::{
    CertificateMade, Certificates, Events, HoldSet, Holds, MachineShown, MakeCertificate, MakeToken,
    PointSet, PointShown, Protect, Role, SetHold, SetPoint, SetRole, SetTag, TokenMade, Tokens, Verification,
    Verify,
};
use crate::report::protection::{Evidence, History, Points, Status};
use crate::transport::{Nowhere, SocketConnector, TlsConnector, trusting};
use landfall_image::nbd::TlsFiles;
use landfall_image::{Error, Kind, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body, http};
use zeroize::Zeroizing;

/// Where the service's socket is when nobody says otherwise.
pub const USUAL: &str = "/run/landfall/api.sock";
/// The port that HTTPS addresses have which name none.
const PORT: u16 = 8470;
/// Points of a machine, with their names.
const ANSWER: u64 = 256 << 20;
/// A service whose medium is busy takes its time.
const SILENCE: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(15);

/// Which service is meant, and how it lets one in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A socket's path, or `https://HOST[:PORT]`; without, the usual socket.
    pub service: Option<String>,
    /// The secret of a token, for HTTPS.
    pub token: Option<Zeroizing<String>>,
    /// The authority of its certificate, where it is none of the system's.
    pub ca: Option<PathBuf>,
}

/// The service, as it is asked.
pub struct Service {
    agent: Agent,
    /// What addresses begin with.
    base: String,
    /// For people.
    place: String,
    is_local: bool,
    token: Option<Zeroizing<String>>,
}

impl Service {
    /// The service that is meant; nothing is asked yet.
    ///
    /// # Errors
    /// Refused where the place is none, or no token is there for HTTPS.
    pub fn new(access: &Access) -> Result<Service> {
        Service::with_certificate(access, &TlsFiles::default())
    }

    /// As [`new`](Self::new), with a certificate of this side's own: another landfall's service wants one, and then no token.
    ///
    /// # Errors
    /// As [`new`](Self::new); where the files cannot be used.
    pub fn with_certificate(access: &Access, own: &TlsFiles) -> Result<Service> {
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .build();
        let place = access.service.as_deref().unwrap_or(USUAL);
        if let Some(rest) = place.strip_prefix("https://") {
            let authority = authority(rest)?;
            if access.token.is_none() && own.certificate.is_none() {
                return Err(Error::refused(format!("{place} needs a token")).hint(
                    "put its secret (lf_…) into LANDFALL_TOKEN; landfall token add makes one at the service",
                ));
            }
            let tls = match own.certificate {
                Some(_) => TlsFiles { ca: access.ca.clone(), ..own.clone() }.client()?,
                None => trusting(access.ca.as_deref())?,
            };
            let connector = ().chain(TcpConnector::default()).chain(TlsConnector(tls));
            return Ok(Service {
                agent: Agent::with_parts(config, connector, DefaultResolver::default()),
                base: format!("https://{authority}"),
                place: place.to_owned(),
                is_local: false,
                token: access.token.clone(),
            });
        }
        if place.contains("://") {
            return Err(Error::refused(format!("{place:?} is no place of a service"))
                .hint("name https://HOST:8470, or the path of its socket (api.sock)"));
        }
        let connector = SocketConnector(PathBuf::from(place));
        Ok(Service {
            agent: Agent::with_parts(config, connector, Nowhere),
            base: "http://localhost".to_owned(),
            place: place.to_owned(),
            is_local: true,
            token: None,
        })
    }

    /// How everything is.
    ///
    /// # Errors
    /// As the service's; I/O where it does not answer. So for all that follow.
    pub fn status(&self) -> Result<Status> {
        self.get("/v1/status")
    }

    /// A machine, and where its disks are sent to.
    ///
    /// # Errors
    /// Refused where there is none of that name.
    pub fn machine(&self, name: &Name) -> Result<MachineShown> {
        self.get(&machine_path(name))
    }

    /// Protects a machine, or changes what is protected of it.
    ///
    /// # Errors
    /// As [`Service::protect`](crate::service::Service::protect).
    pub fn protect(&self, name: &Name, wanted: &Protect) -> Result<MachineShown> {
        self.send("PUT", &machine_path(name), Some(wanted))
    }

    /// Takes a disk out of a machine.
    ///
    /// # Errors
    /// As [`Service::drop_disk`](crate::service::Service::drop_disk).
    pub fn drop_disk(&self, name: &Name, disk: &Name) -> Result<MachineShown> {
        self.send("DELETE", &format!("{}/disks/{}", machine_path(name), part(disk.as_str())), None::<&()>)
    }

    /// Takes a machine out of the vault, with all of its points.
    ///
    /// # Errors
    /// As [`Service::unprotect`](crate::service::Service::unprotect).
    pub fn unprotect(&self, name: &Name) -> Result<()> {
        self.run("DELETE", &format!("{}?points=delete", machine_path(name)), None::<&()>).map(drop)
    }

    /// Changes what a machine is.
    ///
    /// # Errors
    /// As [`Service::set_role`](crate::service::Service::set_role).
    pub fn set_role(&self, name: &Name, wanted: &SetRole) -> Result<MachineShown> {
        self.send("PUT", &format!("{}/role", machine_path(name)), Some(wanted))
    }

    /// Says that all disks of a machine are copied.
    ///
    /// # Errors
    /// As [`Service::ready`](crate::service::Service::ready).
    pub fn ready(&self, name: &Name) -> Result<PointSet> {
        self.send("POST", &format!("{}/ready", machine_path(name)), None::<&()>)
    }

    /// The points of a machine, of a span of time.
    ///
    /// # Errors
    /// Refused where there is no such machine.
    pub fn points(&self, name: &Name, since: Option<Moment>, until: Option<Moment>) -> Result<Points> {
        let precise = |moment: Moment| serde_json::to_value(moment).ok()?.as_str().map(part);
        let parameter = |name: &str, moment: Option<Moment>| Some(format!("{name}={}", precise(moment?)?));
        let query: Vec<String> =
            [parameter("since", since), parameter("until", until)].into_iter().flatten().collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        self.get(&format!("{}/points{query}", machine_path(name)))
    }

    /// Sets a point.
    ///
    /// # Errors
    /// As [`Service::checkpoint`](crate::service::Service::checkpoint).
    pub fn set_point(&self, name: &Name, wanted: &SetPoint) -> Result<PointSet> {
        self.send("POST", &format!("{}/points", machine_path(name)), Some(wanted))
    }

    /// A point: by its number, as `latest`, as `tag:NAME`, or by a moment.
    ///
    /// # Errors
    /// Refused where there is none.
    pub fn point(&self, name: &Name, which: &str) -> Result<PointShown> {
        self.get(&point_path(name, which))
    }

    /// The UEFI variables at a point.
    ///
    /// # Errors
    /// Refused where it has none.
    pub fn variables(&self, name: &Name, which: &str) -> Result<Vec<u8>> {
        let path = format!("{}/variables", point_path(name, which));
        self.run("GET", &path, None::<&()>)
    }

    /// Where a disk may differ between the point `since` and the later point `to`.
    ///
    /// # Errors
    /// Refused where the disk is not the same one at both, or there is no such point.
    pub fn changes(&self, name: &Name, disk: &str, since: u64, to: u64) -> Result<Changed> {
        let path = format!("{}/changes?disk={}&since={since}", point_path(name, &to.to_string()), part(disk));
        Changed::from_bytes(&self.run("GET", &path, None::<&()>)?)
    }

    /// Names a point, or takes its name back.
    ///
    /// # Errors
    /// As [`Service::tag`](crate::service::Service::tag).
    pub fn tag(&self, name: &Name, which: &str, tag: Option<&str>) -> Result<PointSet> {
        let wanted = SetTag { tag: tag.map(str::to_owned) };
        self.send("PUT", &format!("{}/tag", point_path(name, which)), Some(&wanted))
    }

    /// Holds a point for a recovered machine, or lets it go.
    ///
    /// # Errors
    /// Refused where there is none that could be held.
    pub fn hold(&self, name: &Name, number: u64, holder: &str, held: bool) -> Result<HoldSet> {
        let wanted = SetHold { holder: holder.to_owned(), held };
        self.send("PUT", &format!("{}/hold", point_path(name, &number.to_string())), Some(&wanted))
    }

    /// All that is held.
    ///
    /// # Errors
    /// As the service's.
    pub fn holds(&self) -> Result<Holds> {
        self.get("/v1/holds")
    }

    /// Attaches what a trial boot of a point showed to it.
    ///
    /// # Errors
    /// Refused where there is none.
    pub fn attach_proof(&self, name: &Name, number: u64, evidence: &Evidence) -> Result<PointSet> {
        self.send("POST", &format!("{}/proof", point_path(name, &number.to_string())), Some(evidence))
    }

    /// What trial boots of a machine's points showed, as it was signed.
    ///
    /// # Errors
    /// Refused where there is no such machine.
    pub fn evidence(&self, name: &Name) -> Result<History> {
        self.get(&format!("{}/evidence", machine_path(name)))
    }

    /// True for a service on this machine, asked over its socket.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// The host that the service is on, as it was named; `None` for a socket of this machine.
    pub fn host(&self) -> Option<String> {
        let is_remote = self.base.starts_with("https://");
        is_remote.then(|| host_and_port(&self.base).ok()).flatten().map(|(host, _)| host)
    }

    /// Gives a point up.
    ///
    /// # Errors
    /// As [`Service::give_up`](crate::service::Service::give_up).
    pub fn give_up(&self, name: &Name, number: u64) -> Result<()> {
        self.run("DELETE", &point_path(name, &number.to_string()), None::<&()>).map(drop)
    }

    /// Has a point verified.
    ///
    /// # Errors
    /// As [`Service::verify`](crate::service::Service::verify).
    pub fn verify(&self, name: &Name, which: &str, how: &Verify) -> Result<Verification> {
        self.send("POST", &format!("{}/verify", point_path(name, which)), Some(how))
    }

    /// How far the verification of a point is, or what came of the last.
    ///
    /// # Errors
    /// Refused where it was never verified.
    pub fn verification(&self, name: &Name, number: u64) -> Result<Verification> {
        self.get(&format!("{}/verify", point_path(name, &number.to_string())))
    }

    /// Alarms that began and ended, the newest first.
    ///
    /// # Errors
    /// As above.
    pub fn events(&self, at_most: u32) -> Result<Events> {
        self.get(&format!("/v1/events?at_most={at_most}"))
    }

    /// The tokens.
    ///
    /// # Errors
    /// As above.
    pub fn tokens(&self) -> Result<Tokens> {
        self.get("/v1/tokens")
    }

    /// Makes a token.
    ///
    /// # Errors
    /// Refused where there is one of that name.
    pub fn make_token(&self, name: &str, role: Role) -> Result<TokenMade> {
        self.send("POST", "/v1/tokens", Some(&MakeToken { name: name.to_owned(), role }))
    }

    /// Certificates that were handed out.
    ///
    /// # Errors
    /// As for all.
    pub fn certificates(&self) -> Result<Certificates> {
        self.get("/v1/certificates")
    }

    /// Hands out a certificate.
    ///
    /// # Errors
    /// Refused where the service has no authority of its own.
    pub fn make_certificate(&self, name: &str, rights: Rights) -> Result<CertificateMade> {
        self.send("POST", "/v1/certificates", Some(&MakeCertificate { name: name.to_owned(), rights }))
    }

    /// Takes a certificate back.
    ///
    /// # Errors
    /// Refused where none of that name is out.
    pub fn remove_certificate(&self, name: &str) -> Result<()> {
        self.run("DELETE", &format!("/v1/certificates/{}", part(name)), None::<&()>).map(drop)
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// Refused where there is none of that name.
    pub fn remove_token(&self, name: &str) -> Result<()> {
        self.run("DELETE", &format!("/v1/tokens/{}", part(name)), None::<&()>).map(drop)
    }

    fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A> {
        self.send("GET", path, None::<&()>)
    }

    fn send<A: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl serde::Serialize>,
    ) -> Result<A> {
        self.understood(&self.run(method, path, body)?)
    }

    fn understood<A: DeserializeOwned>(&self, answer: &[u8]) -> Result<A> {
        serde_json::from_slice(answer).map_err(|error| {
            Error::unsupported(format!("the answer of {} is not understood: {error}", self.place))
                .hint("use the version of landfall that the service has")
        })
    }

    fn run(&self, method: &str, path: &str, body: Option<&impl serde::Serialize>) -> Result<Vec<u8>> {
        let request = self.request(method, path);
        let answer = match body {
            Some(body) => {
                let text = serde_json::to_string(body)
                    .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
                let request = request.header("Content-Type", "application/json").body(text);
                self.agent.run(request.map_err(unusable)?)
            }
            None => self.agent.run(request.body(()).map_err(unusable)?),
        };
        self.answered(answer)
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {}", token.as_str())),
            None => request,
        }
    }

    /// What is answered, or what is refused.
    fn answered(&self, answer: std::result::Result<http::Response<Body>, ureq::Error>) -> Result<Vec<u8>> {
        let mut answer = answer.map_err(|error| self.failed(error))?;
        let bytes = content(&mut answer).map_err(|error| self.failed(error))?;
        match answer.status().is_success() {
            true => Ok(bytes),
            false => Err(self.refused(answer.status(), &bytes)),
        }
    }

    /// The service's own words.
    fn refused(&self, status: http::StatusCode, bytes: &[u8]) -> Error {
        #[derive(Deserialize)]
        struct Failed {
            error: Told,
        }
        #[derive(Deserialize)]
        struct Told {
            kind: Kind,
            text: String,
            hint: Option<String>,
        }
        match serde_json::from_slice::<Failed>(bytes) {
            Ok(Failed { error }) => {
                let told = Error::new(error.kind, error.text);
                match error.hint {
                    Some(hint) => told.hint(hint),
                    None => told,
                }
            }
            Err(_) => Error::new(
                Kind::Io,
                format!("{} answers {status}, and is no service of landfall", self.place),
            )
            .hint("name the service with --service"),
        }
    }

    fn failed(&self, error: ureq::Error) -> Error {
        let doing = format!("no service answers at {}", self.place);
        let error = match error {
            ureq::Error::Io(error) => error,
            ureq::Error::Timeout(_) => ErrorKind::TimedOut.into(),
            other => return Error::new(Kind::Io, format!("{doing}: {other}")).hint(self.hint(None)),
        };
        let hint = self.hint(Some(error.kind()));
        Error::io(doing, error).hint(hint)
    }

    fn hint(&self, kind: Option<ErrorKind>) -> String {
        match (self.is_local, kind) {
            (true, Some(ErrorKind::PermissionDenied)) => {
                "only root and the service's own user may: sudo, or a token over HTTPS (--service https://HOST:8470)".into()
            }
            (true, Some(ErrorKind::TimedOut)) => "look at the service's log: journalctl -u landfall".into(),
            (true, _) => format!(
                "start it: systemctl start landfall, or landfall serve; it may be elsewhere: --service /PATH/api.sock or --service https://HOST:{PORT}"
            ),
            (false, _) => format!(
                "look whether it runs, its [api] listen, the way there, and its certificate (--tls-ca names the authority); the port is {PORT} where none is named"
            ),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unusable(error: http::Error) -> Error {
    Error::refused(format!("this cannot be asked: {error}"))
}

fn content(answer: &mut http::Response<Body>) -> std::result::Result<Vec<u8>, ureq::Error> {
    answer.body_mut().with_config().limit(ANSWER).read_to_vec()
}

/// `HOST:PORT` of what stands behind `https://`.
fn authority(rest: &str) -> Result<String> {
    let rest = rest.trim_end_matches('/');
    let uri: Option<http::Uri> = format!("https://{rest}").parse().ok();
    let wrong =
        || Error::refused(format!("https://{rest} is no place of a service")).hint("write https://HOST:8470");
    let uri = uri.ok_or_else(wrong)?;
    let is_bare = uri.query().is_none() && matches!(uri.path(), "" | "/");
    let found = uri.authority().filter(|found| is_bare && !found.as_str().contains('@'));
    let found = found.ok_or_else(wrong)?;
    Ok(match found.port() {
        Some(_) => found.to_string(),
        None => format!("{found}:{PORT}"),
    })
}

/// The host and port of a service.
///
/// # Errors
/// Refused where it is no `https://HOST[:PORT]`.
pub fn host_and_port(service: &str) -> Result<(String, u16)> {
    let rest = service.strip_prefix("https://").unwrap_or(service);
    let wrong =
        || Error::refused(format!("{service} is no place of a service")).hint("write https://HOST:8470");
    let found = authority(rest)?;
    let (host, port) = found.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

fn machine_path(name: &Name) -> String {
    format!("/v1/machines/{}", part(name.as_str()))
}

fn point_path(name: &Name, which: &str) -> String {
    format!("{}/points/{}", machine_path(name), part(which))
}

/// A part of a path, or the value of a parameter: everything but what stands for itself is written as `%xx`.
fn part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The size and sector of a disk as they are given by hand, as something that can be protected.
///
/// # Errors
/// Refused where it is no `NAME=SIZE`.
pub fn wanted_disk(text: &str) -> Result<(Name, landfall_image::Bytes)> {
    let wrong = |says: String| Error::refused(says).hint("write NAME=SIZE: sda=40G");
    let (name, size) = text.split_once('=').ok_or_else(|| wrong(format!("{text:?} says no size")))?;
    let size = crate::ops::parse_size(size).map_err(wrong)?;
    Ok((name.parse()?, size))
}

/// What is in a file of UEFI variables.
///
/// # Errors
/// Where it cannot be read, or is too long to be one.
pub fn variables_file(path: &Path) -> Result<Vec<u8>> {
    /// Proxmox VE's lie on volumes of 4 MiB.
    const AT_MOST: u64 = 16 << 20;
    let source = landfall_image::Source::open(path)?;
    if source.len().0 > AT_MOST {
        return Err(Error::refused(format!(
            "has {}; UEFI variables have {AT_MOST} bytes at most",
            source.len()
        ))
        .in_file(path));
    }
    source.head(usize::try_from(source.len().0).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_sockets_or_https_and_nothing_else() {
        assert_eq!(authority("dr.example").unwrap(), "dr.example:8470");
        assert_eq!(authority("dr.example:1/").unwrap(), "dr.example:1");
        assert_eq!(authority("[::1]").unwrap(), "[::1]:8470");
        for bad in ["", "a/b", "u@h", "h?x", "a b"] {
            assert!(authority(bad).is_err(), "{bad}");
        }
        let new = |service: &str, token: Option<&str>| {
            let token = token.map(|token| Zeroizing::new(token.to_owned()));
            Service::new(&Access { service: Some(service.to_owned()), token, ca: None })
        };
        for (service, token) in [("http://h", Some("lf_1")), ("ftp://h", None), ("https://h", None)] {
            let error = new(service, token).err().unwrap();
            assert!(error.kind() == Kind::Refused && error.hint_text().is_some(), "{service}: {error}");
        }
        let absent = new("/nonexistent/api.sock", None).unwrap().status().unwrap_err();
        assert_eq!(absent.kind(), Kind::Io);
        assert!(absent.hint_text().unwrap().contains("landfall serve"), "{absent}");
        assert_eq!(part("web 01/sda@7"), "web%2001%2Fsda%407");
    }
}
