//! VEs come and go, also while the process dies: what is made is there whole or not at all, what was erased stays away.

use std::collections::BTreeMap;

use vefs::change::Settings;
use vefs::ids::{Hash, VeId};

use super::runner::Runner;
use super::subject::{Expected, Subject};
use super::tree;
use crate::model::{Model, sample_tree};

impl Runner {
    /// What was being made or erased when the process ended is there whole, or not at all.
    pub(super) fn decide_unsure(&mut self) -> Result<(), String> {
        let there = self.store().list().map_err(|e| e.to_string())?;
        for (id, made) in std::mem::take(&mut self.unsure) {
            if !there.contains(&VeId(id)) {
                self.subjects.remove(&id);
            } else if let Some(new) = made {
                let context = |e: String| format!("VE {id}, which was being made: {e}");
                let ve = self.store().ve(VeId(id)).map_err(|e| context(e.to_string()))?;
                new.compare(&ve, &[]).map_err(context)?;
                self.subjects.insert(id, Subject::new(ve, new.model, new.quota));
            }
        }
        let expected: Vec<VeId> = self.subjects.keys().map(|id| VeId(*id)).collect();
        let there = self.store().list().map_err(|e| e.to_string())?;
        if there == expected { Ok(()) } else { Err(format!("VEs {expected:?} are {there:?}")) }
    }

    pub(super) fn create_some(&mut self) -> Result<bool, String> {
        let free = (1..=4).find(|id| !self.subjects.contains_key(id));
        match free {
            Some(id) => self.create(id),
            None => Ok(false),
        }
    }

    pub(super) fn create(&mut self, id: u32) -> Result<bool, String> {
        let quota = match self.rng.below(3) {
            0 => (8 << 20, 400),
            1 => (1 << 20, 60),
            _ => (64 << 20, u64::MAX),
        };
        let over_tree = self.rng.percent(50);
        let (base, model) = if over_tree {
            let tree = sample_tree();
            let Some(hash) = self.base_tree()? else { return Ok(false) };
            (hash, Model::with_tree(quota.0, quota.1, &tree))
        } else {
            (crate::harness::empty_tree(), Model::new(quota.0, quota.1))
        };
        let settings = Settings { quota_bytes: quota.0, quota_inodes: quota.1, ..Settings::default() };
        let made = self.store().create_ve(VeId(id), base, settings);
        match self.survived(made)? {
            Some(ve) => {
                self.subjects.insert(id, Subject::new(ve, model, quota));
                Ok(true)
            }
            None => {
                self.unsure.insert(id, Some(Expected { model, quota, holds: BTreeMap::new() }));
                Ok(false)
            }
        }
    }

    fn base_tree(&mut self) -> Result<Option<Hash>, String> {
        if self.base.is_none() {
            let built = tree::build(self.store().objects(), &sample_tree()).map_err(|e| e.to_string());
            // Without a name it would go with the last VE over it.
            let named = built.and_then(|hash| self.store().template_put("sample", hash, "").map_err(|e| e.to_string()));
            match named {
                Ok(template) => self.base = Some(template.root),
                Err(_) if self.world.fuse().is_blown() => {}
                Err(e) => return Err(format!("building the base tree: {e}")),
            }
        }
        Ok(self.base)
    }

    pub(super) fn destroy_some(&mut self) -> Result<bool, String> {
        let Some(id) = self.some().filter(|_| self.subjects.len() > 2) else { return Ok(false) };
        if let Some(s) = self.subjects.get_mut(&id) {
            s.reading = None;
        }
        match self.survived(self.store().destroy_ve(VeId(id)))? {
            Some(()) => {
                self.subjects.remove(&id);
                Ok(true)
            }
            None => {
                self.unsure.insert(id, None);
                Ok(false)
            }
        }
    }
}
