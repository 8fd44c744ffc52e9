//! What lies on a disk: names that point to files, and the files' bytes; and the single effects a call has on it.
//!
//! Names and bytes are separate things, so that a name may be there without its file's bytes and the other way round.
//! Copying an image costs one pointer per file.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use vefs::storage::memory::{Content, MemStorage};

use super::record::{Event, FileId};

#[derive(Clone, Debug)]
pub(super) struct Image {
    names: Arc<BTreeMap<Arc<str>, FileId>>,
    dirs: Arc<BTreeSet<Arc<str>>>,
    /// By [`FileId`].
    contents: Vec<Arc<Content>>,
}

/// The smallest thing that reaches the disk, or does not, as a whole; writes of bytes may also tear.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Link { path: Arc<str>, file: FileId },
    Move { from: Arc<str>, to: Arc<str>, file: FileId },
    Unlink { path: Arc<str>, file: FileId },
    Empty { file: FileId },
    Bytes { file: FileId, offset: u64, data: Data },
    Punch { file: FileId, offset: u64, len: u64 },
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Zeros(u64),
    Given(Arc<[u8]>),
}

impl Data {
    pub(super) fn len(&self) -> u64 {
        match self {
            Data::Zeros(len) => *len,
            Data::Given(data) => data.len() as u64,
        }
    }
}

impl Effect {
    /// The effects of an event, in order; none for flushes and marks.
    pub(super) fn of(event: &Event) -> Vec<Effect> {
        match event {
            Event::Create { path, file, zeros, fresh } => {
                let first = match fresh {
                    true => Effect::Link { path: Arc::clone(path), file: *file },
                    false => Effect::Empty { file: *file },
                };
                let fill = Effect::Bytes { file: *file, offset: 0, data: Data::Zeros(*zeros) };
                if *zeros == 0 { vec![first] } else { vec![first, fill] }
            }
            Event::Write { file, offset, data, .. } => {
                vec![Effect::Bytes { file: *file, offset: *offset, data: Data::Given(Arc::clone(data)) }]
            }
            Event::Punch { file, offset, len, .. } => {
                vec![Effect::Punch { file: *file, offset: *offset, len: *len }]
            }
            Event::Rename { from, to, file } => {
                vec![Effect::Move { from: Arc::clone(from), to: Arc::clone(to), file: *file }]
            }
            Event::Remove { path, file } => vec![Effect::Unlink { path: Arc::clone(path), file: *file }],
            Event::Sync { .. }
            | Event::SyncDir { .. }
            | Event::SyncAll
            | Event::FlushFailed { .. }
            | Event::Mark(_) => Vec::new(),
        }
    }

    /// The file whose bytes it changes.
    pub(super) fn data_of(&self) -> Option<FileId> {
        match self {
            Effect::Empty { file } | Effect::Bytes { file, .. } | Effect::Punch { file, .. } => Some(*file),
            Effect::Link { .. } | Effect::Move { .. } | Effect::Unlink { .. } => None,
        }
    }

    /// The folders whose names it changes.
    pub(super) fn folders(&self) -> Vec<&str> {
        match self {
            Effect::Link { path, .. } | Effect::Unlink { path, .. } => vec![folder(path)],
            Effect::Move { from, to, .. } => vec![folder(from), folder(to)],
            Effect::Empty { .. } | Effect::Bytes { .. } | Effect::Punch { .. } => Vec::new(),
        }
    }
}

