//! Calls to vSphere's web service: an envelope out, an answer or a fault back, within one login.
//!
//! Source: "vSphere Web Services API" (vim25): ServiceInstance, SessionManager, PropertyCollector, Task. Elements of a request
//! stand in the order of the data object's properties; the server refuses another order. Answers are trees
//! ([`crate::hypervisor::xml`]), whose `xsi:type` attributes keep their prefix.

use super::http::{Answer, Http};
use crate::hypervisor::xml::{self, Element, Xml, empty, parent, text};
use crate::registrar::credentials::Credentials;
use crate::trust::Trust;
use landfall_image::convert::Cancel;
use landfall_image::{Error, Kind, Result};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A managed object's reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ref {
    pub kind: String,
    pub id: String,
}

impl Ref {
    pub(super) fn new(kind: &str, id: &str) -> Ref {
        Ref { kind: kind.to_owned(), id: id.to_owned() }
    }

    /// Reads one: `<folder type="Folder">group-v3</folder>`.
    pub(super) fn of(element: &Element) -> Option<Ref> {
        let kind = element.attribute("type")?;
        (!element.text.is_empty()).then(|| Ref::new(kind, &element.text))
    }

    pub(super) fn write(&self, xml: &mut Xml, name: &str) -> io::Result<()> {
        text(xml, name, &[("type", &self.kind)], &self.id)
    }
}

/// What a call came to other than an answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server refuses it: the fault's type and its words.
    Fault {
        name: String,
        says: String,
    },
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Error(error)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Error(error) => error,
            Trouble::Fault { name, says } => fault_error(&name, says),
        }
    }
}

impl Trouble {
    pub(super) fn is_fault(&self, wanted: &str) -> bool {
        matches!(self, Trouble::Fault { name, .. } if name == wanted)
    }
}

/// A fault as an error: what the user has to change is refused, the rest is the server's failure.
pub(super) fn fault_error(name: &str, says: String) -> Error {
    match name {
        "InvalidLogin" => Error::refused("the server does not take this user name and password")
            .hint("check the credentials; users of a domain are written USER@DOMAIN, of vCenter's own USER@vsphere.local"),
        "NoPermission" => {
            Error::refused(says).hint("give the user a role with the privilege that the message names, on that object")
        }
        "RestrictedVersion" => Error::refused(says)
            .hint("the host's free licence allows reading only: register at its vCenter, or copy the files by hand"),
        "DuplicateName" | "AlreadyExists" | "FileAlreadyExists" | "InsufficientResourcesFault"
        | "NotEnoughLicenses" | "InvalidArgument" | "NotSupported" => Error::refused(says),
        _ => Error::new(Kind::Io, says),
    }
}

/// The objects that everything starts from.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    element: Element,
}

impl Content {
    /// `rootFolder`, `sessionManager`.
    ///
    /// # Errors
    /// Unsupported where the server has no such thing.
    pub(super) fn manager(&self, name: &str) -> Result<Ref> {
        let found = self.element.child(name).and_then(Ref::of);
        found.ok_or_else(|| Error::unsupported(format!("{} has no {name}", self.product())))
    }

    /// `VMware vCenter Server 8.0.2 build-1`.
    pub(super) fn product(&self) -> &str {
        self.element.text_at("about/fullName").unwrap_or("the server")
    }

    /// True for a vCenter, false for a host.
    pub(super) fn is_vcenter(&self) -> bool {
        self.element.text_at("about/apiType") == Some("VirtualCenter")
    }
}

/// A login.
pub(super) struct Session {
    pub http: Http,
    /// `vcenter.example:443`
    pub authority: String,
    pub content: Content,
    /// `urn:vim25/8.0.0.0`
    action: String,
    cookie: Mutex<Option<String>>,
}

const NAMESPACES: [(&str, &str); 3] = [
    ("xmlns:soapenv", "http://schemas.xmlsoap.org/soap/envelope/"),
    ("xmlns:xsd", "http://www.w3.org/2001/XMLSchema"),
    ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
];

impl Session {
    /// Connects and logs in.
    pub(super) fn open(authority: &str, trust: &Trust, credentials: &Credentials) -> Result<Session> {
        let mut session = Session::greet(authority, trust)?;
        session.log_in(credentials)?;
        Ok(session)
    }

