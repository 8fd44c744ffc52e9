//! Building a base tree from a stream of events, which is not trusted: bounds, order and names are checked here, whoever sends them
//! (promise G29).
//!
//! Until [`Import::finish`] succeeds nothing in the store names what was built, so an import that fails, is dropped or dies leaves
//! objects behind that the next collection removes, and nothing else. While it runs everything it made is pinned.

use std::sync::Arc;

use vefs::Store;
use vefs::base::{Attrs, BaseBuilder, BaseError, NodeId, Pieces};
use vefs::ids::Hash;
use vefs::limits::{FILE_SIZE_MAX, XATTR_NAME_MAX};
use vefs::object::{ObjectError, Pin};
use vefs::types::{Kind, mode};

use super::event::{DATA_MAX, DEVICE_MAX, Event, Meta, What};
use super::source::keeps_xattr;
use super::space::{Counted, Space};

/// Most inodes of one import.
pub const INODES_MAX: usize = 16 << 20;
/// Most bytes of names, link targets and extended attributes of one import: they are held in memory.
pub const NAMES_MAX: usize = 1 << 30;

/// Why an import ends.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// An event that may not come where it stands.
    #[error("the stream of events is not valid: {0}")]
    Event(&'static str),
    /// The tree has more than an import takes.
    #[error("the tree has too many {what}: at most {max}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// An extended attribute that no file system takes.
    #[error("extended attribute {name} is not valid: {source}")]
    Xattr {
        /// Its name.
        name: String,
        /// What setxattr(2) would say.
        source: vefs::Error,
    },
    /// The tree cannot be built.
    #[error(transparent)]
    Base(BaseError),
    /// The store failed, or is full.
    #[error(transparent)]
    Store(#[from] vefs::Error),
}

impl From<BaseError> for ImportError {
    /// A full disk is told of as such, whoever met it.
    fn from(e: BaseError) -> ImportError {
        let full = |io: &std::io::Error| io.kind() == std::io::ErrorKind::StorageFull;
        match e {
            BaseError::Io { source, .. } | BaseError::Object(ObjectError::Io { source, .. }) if full(&source) => {
                ImportError::Store(vefs::Error::NoSpace { what: "a template" })
            }
            e => ImportError::Base(e),
        }
    }
}

/// What an import has made.
#[derive(Debug)]
pub struct Imported {
    /// Root hash of the tree.
    pub hash: Hash,
    /// Its inodes.
    pub inodes: u64,
    /// Bytes of its files, holes not counted; hard links once.
    pub bytes: u64,
    /// Bytes of objects that were not in the store before.
    pub new_bytes: u64,
    /// Keeps the tree from removal: hold it until the tree has a name ([`Store::template_put`]).
    pub pin: Pin,
}

/// A tree on its way into a store.
pub struct Import {
    space: Space,
    builder: BaseBuilder,
    /// The inodes by number.
    nodes: Vec<NodeId>,
    /// The inode named last, unless it is complete already.
    current: Option<NodeId>,
    file: Option<Open>,
    /// Bytes of names and the like so far.
    held: usize,
    /// Bytes of content so far.
    written: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    /// After an error nothing that comes makes sense any more.
    Failed,
}

/// A file whose bytes are coming.
struct Open {
    node: NodeId,
    pieces: Pieces,
    size: u64,
    sparse: bool,
    counted: Counted,
}

impl Import {
    /// Starts with an empty root directory.
    ///
    /// # Errors
    /// The disk is full up to the reserve.
    pub fn begin(store: &Arc<Store>) -> Result<Import, ImportError> {
        let space = Space::begin(store)?;
        let builder = BaseBuilder::new(store.objects().clone());
        Ok(Import {
            space,
            builder,
            nodes: vec![BaseBuilder::ROOT],
            current: Some(BaseBuilder::ROOT),
            file: None,
            held: 0,
            written: 0,
            state: State::Running,
        })
    }

    /// Inodes and bytes of content so far, for a display.
    pub fn progress(&self) -> (u64, u64) {
        (self.nodes.len() as u64, self.written)
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// What is wrong with it, or with the store. No event is taken after an error.
    pub fn event(&mut self, event: Event) -> Result<(), ImportError> {
        if self.state != State::Running {
            self.state = State::Failed;
            return Err(ImportError::Event("an event after the end"));
        }
        let done = self.take(event);
        if done.is_err() {
            self.state = State::Failed;
        }
        done
    }

    fn take(&mut self, event: Event) -> Result<(), ImportError> {
        match event {
            Event::Xattr { name, value } => return self.xattr(&name, &value),
            Event::Data { offset, bytes } => return self.data(offset, &bytes),
            _ => self.end_file()?,
        }
        self.current = None;
        match event {
            Event::Node { parent, name, meta, what } => self.add(parent, &name, &meta, what),
            Event::Meta { node, meta } => {
                let id = self.node(node)?;
                if self.builder.kind(id) != Some(Kind::Directory) {
                    return Err(ImportError::Event("attributes of what is no directory"));
                }
                self.builder.set_attrs(id, &attrs(&meta, Kind::Directory, 0)?)?;
                self.builder.clear_xattrs(id)?;
                self.current = Some(id);
                Ok(())
            }
            Event::Link { parent, name, to } => {
                self.hold(name.len())?;
                Ok(self.builder.add_link(self.node(parent)?, &name, self.node(to)?)?)
            }
            Event::Remove { parent, name } => match self.builder.remove(self.node(parent)?, &name)? {
                true => Ok(()),
                false => Err(ImportError::Event("a name to be removed is not there")),
            },
            Event::End => {
                self.state = State::Ended;
                Ok(())
            }
            Event::Xattr { .. } | Event::Data { .. } => Ok(()),
        }
    }

    fn node(&self, number: u32) -> Result<NodeId, ImportError> {
        self.nodes.get(number as usize).copied().ok_or(ImportError::Event("an inode that was not named"))
    }

    /// Accounts for bytes that stay in memory. A name or an attribute costs more than its bytes.
    fn hold(&mut self, bytes: usize) -> Result<(), ImportError> {
        self.held = self.held.saturating_add(bytes).saturating_add(32);
        match self.held > NAMES_MAX {
            true => Err(ImportError::Limit { what: "bytes of names and attributes", max: NAMES_MAX }),
            false => Ok(()),
        }
    }

    fn add(&mut self, parent: u32, name: &[u8], meta: &Meta, what: What) -> Result<(), ImportError> {
        if self.nodes.len() >= INODES_MAX {
            return Err(ImportError::Limit { what: "inodes", max: INODES_MAX });
        }
        self.hold(name.len())?;
        let (dir, kind) = (self.node(parent)?, what.kind());
        let rdev = match what {
            What::CharDevice(rdev) | What::BlockDevice(rdev) if rdev > DEVICE_MAX => {
                return Err(ImportError::Event("a device number of more than 12 and 20 bits"));
            }
            What::CharDevice(rdev) | What::BlockDevice(rdev) => rdev,
            _ => 0,
        };
        let attrs = attrs(meta, kind, rdev)?;
        let id = match what {
            What::Directory => self.builder.add_dir(dir, name, &attrs)?,
            What::Symlink(target) => {
                self.hold(target.len())?;
                self.builder.add_symlink(dir, name, &attrs, &target)?
            }
            What::File { size, sparse } => {
                if size > FILE_SIZE_MAX {
                    return Err(ImportError::Event("a file over the limit of sizes"));
                }
                let id = self.builder.add_file(dir, name, &attrs, Default::default())?;
                let executable = attrs.mode & 0o111 != 0;
                let pieces = self.builder.begin_content(executable, sparse);
                self.file = Some(Open { node: id, pieces, size, sparse, counted: Counted::new(size, executable) });
                id
            }
            _ => self.builder.add_node(dir, name, &attrs)?,
        };
        self.nodes.push(id);
        self.current = Some(id);
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), ImportError> {
        let id = self.current.ok_or(ImportError::Event("an extended attribute of nothing"))?;
        let kind = self.builder.kind(id).unwrap_or(Kind::Regular);
        if name.len() > XATTR_NAME_MAX || !keeps_xattr(name) {
            return Err(ImportError::Event("an extended attribute that is not kept"));
        }
        let shown = || String::from_utf8_lossy(name).into_owned();
        let stored = vefs::plan::xattr_as_stored(name, value, kind);
        if let Some(value) = stored.map_err(|source| ImportError::Xattr { name: shown(), source })? {
            self.hold(name.len() + value.len())?;
            self.builder.set_xattr(id, name, &value)?;
        }
        Ok(())
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ImportError> {
        let file = self.file.as_mut().ok_or(ImportError::Event("bytes of what is no file"))?;
        if bytes.is_empty() || bytes.len() > DATA_MAX {
            return Err(ImportError::Event("an empty or oversized piece of a file"));
        }
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > file.size) {
            return Err(ImportError::Event("bytes behind the end of a file"));
        }
        self.space.bytes(&mut file.counted, offset, bytes.len() as u64)?;
        file.pieces.write(offset, bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Completes the file whose bytes were coming.
    fn end_file(&mut self) -> Result<(), ImportError> {
        if let Some(file) = self.file.take() {
            if !file.sparse && file.pieces.len() < file.size {
                return Err(ImportError::Event("a file of which bytes are missing"));
            }
            let content = self.builder.end_content(file.pieces, file.size)?;
            self.builder.set_content(file.node, content)?;
        }
        Ok(())
    }

    /// Makes the objects and then the tree durable. The tree has no name yet.
    ///
    /// # Errors
    /// The stream was cut off; there is no room for what is written only now; what the store fails with.
    pub fn finish(self) -> Result<Imported, ImportError> {
        if self.state != State::Ended {
            return Err(ImportError::Event("it was cut off"));
        }
        self.space.end(self.nodes.len() as u64, self.held as u64)?;
        let built = self.builder.build()?;
        let (hash, inodes, bytes, new_bytes) = (built.hash, built.inodes, built.bytes, built.new_bytes);
        Ok(Imported { hash, inodes, bytes, new_bytes, pin: built.pin })
    }
}

fn attrs(meta: &Meta, kind: Kind, rdev: u64) -> Result<Attrs, ImportError> {
    if meta.mode & !mode::PERM != 0 {
        return Err(ImportError::Event("permissions with other bits"));
    }
    let Meta { uid, gid, mtime, .. } = *meta;
    let mode = meta.mode | kind.bits();
    Ok(Attrs { mode, uid, gid, rdev, atime: mtime, mtime, ctime: mtime, btime: mtime })
}
