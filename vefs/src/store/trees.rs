//! Which base trees are in use, and the removal of the others.
//!
//! A tree is in use while a label or a VE's identity names it, or somebody has it pinned: a running import, a composition, a
//! creation. Removal is two-phase (promise G26): marked first, then removed if nothing has named or pinned it since. Whoever is
//! about to name a tree pins it before looking whether it is there, and names it before the pin goes.

use std::collections::{BTreeMap, BTreeSet};

use super::Store;
use crate::base::BaseTree;
use crate::error::{Error, Result};
use crate::ids::{Hash, VeId};

impl Store {
    /// The root hashes of all trees there are.
    pub(super) fn trees(&self) -> Result<Vec<Hash>> {
        let names = self.shared.storage.list("bases").map_err(Error::io("listing", "bases"))?;
        Ok(names.iter().filter_map(|name| Hash::from_hex(name.strip_suffix(".tree")?)).collect())
    }

    /// The trees that VEs were created over, and which VEs.
    pub(super) fn trees_of_ves(&self) -> Result<BTreeMap<Hash, Vec<VeId>>> {
        let mut out: BTreeMap<Hash, Vec<VeId>> = BTreeMap::new();
        for id in self.list()? {
            // One that was destroyed since it was listed is nobody's.
            if let Some(identity) = self.read_identity(id)? {
                out.entry(identity.base).or_default().push(id);
            }
            for name in self.branch_names(id)? {
                if let Some(identity) = self.read_branch(id, &name)? {
                    out.entry(identity.base).or_default().push(id);
                }
            }
        }
        out.values_mut().for_each(|ves| ves.dedup());
        Ok(out)
    }

    /// The trees that something on disk names. A label or identity that cannot be read is an error: nothing is removed then.
    fn trees_in_use(&self) -> Result<BTreeSet<Hash>> {
        let mut used: BTreeSet<Hash> = self.trees_of_ves()?.into_keys().collect();
        used.extend(self.all_incoming()?.into_iter().map(|i| i.manifest.base));
        used.extend(self.template_list()?.iter().map(|template| template.root));
        Ok(used)
    }

    /// Removes the trees that nothing names, durably, and answers how many. Their objects are garbage from then on.
    pub(super) fn collect_trees(&self) -> Result<u64> {
        let all = self.trees()?;
        let used = self.trees_in_use()?;
        let objects = &self.shared.objects;
        objects.condemn_trees(all.into_iter().filter(|hash| !used.contains(hash)));
        // Asked again: a name that was given before the mark was made did not take it away.
        let used = self.trees_in_use()?;
        let removed = objects.sweep_trees(
            |hash| used.contains(hash),
            |hash| {
                // A tree in memory would make a later creation believe that it is there.
                self.shared.bases.lock().remove(&hash);
                let path = BaseTree::path(hash);
                self.shared.storage.remove(&path).map_err(Error::io("removing base tree", path))
            },
        )?;
        if removed > 0 {
            self.shared.storage.sync_dir("bases").map_err(Error::io("flushing", "bases"))?;
        }
        self.forget_stacks()?;
        Ok(removed)
    }
}