/// The folder a path lies in.
fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Image {
    /// The image of a storage, its files numbered in the order of their paths.
    pub(super) fn of(base: &MemStorage) -> Image {
        let (paths, contents): (Vec<_>, Vec<_>) = base.files().into_iter().unzip();
        let names = paths.into_iter().enumerate().map(|(id, path)| (path, FileId(id))).collect();
        Image { names: Arc::new(names), dirs: Arc::new(base.folders().into_iter().collect()), contents }
    }

    pub(super) fn storage(&self) -> MemStorage {
        let files = self.names.iter().map(|(path, file)| (Arc::clone(path), self.shared(*file)));
        MemStorage::from_files(files, self.dirs.iter().cloned())
    }

    /// A hash of all names and the bytes they lead to.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, file) in self.names.iter() {
            (path, self.contents.get(file.0).map(|content| content.hash())).hash(&mut hasher);
        }
        self.dirs.hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn shared(&self, file: FileId) -> Arc<Content> {
        self.contents.get(file.0).cloned().unwrap_or_default()
    }

    pub(super) fn len(&self, file: FileId) -> u64 {
        self.contents.get(file.0).map_or(0, |content| content.len())
    }

    pub(super) fn is_named(&self, file: FileId) -> bool {
        self.names.values().any(|named| *named == file)
    }

    pub(super) fn put(&mut self, file: FileId, content: Arc<Content>) {
        *self.slot(file) = content;
    }

    pub(super) fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Link { path, file } => self.name(path, *file),
            Effect::Move { from, to, file } => {
                self.unname(from, *file);
                self.name(to, *file);
            }
            Effect::Unlink { path, file } => self.unname(path, *file),
            Effect::Empty { file } | Effect::Bytes { file, .. } | Effect::Punch { file, .. } => {
                change(self.slot(*file), effect);
            }
        }
    }

    /// Applies the part of a write that lies within `from..to` of the file.
    pub(super) fn apply_part(&mut self, effect: &Effect, from: u64, to: u64) {
        let Effect::Bytes { file, offset, data } = effect else { return };
        let (from, to) = (from.max(*offset), to.min(offset + data.len()));
        if from >= to {
            return;
        }
        let content = Arc::make_mut(self.slot(*file));
        match data {
            Data::Zeros(_) => content.zero(from, to - from),
            Data::Given(data) => content.write_at(&data[(from - offset) as usize..(to - offset) as usize], from),
        }
    }

    /// Applies a write at another offset.
    pub(super) fn apply_at(&mut self, effect: &Effect, offset: u64) {
        if let Effect::Bytes { file, data, .. } = effect {
            self.apply(&Effect::Bytes { file: *file, offset, data: data.clone() });
        }
    }

    /// Makes the folder, those above it, and those directly in it exist, as they do in `full`.
    pub(super) fn adopt_folders(&mut self, dir: &str, full: &Image) {
        let known = |path: &&Arc<str>| !path.is_empty() && (leads_to(dir, path) || folder(path) == dir);
        let missing: Vec<_> =
            full.dirs.iter().filter(known).filter(|path| !self.dirs.contains(*path)).cloned().collect();
        if !missing.is_empty() {
            Arc::make_mut(&mut self.dirs).extend(missing);
        }
    }

    /// Makes all folders exist that exist in `full`.
    pub(super) fn adopt_all_folders(&mut self, full: &Image) {
        self.dirs = Arc::clone(&full.dirs);
    }

    fn slot(&mut self, file: FileId) -> &mut Arc<Content> {
        if self.contents.len() <= file.0 {
            self.contents.resize(file.0 + 1, Arc::default());
        }
        &mut self.contents[file.0]
    }

    fn name(&mut self, path: &Arc<str>, file: FileId) {
        Arc::make_mut(&mut self.names).insert(Arc::clone(path), file);
        for (at, _) in path.match_indices('/') {
            if !self.dirs.contains(&path[..at]) {
                Arc::make_mut(&mut self.dirs).insert(path[..at].into());
            }
        }
    }

    /// Takes a name away from a file; a name that points elsewhere by now is left alone.
    fn unname(&mut self, path: &Arc<str>, file: FileId) {
        if self.names.get(path) == Some(&file) {
            Arc::make_mut(&mut self.names).remove(path);
        }
    }
}

/// Whether `path` is `dir` or a folder above it.
fn leads_to(dir: &str, path: &str) -> bool {
    dir.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Applies an effect on bytes.
pub(super) fn change(content: &mut Arc<Content>, effect: &Effect) {
    match effect {
        Effect::Empty { .. } => *content = Arc::default(),
        Effect::Bytes { offset, data: Data::Zeros(len), .. } => Arc::make_mut(content).zero(*offset, *len),
        Effect::Bytes { offset, data: Data::Given(data), .. } => Arc::make_mut(content).write_at(data, *offset),
        Effect::Punch { offset, len, .. } => Arc::make_mut(content).punch(*offset, *len),
        Effect::Link { .. } | Effect::Move { .. } | Effect::Unlink { .. } => {}
    }
}
