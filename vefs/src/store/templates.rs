//! Templates: names for base trees. A name is given when the tree and everything it refers to is durable, and taken away only
//! while no VE was created over it.

use std::collections::BTreeSet;

use super::Store;
use super::files::{read_whole, write_whole};
use crate::base::{BaseError, BaseTree};
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::template::{self, is_name};
use crate::ids::{Hash, InodeNo, VeId};
use crate::limits::TEMPLATE_NAME_MAX;
use crate::object::Pin;
use crate::types::{Extent, Source};

pub use crate::format::template::Label as Template;

const FOLDER: &str = "templates";
/// Most damaged parts that a verification tells of.
const TOLD_MAX: usize = 100;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Inodes of the tree.
    pub inodes: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is wrong, in words, at most 100 of it; empty when all is well.
    pub damage: Vec<String>,
    /// How many parts are damaged.
    pub damaged: u64,
}

impl Verified {
    fn tell(&mut self, what: String) {
        self.damaged += 1;
        if self.damage.len() < TOLD_MAX {
            self.damage.push(what);
        }
    }
}

impl Store {
    /// Names a tree. Durable on return. Naming the same tree again is a success that changes nothing.
    ///
    /// # Errors
    /// A name that may not be one, or is that of another tree; a tree that is not there.
    pub fn template_put(&self, name: &str, root: Hash, source: &str) -> Result<Template> {
        check_name(name)?;
        let _pin = self.shared.objects.pin(root);
        let tree = self.shared.base(root)?;
        let _labels = self.shared.labels.lock();
        if let Some(known) = self.read_label(name)? {
            if known.root == root {
                return Ok(known);
            }
            let says = format!("template {name} is there already, with another content ({})", known.root);
            return Err(Error::Store(says + ": remove it first, or choose another name"));
        }
        let inodes = tree.inode_count();
        let mapped = |ino| tree.content(InodeNo(ino)).iter().map(|(_, extent)| extent.len).sum::<u64>();
        let label = Template {
            store: self.shared.store,
            name: name.to_owned(),
            root,
            created: crate::clock::Timestamp { nanos: 0, ..self.shared.clock.wall() },
            inodes,
            bytes: (1..=inodes).map(mapped).sum(),
            source: source[..source.floor_char_boundary(crate::limits::TEMPLATE_SOURCE_MAX)].to_owned(),
        };
        let path = label_path(name);
        let bytes = label.to_bytes().map_err(|e| e.at("template", path.clone()))?;
        write_whole(&*self.shared.storage, &path, &bytes)?;
        Ok(label)
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// A name that is no template's; a damaged label.
    pub fn template_get(&self, name: &str) -> Result<Template> {
        check_name(name)?;
        self.read_label(name)?.ok_or_else(|| Error::Store(format!("there is no template {name}")))
    }

    /// All templates, by name.
    ///
    /// # Errors
    /// A damaged label.
    pub fn template_list(&self) -> Result<Vec<Template>> {
        self.template_labels()?.into_iter().map(|(_, label)| label).collect()
    }

    /// All names of templates, and what each stands for, or why that cannot be read.
    pub fn template_labels(&self) -> Result<Vec<(String, Result<Template>)>> {
        let names = self.shared.storage.list(FOLDER).map_err(Error::io("listing", FOLDER))?;
        let names = names.iter().filter_map(|name| name.strip_suffix(".label")).filter(|name| is_name(name));
        let label = |name: &str| Some((name.to_owned(), self.read_label(name).transpose()?));
        let mut out: Vec<_> = names.filter_map(label).collect();
        out.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// The VEs that were created over a template's tree, or over a stack that it is part of.
    ///
    /// # Errors
    /// As [`Store::template_get`].
    pub fn template_users(&self, name: &str) -> Result<Vec<VeId>> {
        let root = self.template_get(name)?.root;
        let composed = self.stacks()?.into_iter().map(|(_, stack)| stack);
        let composed = composed.filter(|stack| stack.parts.iter().any(|part| part.root == root));
        let roots: BTreeSet<Hash> = composed.map(|stack| stack.root).chain([root]).collect();
        let mut users: Vec<VeId> = self
            .trees_of_ves()?
            .into_iter()
            .filter(|(base, _)| roots.contains(base))
            .flat_map(|(_, ves)| ves)
            .collect();
        users.sort_unstable();
        Ok(users)
    }

    /// Takes a name away, durably. The tree goes with the next collection, if nothing else names it.
    ///
    /// # Errors
    /// VEs were created over it; there is none.
    pub fn template_remove(&self, name: &str) -> Result<()> {
        let _labels = self.shared.labels.lock();
        let users = self.template_users(name)?;
        if !users.is_empty() {
            let some: Vec<String> = users.iter().take(10).map(VeId::to_string).collect();
            let more = if users.len() > some.len() {
                format!(" and {} more", users.len() - some.len())
            } else {
                String::new()
            };
            return Err(Error::Store(format!("template {name} is in use by VE {}{more}", some.join(", "))));
        }
        let path = label_path(name);
        self.shared.storage.remove(&path).map_err(Error::io("removing", path))?;
        self.shared.storage.sync_dir(FOLDER).map_err(Error::io("flushing", FOLDER))
    }

    /// Reads a template's tree and every object of it from the disk, and checks all of it. `progress` is told how many objects
    /// are done, of how many.
    ///
    /// # Errors
    /// There is no such template, or its label is damaged. What is wrong with tree and objects is in the answer.
    pub fn template_verify(&self, name: &str, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Verified> {
        let (root, _pin) = self.template_pin(name)?;
        let mut found = Verified::default();
        let tree = match BaseTree::open(&*self.shared.storage, root) {
            Ok(tree) => tree,
            Err(e @ (BaseError::NotFound { .. } | BaseError::Tree { .. })) => {
                found.tell(e.to_string());
                return Ok(found);
            }
            Err(e) => return Err(e.into()),
        };
        found.inodes = tree.inode_count();
        let objects = tree.objects();
        let ends = ends(&tree);
        for (done, hash) in (0..).zip(&objects) {
            if !progress(done, objects.len() as u64) {
                return Ok(found);
            }
            let checked = self.shared.objects.verify(*hash).and_then(|()| self.shared.objects.open(*hash));
            found.objects += 1;
            match checked {
                Err(e) => found.tell(e.to_string()),
                Ok(object) => {
                    found.bytes += object.len();
                    if ends.get(hash).is_some_and(|end| *end > object.len()) {
                        found.tell(format!("object {hash} is shorter than the tree says"));
                    }
                }
            }
        }
        progress(objects.len() as u64, objects.len() as u64);
        Ok(found)
    }

    /// The tree of a template, kept from removal.
    pub(super) fn template_pin(&self, name: &str) -> Result<(Hash, Pin)> {
        let root = self.template_get(name)?.root;
        let pin = self.shared.objects.pin(root);
        // Again: it may have been removed, and its tree with it, before the pin was there.
        if self.template_get(name)?.root == root {
            return Ok((root, pin));
        }
        Err(Error::Store(format!("template {name} was replaced just now")))
    }

    /// Takes note of bytes that an import has written, and refuses to go on when the disk is full up to the reserve (promise G4).
    ///
    /// # Errors
    /// `NoSpace`.
    pub fn spend_space(&self, bytes: u64) -> Result<()> {
        self.shared.space.spend(bytes);
        if self.shared.is_tight()? { Err(Error::NoSpace { what: "a template" }) } else { Ok(()) }
    }

    /// Makes sure of room above the reserve for so many bytes, which are about to be written without a question in between.
    ///
    /// # Errors
    /// `NoSpace`.
    pub fn require_space(&self, bytes: u64) -> Result<()> {
        let free = self.shared.storage.free_bytes().map_err(Error::io("reading free space", "store"))?;
        match free < bytes.saturating_add(self.shared.options.reserve) {
            true => Err(Error::NoSpace { what: "a template" }),
            false => Ok(()),
        }
    }

    fn read_label(&self, name: &str) -> Result<Option<Template>> {
        let path = label_path(name);
        let Some(bytes) = read_whole(&*self.shared.storage, &path, template::LEN)? else { return Ok(None) };
        let label = Template::parse(&bytes).map_err(|e: FormatError| e.at("template", path.clone()))?;
        if label.name != name || label.store != self.shared.store {
            let detail = format!("it is template {} of another file or store", label.name);
            return Err(Error::Damage { what: "template", place: path, detail });
        }
        Ok(Some(label))
    }
}

/// How far into each object the tree's files reach.
fn ends(tree: &BaseTree) -> std::collections::BTreeMap<Hash, u64> {
    let mut ends = std::collections::BTreeMap::new();
    for (_, Extent { len, source }) in (1..=tree.inode_count()).flat_map(|ino| tree.content(InodeNo(ino))) {
        if let Source::Base { hash, offset } = source {
            let end: &mut u64 = ends.entry(*hash).or_default();
            *end = (*end).max(offset + len);
        }
    }
    ends
}

/// Checks a template's name.
fn check_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(TEMPLATE_NAME_MAX + 1).collect();
    let rule = "1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit";
    Err(Error::Store(format!("{shown:?} is no name for a template: {rule}")))
}

/// The suffix keeps a name from being that of the file another label is being written to.
fn label_path(name: &str) -> String {
    format!("{FOLDER}/{name}.label")
}
