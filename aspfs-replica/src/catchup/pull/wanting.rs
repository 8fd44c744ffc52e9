//! What is wanted next: rows that differ, and the objects and payload bytes that are not here.

use super::{Action, Asked, Fault, Objects, Phase, Puller};
use crate::catchup::{Install, OBJECTS_MAX, Page, STRETCH_TARGET, STRETCHES_MAX, WANTED_BYTES_MAX, WANTED_MAX};

/// Payload bytes of the stretches that are compared at once, about: both sides read them, and meanwhile nothing is heard.
const COMPARED_BYTES_MAX: u64 = 256 << 20;

impl Puller {
    /// The next rows: from here where they are the same, else from there.
    pub(super) fn rows(&mut self, install: &mut dyn Install) -> Result<Result<Action, Asked>, Fault> {
        if self.upto.is_none() {
            match self.compared.pop_front() {
                Some((page, true)) => {
                    self.progress.kept += page.rows.len() as u64;
                    // The last one here need not be the last one there.
                    self.page = Page { last: false, ..page };
                    self.phase = Phase::Objects(0);
                    return Ok(Ok(Action::Again));
                }
                // Stretches that follow each other are asked for at once.
                Some((page, false)) => {
                    self.upto = last_key(&page);
                    while let Some((page, _)) = self.compared.pop_front_if(|(_, same)| !*same) {
                        self.upto = last_key(&page);
                    }
                }
                None => {
                    let own = self.own_pages(install);
                    if !own.is_empty() {
                        return Ok(Err(Asked::Compare(own)));
                    }
                }
            }
        }
        Ok(Err(Asked::Rows(install.highest_epoch())))
    }

    /// The next stretches of the present state that have not been compared.
    fn own_pages(&mut self, install: &mut dyn Install) -> Vec<Page> {
        let (mut pages, mut bytes): (Vec<Page>, u64) = (Vec::new(), 0);
        while !self.own_over && pages.len() < STRETCHES_MAX && bytes < COMPARED_BYTES_MAX {
            let after = pages.last().map_or(self.after.clone(), last_key);
            match install.own_page(after.as_deref(), STRETCH_TARGET).filter(|page| !page.is_empty()) {
                Some(page) => {
                    bytes += page.payloads.iter().map(|(_, len, _)| len).sum::<u64>();
                    pages.push(page);
                }
                None if pages.is_empty() => self.own_over = true,
                None => break,
            }
            if pages.last().is_some_and(|page| page.last) {
                break;
            }
        }
        pages
    }

    /// Collects objects of the page, from the one of this number on, that are not here.
    pub(super) fn objects(&mut self, install: &mut dyn Install, from: usize) -> Result<Result<Action, Asked>, Fault> {
        let end = self.page.objects.len().min(from + OBJECTS_MAX);
        let mut wanted = Vec::new();
        for hash in self.page.objects.get(from..end).unwrap_or_default() {
            if !install.has_object(*hash)? {
                wanted.push(*hash);
            }
        }
        let then = if end == self.page.objects.len() { Phase::Payloads(0) } else { Phase::Objects(end) };
        if wanted.is_empty() {
            self.phase = then;
            return Ok(Ok(Action::Again));
        }
        Ok(Err(Asked::Objects(Objects { wanted, done: 0, then })))
    }

    /// Collects ranges of the page, from the one of this number on, that are not here.
    pub(super) fn payloads(&mut self, install: &mut dyn Install, from: usize) -> Result<Result<Action, Asked>, Fault> {
        let (mut missing, mut bytes, mut seen, mut next) = (Vec::new(), 0, 0, from);
        for (id, len, hash) in self.page.payloads.iter().skip(from).copied() {
            if missing.len() == WANTED_MAX || bytes + len > WANTED_BYTES_MAX || seen >= WANTED_BYTES_MAX {
                break;
            }
            next += 1;
            seen += len;
            if install.has_payload(id, len, hash)? {
                self.progress.reused += len;
            } else {
                bytes += len;
                missing.push((id, len, hash));
            }
        }
        if missing.is_empty() {
            let all = next == self.page.payloads.len();
            self.phase = if all { Phase::Put } else { Phase::Payloads(next) };
            return Ok(Ok(Action::Again));
        }
        Ok(Err(Asked::Payloads(missing, Vec::new())))
    }
}

/// The last key of a page.
pub(super) fn last_key(page: &Page) -> Option<Vec<u8>> {
    page.rows.last().map(|(key, _)| key.clone())
}