    /// Connects, and learns which version is spoken.
    pub(super) fn greet(authority: &str, trust: &Trust) -> Result<Session> {
        let mut session = Session {
            http: Http::new(trust)?,
            authority: authority.to_owned(),
            content: Content::default(),
            action: "urn:vim25".to_owned(),
            cookie: Mutex::new(None),
        };
        let instance = Ref::new("ServiceInstance", "ServiceInstance");
        let answer = session.call("RetrieveServiceContent", &instance, |_| Ok(()))?;
        session.content.element = returned(&answer)?.clone();
        if let Some(version) = session.content.element.text_at("about/apiVersion") {
            session.action = format!("urn:vim25/{version}");
        }
        Ok(session)
    }

    fn log_in(&mut self, credentials: &Credentials) -> Result<()> {
        let manager = self.content.manager("sessionManager")?;
        self.call("Login", &manager, |xml| {
            text(xml, "userName", &[], &credentials.user)?;
            text(xml, "password", &[], &credentials.password)
        })?;
        Ok(())
    }

    /// Ends the login. A server ends those that are left by itself.
    pub(super) fn close(&self) {
        let out = self.content.manager("sessionManager").map_err(Trouble::from);
        if let Err(trouble) = out.and_then(|manager| self.call("Logout", &manager, |_| Ok(()))) {
            tracing::debug!("logging out: {trouble:?}");
        }
    }

