//! Reading the layers of a VE's state in order: each gives a run of keys, upper runs are laid over lower ones.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::key::{Key, Value};
use super::tables::{Tables, base_range, not_gone};
use super::view::{Scan, View};
use crate::error::{Error, Result};
use crate::ids::InodeNo;
use crate::meta::{Table, rows};
use crate::types::Extent;

/// Keys that one layer gives at a time.
pub(super) const FETCH: usize = 256;

/// Keys in order, each once, with what a layer says of them: `None` for gone.
type Run = Vec<(Key, Option<Value>)>;

/// Lays one run over another.
fn lay_over(lower: Run, upper: Run) -> Run {
    if upper.is_empty() {
        return lower;
    }
    if lower.is_empty() {
        return upper;
    }
    let mut out = Run::with_capacity(lower.len() + upper.len());
    let (mut low, mut up): (Peekable<IntoIter<_>>, Peekable<IntoIter<_>>) =
        (lower.into_iter().peekable(), upper.into_iter().peekable());
    while let (Some((a, _)), Some((b, _))) = (low.peek(), up.peek()) {
        match a.cmp(b) {
            Ordering::Less => out.extend(low.next()),
            Ordering::Greater => out.extend(up.next()),
            Ordering::Equal => {
                low.next();
                out.extend(up.next());
            }
        }
    }
    out.extend(low);
    out.extend(up);
    out
}

impl Tables {
    pub(super) fn scan_layers(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&Key, &Value) -> Scan) -> Result<()> {
        let mut from = from.clone();
        loop {
            let (window, end) = self.window(&from, to)?;
            for (key, value) in &window {
                if let Some(value) = value
                    && visit(key, value) == Scan::Stop
                {
                    return Ok(());
                }
            }
            match end.map(|e| e.successor()) {
                Some(next) if next < *to => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// What the layers give together from `from` on: up to where the first of them gave as many keys as it may, and that last key; what
    /// is read must not depend on how much there is behind it.
    fn window(&self, from: &Key, to: &Key) -> Result<(Run, Option<Key>)> {
        let (mut window, mut end) = (Run::new(), None);
        if !self.is_fresh(from) {
            let (stored, stored_end) = self.fetch(from, to)?;
            let mut base = Run::new();
            let base_end = base_range(&self.base, from, to, FETCH, &mut |key, value| base.push((key, Some(value))));
            base.sort_by(|a, b| a.0.cmp(&b.0));
            end = match (stored_end, base_end) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            window = lay_over(base, stored);
        }
        for layer in [self.frozen.as_deref(), Some(&self.active)].into_iter().flatten() {
            let mut run = Run::new();
            for (key, slot) in layer.range(from, to) {
                if end.as_ref().is_some_and(|e| key > e) {
                    break;
                }
                run.push((key.clone(), slot.value.clone()));
                if run.len() == FETCH {
                    end = Some(key.clone());
                    break;
                }
            }
            window = lay_over(window, run);
        }
        if let Some(end) = &end {
            window.truncate(window.partition_point(|(key, _)| key <= end));
        }
        Ok((window, end))
    }

    /// Up to [`FETCH`] rows of the metadata store, and the last of them when there may be more.
    fn fetch(&self, from: &Key, to: &Key) -> Result<(Run, Option<Key>)> {
        let (mut run, mut bad) = (Run::new(), None);
        let (low, high) = (rows::current(self.ve, from.as_bytes()), rows::current(self.ve, to.as_bytes()));
        self.meta.scan(Table::Current, &low, &high, &mut |k, v| {
            let row = rows::parse_current(k).and_then(|key| rows::current_row(&key, v).map(|row| (key, row)));
            match row {
                Ok((key, row)) => {
                    run.push((key, not_gone(row.value)));
                    if run.len() == FETCH { Scan::Stop } else { Scan::Next }
                }
                Err(e) => {
                    bad = Some(Error::Meta(e));
                    Scan::Stop
                }
            }
        })?;
        let last = run.last().filter(|_| run.len() == FETCH).map(|(key, _)| key.clone());
        bad.map_or(Ok((run, last)), Err)
    }

    pub(super) fn floor_in_layers(&self, ino: InodeNo, offset: u64) -> Result<Option<(u64, Extent)>> {
        let low = Key::extent(ino, 0);
        let mut at = Key::extent(ino, offset);
        loop {
            let mut best: Option<Key> = self.layers().filter_map(|l| l.floor(&low, &at)).max().cloned();
            if !self.is_fresh(&at) && best.as_ref() != Some(&at) {
                let (l, a) = (rows::current(self.ve, low.as_bytes()), rows::current(self.ve, at.as_bytes()));
                if let Some((row, _)) = self.meta.floor(Table::Current, &l, &a)? {
                    best = best.max(Some(rows::parse_current(&row)?));
                }
            }
            let Some(key) = best else { return Ok(None) };
            match self.get(&key)? {
                Some(Value::Extent(e)) => return Ok(Some((key.number(), e))),
                _ if key.number() == 0 => return Ok(None),
                _ => at = Key::extent(ino, key.number() - 1),
            }
        }
    }
}
