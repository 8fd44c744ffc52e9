//! A file's bytes as runs, whatever its map is cut into, some extents of it at hand at a time.

use std::collections::VecDeque;

use crate::error::Result;
use crate::ids::InodeNo;
use crate::meta::Scan;
use crate::state::key::{Key, Value};
use crate::state::version::VersionView;
use crate::state::view::{self, View};
use crate::types::{Extent, Inode, Source};

/// Extents at hand.
const PAGE: usize = 256;

/// Runs of a file, asked for from the front to the back.
pub(super) struct Runs<'a> {
    view: &'a VersionView,
    ino: InodeNo,
    page: VecDeque<(u64, Extent)>,
    /// Where the next page begins; `None` when there is none.
    next: Option<u64>,
}

impl<'a> Runs<'a> {
    pub fn new(view: &'a VersionView, ino: InodeNo, inode: &Inode) -> Result<Runs<'a>> {
        let mut runs = Runs { view, ino, page: VecDeque::new(), next: None };
        if inode.flags & Inode::PRIVATE_MAP == 0 {
            runs.page = view.base().content(ino).iter().copied().collect();
        } else {
            runs.next = Some(0);
        }
        Ok(runs)
    }

    /// Where the bytes at an offset come from, `None` for zeros that nobody wrote, and up to where that goes on.
    pub fn at(&mut self, offset: u64) -> Result<(Option<Source>, u64)> {
        loop {
            if self.page.is_empty() && !self.fill()? {
                return Ok((None, u64::MAX));
            }
            let Some((start, extent)) = self.page.front() else { continue };
            let end = start.saturating_add(extent.len);
            if end <= offset {
                self.page.pop_front();
            } else if *start > offset {
                return Ok((None, *start));
            } else if extent.source == Source::Unwritten {
                return Ok((None, end));
            } else {
                return Ok((Some(extent.source.plus(offset - start)), end));
            }
        }
    }

    fn fill(&mut self) -> Result<bool> {
        let Some(from) = self.next.take() else { return Ok(false) };
        let mut bad = None;
        let (low, high) = (Key::extent(self.ino, from), Key::extent(InodeNo(self.ino.0 + 1), 0));
        self.view.scan(&low, &high, &mut |key, value| match value {
            Value::Extent(extent) => {
                self.page.push_back((key.number(), *extent));
                if self.page.len() < PAGE { Scan::Next } else { Scan::Stop }
            }
            other => {
                bad = Some(view::wrong(key, other));
                Scan::Stop
            }
        })?;
        if self.page.len() == PAGE {
            self.next = self.page.back().and_then(|(offset, _)| offset.checked_add(1));
        }
        bad.map_or(Ok(!self.page.is_empty()), Err)
    }
}
