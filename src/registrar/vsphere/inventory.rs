//! Properties of the server's objects, and the objects of a kind below another.
//!
//! Source: vim25, PropertyCollector.RetrievePropertiesEx, ViewManager.CreateContainerView.

use super::soap::{Ref, Session, Trouble, returned, returned_ref};
use crate::hypervisor::xml::{Element, Xml, parent, text};
use landfall_image::{Error, Result};
use std::io;

/// Objects of one page: machines have many devices.
const PAGE: &str = "100";
/// The largest vCenter has 40,000 machines.
const OBJECTS: usize = 200_000;

/// An object with the properties that were asked for.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub reference: Ref,
    values: Vec<(String, Element)>,
}

impl Object {
    pub(super) fn value(&self, path: &str) -> Option<&Element> {
        self.values.iter().find(|(name, _)| name == path).map(|(_, value)| value)
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.value(path).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Its name as people write it: the server writes `/`, `\` and `%` in names as `%2f`, `%5c`, `%25`.
    pub(super) fn name(&self) -> String {
        decoded(self.text("name").unwrap_or_default())
    }

    pub(super) fn object(&self, path: &str) -> Option<Ref> {
        self.value(path).and_then(Ref::of)
    }

    /// A property that is a list of objects.
    pub(super) fn objects(&self, path: &str) -> Vec<Ref> {
        self.value(path).map(|value| value.children.iter().filter_map(Ref::of).collect()).unwrap_or_default()
    }
}

fn decoded(name: &str) -> String {
    let mut out = name.to_owned();
    for (code, letter) in [("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\"), ("%25", "%")] {
        out = out.replace(code, letter);
    }
    out
}

impl Session {
    /// Properties of one object.
    pub(super) fn properties(&self, object: &Ref, paths: &[&str]) -> Result<Object, Trouble> {
        let mut found = self.retrieve(&object.kind, paths, |xml| {
            object.write(xml, "obj")?;
            text(xml, "skip", &[], "false")
        })?;
        found.pop().ok_or_else(|| Error::corrupt(format!("the server says nothing of {}", object.id)).into())
    }

    /// All objects of a kind below `container`, with those properties.
    pub(super) fn below(&self, container: &Ref, kind: &str, paths: &[&str]) -> Result<Vec<Object>, Trouble> {
        let manager = self.content.manager("viewManager")?;
        let view = returned_ref(&self.call("CreateContainerView", &manager, |xml| {
            container.write(xml, "container")?;
            text(xml, "type", &[], kind)?;
            text(xml, "recursive", &[], "true")
        })?)?;
        let found = self.retrieve(kind, paths, |xml| {
            view.write(xml, "obj")?;
            text(xml, "skip", &[], "true")?;
            parent(xml, "selectSet", &[("xsi:type", "TraversalSpec")], |xml| {
                text(xml, "type", &[], "ContainerView")?;
                text(xml, "path", &[], "view")?;
                text(xml, "skip", &[], "false")
            })
        });
        if let Err(trouble) = self.call("DestroyView", &view, |_| Ok(())) {
            tracing::debug!("a view stays until the login ends: {trouble:?}");
        }
        found
    }

    fn retrieve(
        &self,
        kind: &str,
        paths: &[&str],
        objects: impl FnOnce(&mut Xml) -> io::Result<()>,
    ) -> Result<Vec<Object>, Trouble> {
        let collector = self.content.manager("propertyCollector")?;
        let mut answer = self.call("RetrievePropertiesEx", &collector, |xml| {
            parent(xml, "specSet", &[], |xml| {
                parent(xml, "propSet", &[], |xml| {
                    text(xml, "type", &[], kind)?;
                    text(xml, "all", &[], "false")?;
                    paths.iter().try_for_each(|path| text(xml, "pathSet", &[], path))
                })?;
                parent(xml, "objectSet", &[], objects)
            })?;
            parent(xml, "options", &[], |xml| text(xml, "maxObjects", &[], PAGE))
        })?;
        let mut out = Vec::new();
        // An answer without a value is one without objects.
        while let Ok(page) = returned(&answer) {
            out.extend(page.all("objects").filter_map(object));
            if out.len() > OBJECTS {
                return Err(Error::refused(format!("the server has more than {OBJECTS} objects")).into());
            }
            let Some(token) = page.text_at("token") else { break };
            answer =
                self.call("ContinueRetrievePropertiesEx", &collector, |xml| text(xml, "token", &[], token))?;
        }
        Ok(out)
    }
}

fn object(element: &Element) -> Option<Object> {
    let values = element
        .all("propSet")
        .filter_map(|property| Some((property.text_at("name")?.to_owned(), property.child("val")?.clone())));
    Some(Object { reference: Ref::of(element.child("obj")?)?, values: values.collect() })
}

/// The one of `objects` with that name; without a name, the only one there is.
///
/// # Errors
/// Refused with the names of all and the option that chooses.
pub(super) fn choose<'o>(
    objects: &'o [Object],
    name: Option<&str>,
    what: &str,
    option: &str,
) -> Result<&'o Object> {
    let mut fitting = objects.iter().filter(|object| name.is_none_or(|name| object.name() == name));
    let names = || {
        let mut names: Vec<String> = objects.iter().map(Object::name).collect();
        names.sort();
        names.dedup();
        names.join(", ")
    };
    match (fitting.next(), fitting.next(), name) {
        (Some(only), None, _) => Ok(only),
        (None, _, None) => Err(Error::refused(format!("the server has no {what}"))
            .hint("give the user a role on it, if there is one")),
        (None, _, Some(name)) => Err(Error::refused(format!("there is no {what} {name:?} for this machine"))
            .hint(format!("choose one of: {}", names()))),
        (Some(_), Some(_), None) => Err(Error::refused(format!("there are several {what}s to choose from"))
            .hint(format!("choose one with {option}: {}", names()))),
        (Some(_), Some(_), Some(name)) => {
            Err(Error::refused(format!("there are several {what}s with the name {name:?}"))
                .hint("narrow it down with --datacenter or --host"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Object {
        let value = Element { text: name.into(), ..Element::default() };
        Object { reference: Ref::new("Datastore", name), values: vec![("name".into(), value)] }
    }

    #[test]
    fn a_choice_is_never_a_guess() {
        let two = [named("a%2fb"), named("c%25")];
        assert_eq!(choose(&two, Some("a/b"), "datastore", "--datastore").unwrap().reference.id, "a%2fb");
        assert_eq!(choose(&two[..1], None, "datastore", "--datastore").unwrap().name(), "a/b");
        for (objects, name, hint) in [
            (&two[..], None, "--datastore: a/b, c%"),
            (&two, Some("x"), "one of: a/b, c%"),
            (&two[..0], None, "role"),
            (&[named("a"), named("a")], Some("a"), "--host"),
        ] {
            let error = choose(objects, name, "datastore", "--datastore").unwrap_err();
            assert!(error.hint_text().unwrap().contains(hint), "{error}");
        }
    }
}
