//! Versions that are mounted: each is kept from collection by a row of this node's own, beside the history, so that a replica and a branch can
//! have them as well and no other node hears of them.
//!
//! Crash points: the row is durable before there is a mount, and goes when the mount is gone. What a kill leaves in between, a row without a
//! mount, is dropped by the next daemon, which knows what is mounted ([`Store::release_unmounted`](crate::Store::release_unmounted)).

use std::sync::Arc;

use super::{Snapshot, Ve};
use crate::codec;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::ids::{TxnNo, VeId};
use crate::limits;
use crate::meta::rows::Mounted;
use crate::meta::{Batch, MetaStore, Scan, Table, prefix_end, rows};

impl Ve {
    /// Keeps a version for a mount under a label, durably, and opens it. Again under the same label: nothing changes. ENOENT when the
    /// version is gone or not there yet, EINVAL for a bad label, EBUSY when the label stands for another version.
    pub fn hold_mounted(self: &Arc<Self>, label: &str, txn: TxnNo) -> Result<Snapshot> {
        if label.is_empty() || label.len() > limits::MOUNT_LABEL_MAX {
            return Err(Errno::EINVAL.into());
        }
        let version = self.version(txn)?;
        // Whoever replaces or removes this state does not do so meanwhile, and finds the row when this is done.
        let _one = self.publishing.lock();
        self.state.lock().journal.check()?;
        let key = rows::mounted(self.slot, label);
        if let Some(row) = self.shared.meta.get(Table::System, &key)? {
            let same = rows::mounted_row(&row)?.txn == txn;
            return if same { Ok(version) } else { Err(Errno::EBUSY.into()) };
        }
        let mut batch = Batch::default();
        let row = Mounted { ve: self.id, txn, since: self.shared.clock.wall() };
        batch.put(Table::System, key, codec::encode(&row));
        self.shared.meta.write(batch)?;
        self.shared.meta.persist()?;
        Ok(version)
    }

    /// The versions of this state that are mounted, by their labels.
    pub fn mounted_versions(&self) -> Result<Vec<(String, Mounted)>> {
        let all = mounted_rows(&*self.shared.meta, &rows::mounted_prefix(self.slot))?;
        Ok(all.into_iter().map(|(_, label, row)| (label, row)).collect())
    }
}

/// The rows of mounted versions that begin so: slot, label and what they say.
pub(crate) fn mounted_rows(meta: &dyn MetaStore, prefix: &[u8]) -> Result<Vec<(VeId, String, Mounted)>> {
    let end = prefix_end(prefix).unwrap_or_else(|| vec![0xff; 8]);
    let (mut out, mut bad) = (Vec::new(), None);
    meta.scan(Table::System, prefix, &end, &mut |k, v| match rows::parse_mounted(k)
        .and_then(|(slot, label)| Ok((slot, label, rows::mounted_row(v)?)))
    {
        Ok(row) => {
            out.push(row);
            Scan::Next
        }
        Err(e) => {
            bad = Some(Error::Meta(e));
            Scan::Stop
        }
    })?;
    bad.map_or(Ok(out), Err)
}
