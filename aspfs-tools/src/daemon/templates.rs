//! Templates: imports come as events over the control socket ([`crate::template`]), from a client that reads the source; the daemon never
//! touches it. An import whose client goes away leaves nothing but bytes that the next collection removes.

use std::collections::BTreeMap;

use vefs::format::template::is_name;
use vefs::ids::Hash;
use vefs::object::Pin;
use vefs::store::Template;

use super::Daemon;
use super::refuse::{Answer, about, refusal};
use super::session::Session;
use crate::control::frame::Kind;
use crate::control::message::{Damage, Done, Id, Imported, Progress, TemplateRow, Why};
use crate::template::event::Event;
use crate::template::sink::{Import, ImportError};
use crate::units::show_time;

/// Most imports at a time: each may hold a gigabyte of names, and as much again of what it knows of its inodes.
pub const AT_ONCE: usize = 4;

fn row(template: &Template, users: Vec<Id>) -> TemplateRow {
    TemplateRow {
        name: template.name.clone(),
        root: template.root.to_hex(),
        created: show_time(template.created),
        inodes: template.inodes,
        bytes: template.bytes,
        source: template.source.clone(),
        users,
        damaged: None,
    }
}

/// What is shown of a template whose label cannot be read.
fn damaged(name: String, why: &vefs::Error) -> TemplateRow {
    let none = String::new;
    let (root, created, source, users) = (none(), none(), none(), Vec::new());
    TemplateRow { name, root, created, inodes: 0, bytes: 0, source, users, damaged: Some(why.to_string()) }
}

fn check_name(name: &str) -> Answer<()> {
    if is_name(name) {
        return Ok(());
    }
    let rule = "1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit";
    let shown: String = name.chars().take(65).collect();
    Err(refusal(Why::Usage, format!("{shown:?} is no name for a template: {rule}")))
}

impl Daemon {
    /// The base tree of a stack of templates, the lowest first; kept from removal while the pin lives. None: the empty tree.
    pub fn base_of(&self, names: &[String]) -> Answer<(Hash, Option<Pin>)> {
        if names.is_empty() {
            return Ok((vefs::base::BaseTree::empty().hash(), None));
        }
        for name in names {
            self.template(name)?;
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let pin = self.store.stack(&names).map_err(about(format!("templates {}", names.join(","))))?;
        Ok((pin.hash(), Some(pin)))
    }

    fn template(&self, name: &str) -> Answer<Template> {
        check_name(name)?;
        self.store.template_get(name).map_err(|e| match e {
            vefs::Error::Store(text) => refusal(Why::NotFound, text),
            e => about(format!("template {name}"))(e),
        })
    }

    /// Names of templates by the trees they name; of a tree that has no name of its own, those of the templates it was composed of.
    pub fn template_names(&self) -> Answer<BTreeMap<Hash, Vec<String>>> {
        let mut names: BTreeMap<Hash, Vec<String>> = BTreeMap::new();
        for (name, label) in self.store.template_labels()? {
            match label {
                Ok(template) => names.entry(template.root).or_default().push(name),
                // VEs are shown all the same, with one name less.
                Err(e) => tracing::error!(name, error = %e, "a template's label cannot be read"),
            }
        }
        for (root, parts) in self.store.stack_list()? {
            names.entry(root).or_insert(parts);
        }
        Ok(names)
    }

    /// One template, with the VEs that have it below them.
    pub fn template_row(&self, name: &str) -> Answer<TemplateRow> {
        let template = self.template(name)?;
        let users = self.store.template_users(name).map_err(about(format!("template {name}")))?;
        Ok(row(&template, users.into_iter().map(Id).collect()))
    }

    /// Removes a name; refused while a VE has it below.
    pub fn template_remove(&self, name: &str) -> Answer<()> {
        self.template(name)?;
        self.store.template_remove(name).map_err(|e| match e {
            vefs::Error::Store(text) => refusal(Why::Busy, text),
            e => about(format!("template {name}"))(e),
        })
    }
}

/// Sends all templates.
pub fn list(session: &mut Session<'_>) -> Answer<()> {
    let shown = |(name, label)| match label {
        Ok(template) => row(&template, Vec::new()),
        Err(e) => damaged(name, &e),
    };
    let rows: Vec<TemplateRow> = session.daemon.store.template_labels()?.into_iter().map(shown).collect();
    session.rows(&rows, &Done {})
}

/// Checks every byte of a template, and tells how far it is.
pub fn verify(session: &mut Session<'_>, name: &str) -> Answer<()> {
    let daemon = session.daemon.clone();
    daemon.template(name)?;
    let mut told = std::time::Instant::now();
    let mut ended = Ok(());
    let found = daemon.store.template_verify(name, &mut |done, of| {
        ended = session.may_go_on();
        if ended.is_ok() && (done == of || told.elapsed().as_millis() >= 100) {
            told = std::time::Instant::now();
            let progress = Progress { doing: format!("verifying {name}"), done, of: Some(of) };
            ended = session.progress(&progress);
        }
        ended.is_ok()
    });
    ended?;
    let found = found.map_err(about(format!("template {name}")))?;
    session.answer(&Damage {
        inodes: found.inodes,
        objects: found.objects,
        bytes: found.bytes,
        damaged: found.damaged,
        damage: found.damage,
    })
}

/// Takes an import's events until its end, and gives the tree its name.
pub fn import(session: &mut Session<'_>, name: &str, source: &str) -> Answer<()> {
    check_name(name)?;
    let at = |e: ImportError| {
        let full = matches!(e, ImportError::Store(vefs::Error::NoSpace { .. }));
        refusal(if full { Why::Space } else { Why::Failed }, format!("template {name}: {e}"))
    };
    let daemon = session.daemon.clone();
    let _turn = daemon.importing.take()?;
    let mut import = Import::begin(&session.daemon.store).map_err(at)?;
    loop {
        let frame = session.next_frame()?;
        match frame.kind {
            Kind::Data => {
                let event = Event::decode(&frame.body).map_err(|e| refusal(Why::Usage, e.to_string()))?;
                import.event(event).map_err(at)?;
            }
            Kind::End => break,
            got => return Err(refusal(Why::Usage, format!("a {got:?} frame in the middle of an import"))),
        }
    }
    let made = import.finish().map_err(at)?;
    let template = session.daemon.store.template_put(name, made.hash, source).map_err(|e| match e {
        vefs::Error::Store(text) => refusal(Why::Exists, text),
        e => about(format!("template {name}"))(e),
    })?;
    tracing::info!(name, root = %made.hash, inodes = made.inodes, bytes = made.bytes, new = made.new_bytes, "imported");
    session.answer(&Imported { template: row(&template, Vec::new()), new_bytes: made.new_bytes })
}