    /// The headers of every request.
    pub(super) fn cookie(&self) -> Option<String> {
        self.cookie.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls a method of an object: the element of its answer.
    pub(super) fn call(
        &self,
        method: &str,
        this: &Ref,
        arguments: impl FnOnce(&mut Xml) -> io::Result<()>,
    ) -> Result<Element, Trouble> {
        let envelope = xml::document(|xml| {
            crate::hypervisor::xml::declaration(xml)?;
            parent(xml, "soapenv:Envelope", &NAMESPACES, |xml| {
                parent(xml, "soapenv:Body", &[], |xml| {
                    parent(xml, method, &[("xmlns", "urn:vim25")], |xml| {
                        this.write(xml, "_this")?;
                        arguments(xml)
                    })
                })
            })
        })?;
        // A login has a password in it.
        let envelope = Zeroizing::new(envelope);
        let cookie = self.cookie();
        let mut headers =
            vec![("Content-Type", "text/xml; charset=utf-8"), ("SOAPAction", self.action.as_str())];
        headers.extend(cookie.as_deref().map(|cookie| ("Cookie", cookie)));
        let url = format!("https://{}/sdk", self.authority);
        let answer = self.http.post(&url, &headers, &envelope)?;
        if let Some(cookie) = answer.cookies.iter().find(|cookie| cookie.starts_with("vmware_soap_session")) {
            *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = Some(cookie.clone());
        }
        self.body(method, &answer)
    }

    fn body(&self, method: &str, answer: &Answer) -> Result<Element, Trouble> {
        let authority = &self.authority;
        let odd = |says: String| Trouble::Error(Error::new(Kind::Io, format!("{authority} {says}")));
        let root = match Element::parse(&answer.text) {
            Ok(root) if root.name == "Envelope" => root,
            _ => {
                return Err(odd(format!(
                    "answers {method} with status {} and no SOAP: it is no vCenter and no ESXi host, or its service is down",
                    answer.status
                )));
            }
        };
        let body = root.child("Body").and_then(|body| body.children.first());
        match body {
            Some(fault) if fault.name == "Fault" => {
                let detail = fault.child("detail").and_then(|detail| detail.children.first());
                let (name, mut says) = fault_of(detail);
                if says.is_empty() {
                    says = fault.text_at("faultstring").unwrap_or_default().to_owned();
                }
                Err(Trouble::Fault { says: format!("{method}: {name}: {says}"), name })
            }
            Some(response) if response.name == format!("{method}Response") => Ok(response.clone()),
            _ => Err(odd(format!("answers {method} with something else"))),
        }
    }

    /// Waits for a task and returns its result.
    ///
    /// # Errors
    /// The task's own fault; I/O after `within`.
    pub(super) fn wait(
        &self,
        task: &Ref,
        within: Duration,
        cancel: Option<&Cancel>,
    ) -> Result<Option<Ref>, Trouble> {
        let started = Instant::now();
        loop {
            let paths = ["info.state", "info.result", "info.error"];
            let found = self.properties(task, &paths)?;
            match found.text("info.state") {
                Some("success") => return Ok(found.value("info.result").and_then(Ref::of)),
                Some("error") => {
                    let error = found.value("info.error");
                    let (name, says) = fault_of(error.and_then(|error| error.child("fault")));
                    let own = error.and_then(|error| error.text_at("localizedMessage")).unwrap_or_default();
                    let says = if own.is_empty() { says } else { own.to_owned() };
                    return Err(Trouble::Fault { says: format!("{name}: {says}"), name });
                }
                _ => {}
            }
            if cancel.is_some_and(Cancel::is_cancelled) {
                return Err(Error::interrupted().into());
            }
            if started.elapsed() > within {
                let says = format!("the server's task {} takes longer than {} s", task.id, within.as_secs());
                return Err(Error::new(Kind::Io, says).into());
            }
            std::thread::sleep(Duration::from_millis(if started.elapsed().as_secs() < 5 {
                100
            } else {
                1000
            }));
        }
    }
}

/// A fault's type and what is known of it besides.
fn fault_of(fault: Option<&Element>) -> (String, String) {
    let Some(fault) = fault else { return ("unknown fault".into(), String::new()) };
    let name = fault.attribute("xsi:type").map_or_else(
        || fault.name.trim_end_matches("Fault").to_owned(),
        |name| name.rsplit(':').next().unwrap_or(name).to_owned(),
    );
    let message = fault.all("faultMessage").filter_map(|message| message.text_at("message"));
    let details = fault
        .children
        .iter()
        .filter(|child| child.name != "faultMessage" && !child.text.is_empty())
        .map(|child| format!("{} {}", child.name, child.text));
    let says: Vec<String> = message.map(str::to_owned).chain(details).collect();
    (name, says.join(", "))
}

/// The value of an answer.
pub(super) fn returned(answer: &Element) -> Result<&Element> {
    answer.child("returnval").ok_or_else(|| Error::corrupt(format!("{} has no value", answer.name)))
}

/// The reference that an answer returns.
pub(super) fn returned_ref(answer: &Element) -> Result<Ref> {
    let found = Ref::of(returned(answer)?);
    found.ok_or_else(|| Error::corrupt(format!("{} returns no object", answer.name)))
}

/// Writes a tree of an answer back into a request, under another name. The request declares the namespaces of all of it.
pub(super) fn echo(xml: &mut Xml, name: &str, element: &Element) -> io::Result<()> {
    let attributes: Vec<(&str, &str)> = element
        .attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(key, _)| !key.starts_with("xmlns"))
        .collect();
    match (element.children.is_empty(), element.text.is_empty()) {
        (true, true) => empty(xml, name, &attributes),
        (true, false) => text(xml, name, &attributes, &element.text),
        (false, _) => parent(xml, name, &attributes, |xml| {
            element.children.iter().try_for_each(|child| echo(xml, &child.name, child))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_come_back_as_they_were() {
        let text = "<importSpec xsi:type=\"VirtualMachineImportSpec\"><configSpec><name>a &amp; b</name><deviceChange>\
            <device xsi:type=\"VirtualDisk\"><key>-1</key><ds type=\"Datastore\" xsi:type=\"ManagedObjectReference\">d-1</ds>\
            </device></deviceChange><none/></configSpec></importSpec>";
        let tree = Element::parse(text.as_bytes()).unwrap();
        let device = tree.at("configSpec/deviceChange/device/ds").unwrap();
        assert_eq!(Ref::of(device), Some(Ref::new("Datastore", "d-1")));
        let again = xml::document(|xml| echo(xml, "importSpec", &tree)).unwrap();
        assert_eq!(Element::parse(again.as_bytes()).unwrap(), tree);
    }

    #[test]
    fn faults_have_a_name_and_words() {
        let text = "<detail><InvalidLoginFault xsi:type='vim25:InvalidLogin'><faultMessage><message>No.</message>\
            </faultMessage><property>x</property></InvalidLoginFault></detail>";
        let detail = Element::parse(text.as_bytes()).unwrap();
        let (name, says) = fault_of(detail.children.first());
        assert_eq!((name.as_str(), says.as_str()), ("InvalidLogin", "No., property x"));
        assert_eq!(fault_error("InvalidLogin", says).kind(), Kind::Refused);
        assert_eq!(fault_error("HostCommunication", String::new()).kind(), Kind::Io);
    }
}
