//! A directory's entries in byte order of their names, some of them at hand at a time.

use std::collections::VecDeque;

use crate::error::Result;
use crate::ids::InodeNo;
use crate::meta::Scan;
use crate::state::key::Key;
use crate::state::version::VersionView;
use crate::state::view;
use crate::types::Dentry;

/// Entries at hand.
const PAGE: usize = 128;

/// A name and where it leads.
pub(super) type Entry = (Box<[u8]>, Dentry);

/// The entries that are still to come.
pub(super) struct Names<'a> {
    view: &'a VersionView,
    page: VecDeque<Entry>,
    /// Where the next page begins; `None` when there is none.
    next: Option<Key>,
}

impl<'a> Names<'a> {
    pub fn new(view: &'a VersionView, dir: InodeNo) -> Names<'a> {
        Names { view, page: VecDeque::new(), next: Some(Key::dentry(dir, &[])) }
    }

    /// The next entry, which stays.
    pub fn peek(&mut self) -> Result<Option<&Entry>> {
        if self.page.is_empty()
            && let Some(from) = self.next.take()
        {
            view::names(self.view, &from, &mut |name, entry| {
                self.page.push_back((name.into(), entry));
                if self.page.len() < PAGE { Scan::Next } else { Scan::Stop }
            })?;
            if self.page.len() == PAGE {
                self.next = self.page.back().map(|(name, _)| Key::dentry(from.ino(), name).successor());
            }
        }
        Ok(self.page.front())
    }

    /// The next entry.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.peek()?;
        Ok(self.page.pop_front())
    }

    /// The next entry, if it has this name.
    pub fn next_if(&mut self, name: &[u8]) -> Result<Option<Dentry>> {
        match self.peek()? {
            Some((next, _)) if **next == *name => Ok(self.next()?.map(|(_, entry)| entry)),
            _ => Ok(None),
        }
    }

    /// Lets go what is at hand; it is read again when it is asked for.
    pub fn let_go(&mut self, dir: InodeNo) {
        if let Some((name, _)) = self.page.front() {
            self.next = Some(Key::dentry(dir, name));
        }
        self.page = VecDeque::new();
    }
}
