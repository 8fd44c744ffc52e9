//! Stacks: templates composed into one tree, once, and the memory of which they were.

use super::Store;
use super::files::{read_whole, write_whole};
use crate::base;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::stack::{self, Part, Stack};
use crate::ids::Hash;
use crate::limits::BASE_STACK_MAX;
use crate::object::Pin;

const FOLDER: &str = "stacks";

impl Store {
    /// The base tree of templates, the first one lowest: of one, its own; of several, the one they compose to, which is made
    /// if it is not there. The answer keeps the tree from removal: hold it until a VE is created over it.
    ///
    /// # Errors
    /// A name that is no template's; no name, or more than [`BASE_STACK_MAX`]; what composing or the storage fails with.
    pub fn stack(&self, names: &[&str]) -> Result<Pin> {
        if names.is_empty() || names.len() > BASE_STACK_MAX {
            let count = names.len();
            return Err(Error::Store(format!("a stack is made of 1 to {BASE_STACK_MAX} templates, not of {count}")));
        }
        let mut parts = Vec::new();
        let mut pins = Vec::new();
        for name in names {
            let (root, pin) = self.template_pin(name)?;
            parts.push(Part { name: (*name).to_owned(), root });
            pins.push(pin);
        }
        if let (1, Some(pin)) = (pins.len(), pins.pop()) {
            return Ok(pin);
        }
        let path = stack_path(Stack::key(parts.iter().map(|part| part.root)));
        let known = match self.read_stack(&path) {
            // It is composed once more, and written over.
            Err(Error::Damage { .. }) => None,
            known => known?,
        };
        if let Some(known) = known {
            let pin = self.shared.objects.pin(known.root);
            if self.has_tree(known.root)? {
                return Ok(pin);
            }
        }
        let trees = parts.iter().map(|part| self.shared.base(part.root)).collect::<Result<Vec<_>>>()?;
        let built = base::compose(&self.shared.objects, &trees)?.build()?;
        let record = Stack { store: self.shared.store, root: built.hash, parts };
        let bytes = record.to_bytes().map_err(|e| e.at("stack", path.clone()))?;
        let _labels = self.shared.labels.lock();
        write_whole(&*self.shared.storage, &path, &bytes)?;
        Ok(built.pin)
    }

    fn read_stack(&self, path: &str) -> Result<Option<Stack>> {
        let Some(bytes) = read_whole(&*self.shared.storage, path, stack::LEN)? else { return Ok(None) };
        let stack = Stack::parse(&bytes).map_err(|e: FormatError| e.at("stack", path))?;
        if stack.store != self.shared.store || stack_path(Stack::key(stack.parts.iter().map(|p| p.root))) != path {
            let detail = "it is of another store, or of another stack".to_owned();
            return Err(Error::Damage { what: "stack", place: path.to_owned(), detail });
        }
        Ok(Some(stack))
    }

    /// Every stack that was composed and not forgotten, with its file. One that cannot be read is nobody else's trouble: its templates can be composed again.
    pub(super) fn stacks(&self) -> Result<Vec<(String, Stack)>> {
        let names = self.shared.storage.list(FOLDER).map_err(Error::io("listing", FOLDER))?;
        let mut out = Vec::new();
        for name in names {
            // What a crash left of a file that was being written is written over some day.
            let Some(key) = name.strip_suffix(".stack").and_then(Hash::from_hex) else { continue };
            let path = stack_path(key);
            match self.read_stack(&path) {
                Ok(Some(stack)) => out.push((path, stack)),
                Ok(None) => {}
                Err(e @ Error::Damage { .. }) => tracing::error!(path, error = %e, "a stack cannot be read"),
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// The trees of all stacks, with the names that their templates had when they were composed, the lowest first.
    pub fn stack_list(&self) -> Result<Vec<(Hash, Vec<String>)>> {
        let names = |stack: Stack| (stack.root, stack.parts.into_iter().map(|part| part.name).collect());
        Ok(self.stacks()?.into_iter().map(|(_, stack)| names(stack)).collect())
    }

    /// Forgets the stacks whose trees are gone.
    pub(super) fn forget_stacks(&self) -> Result<()> {
        // Whoever composes writes under this lock, with the tree pinned and in its place.
        let _labels = self.shared.labels.lock();
        let mut any = false;
        for (path, stack) in self.stacks()? {
            if !self.has_tree(stack.root)? {
                self.shared.storage.remove(&path).map_err(Error::io("removing", path))?;
                any = true;
            }
        }
        if any {
            self.shared.storage.sync_dir(FOLDER).map_err(Error::io("flushing", FOLDER))?;
        }
        Ok(())
    }
}

fn stack_path(key: Hash) -> String {
    format!("{FOLDER}/{key}.stack")
}
