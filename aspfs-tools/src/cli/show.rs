//! The daemon's answers as text.

use super::diff::show_path;
use super::output::fields;
use crate::control::message::{Collected, Damage, HoldRow, Status, TemplateRow, VeRow, Version};
use crate::control::scrub::ScrubRow;
use crate::units::{show_count, show_duration, show_size};

/// Columns of [`ve_line`].
pub const VE_HEAD: &[&str] = &["VE", "USED", "QUOTA", "FILES", "MOST", "VERSION", "MOUNTED"];
/// Columns of [`template_line`].
pub const TEMPLATE_HEAD: &[&str] = &["NAME", "FILES", "BYTES", "CREATED", "SOURCE"];
/// Columns of [`version`].
pub const VERSION_HEAD: &[&str] = &["VERSION", "TIME", "EPOCH", "CHAIN"];
/// Columns of [`hold`].
pub const HOLD_HEAD: &[&str] = &["NAME", "VERSION", "AND LATER", "SINCE", "OWNER"];

/// A template in a list.
pub fn template_line(row: &TemplateRow) -> Vec<String> {
    if let Some(why) = &row.damaged {
        return [row.name.as_str(), "-", "-", "-", why].map(str::to_owned).into();
    }
    vec![row.name.clone(), show_count(row.inodes), show_size(row.bytes), row.created.clone(), row.source.clone()]
}

/// A template alone.
pub fn template(row: &TemplateRow) -> String {
    let users: Vec<String> = row.users.iter().map(ToString::to_string).collect();
    fields(&[
        ("template", row.name.clone()),
        ("root", row.root.clone()),
        ("files", show_count(row.inodes)),
        ("bytes", show_size(row.bytes)),
        ("created", row.created.clone()),
        ("source", row.source.clone()),
        ("used by", if users.is_empty() { "nobody".into() } else { users.join(" ") }),
    ])
}

/// What a check found.
pub fn damage(found: &Damage) -> String {
    let mut out = format!(
        "{} files, {} objects, {} checked: {} damaged\n",
        found.inodes,
        found.objects,
        show_size(found.bytes),
        found.damaged
    );
    for what in &found.damage {
        out += &format!("  {what}\n");
    }
    out
}

/// A VE in a list.
pub fn ve_line(row: &VeRow) -> Vec<String> {
    let mounted = row.mounted.as_ref().map_or("-".into(), |m| m.dir.clone());
    vec![
        row.ve.to_string(),
        show_size(row.bytes_used),
        show_size(row.bytes_limit),
        show_count(row.inodes_used),
        show_count(row.inodes_limit),
        row.txn.to_string(),
        if row.read_only.is_some() { format!("{mounted} (read-only)") } else { mounted },
    ]
}

/// A VE alone.
pub fn ve(row: &VeRow) -> String {
    let mounted = row.mounted.as_ref().map_or("no".into(), |m| m.dir.clone());
    let mut out = vec![
        ("VE", row.ve.to_string()),
        ("base", row.base.clone()),
        ("used", format!("{} of {}", show_size(row.bytes_used), show_size(row.bytes_limit))),
        ("files", format!("{} of {}", show_count(row.inodes_used), show_count(row.inodes_limit))),
        ("history", format!("at most {}", show_size(row.history_limit))),
        ("journal", show_size(row.journal_bytes)),
        ("version", row.txn.to_string()),
        ("epoch", row.epoch.to_string()),
        ("lineage", row.lineage.clone()),
        ("mounted", mounted),
        ("role", row.role.clone()),
        ("priority", row.priority.to_string()),
        ("window", format!("{}, then {}", show_duration(row.window_ms), row.at_window)),
        ("replicas", row.replicas.to_string()),
    ];
    if !row.templates.is_empty() {
        out.insert(1, ("templates", row.templates.join(",")));
    }
    if let Some(why) = &row.read_only {
        out.push(("read-only", why.clone()));
    }
    fields(&out)
}

/// A version in a list.
pub fn version(row: &Version) -> Vec<String> {
    vec![row.txn.to_string(), row.time.clone(), row.epoch.to_string(), row.chain.chars().take(16).collect()]
}

/// A hold in a list.
pub fn hold(row: &HoldRow) -> Vec<String> {
    let onwards = if row.onwards { "yes" } else { "no" };
    vec![row.name.clone(), row.txn.to_string(), onwards.into(), row.since.clone(), row.owner.clone()]
}

/// What a collection did.
pub fn collected(done: &Collected) -> String {
    fields(&[
        ("versions forgotten", done.versions.to_string()),
        ("history left", show_size(done.history_bytes)),
        ("bytes moved", show_size(done.moved_bytes)),
        ("extent files removed", done.files.to_string()),
        ("objects removed", show_size(done.object_bytes)),
    ])
}

/// How the scrub is.
pub fn scrub(scrub: &ScrubRow) -> String {
    let or = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
    let mut out = fields(&[
        ("pass", scrub.pass.to_string()),
        ("begun", or(&scrub.begun, "never")),
        ("checking", or(&scrub.part, "nothing now")),
        ("checked", format!("{} things, {}", show_count(scrub.things), show_size(scrub.bytes))),
        ("last ended", or(&scrub.ended, "never")),
        ("found damaged", scrub.found.to_string()),
        ("repaired", scrub.repaired.to_string()),
    ]);
    for bad in &scrub.damage {
        out += &format!("{} {} since {}: {}\n", bad.kind, bad.name, bad.since, bad.detail);
        for reader in &bad.readers {
            let path = reader.path.as_ref().map_or("no name".into(), show_path);
            out += &format!("  read by VE {} inode {}: {path}\n", reader.ve, reader.ino);
        }
    }
    out
}

/// How the daemon is.
pub fn status(status: &Status) -> String {
    let c = &status.counted;
    let full = if status.tight { ": FULL up to the reserve, programs in VEs get ENOSPC" } else { "" };
    let mut out = fields(&[
        ("daemon", format!("{} (process {}), for {}", status.release, status.pid, show_duration(status.uptime * 1000))),
        ("holder", format!("process {}", status.holder)),
        ("store", status.store.clone()),
        ("free", format!("{} of {}{full}", show_size(status.free), show_size(status.size))),
        ("VEs", status.ves.to_string()),
        ("mounts", status.mounts.len().to_string()),
        ("opens", format!("{} passed through, {} cached, {} moved", c.passthrough, c.cached, c.moved)),
        ("bytes", format!("{} read, {} written, {} syncs", show_size(c.read), show_size(c.written), c.syncs)),
        ("held back", format!("{} requests wait for a window, {} have waited", c.parked, c.waited)),
        ("takeover", format!("{} requests came again, {} had been carried out", c.resent, c.answered_before)),
    ]);
    for row in status.mounts.iter().filter(|row| row.version.is_some()) {
        out += &format!("version {} is mounted at {}\n", row.name(), row.dir);
    }
    for (ve, why) in &status.read_only {
        out += &format!("VE {ve} takes no changes: {why}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Id;
    use crate::control::path::Path;
    use crate::control::scrub::{DamageRow, ReaderRow};
    use vefs::ids::VeId;

    /// A VE's root chose the names of its files so that they told the administrator's terminal what to do, or looked like lines of their own.
    #[test]
    fn names_from_a_ve_are_text_and_nothing_else() {
        let reader = |path: &[u8]| ReaderRow { ve: Id(VeId(1)), ino: 7, path: Some(Path::new(path)) };
        let damage = DamageRow {
            kind: "object".into(),
            name: "x".into(),
            detail: "damaged".into(),
            since: "now".into(),
            readers: vec![reader(b"/plain"), reader(b"/\x1b]0;gotcha\x07\nobject y")],
        };
        let row = ScrubRow {
            pass: 1,
            begun: None,
            ended: None,
            part: None,
            things: 1,
            bytes: 1,
            found: 1,
            repaired: 0,
            damage: vec![damage],
        };
        let text = scrub(&row);
        assert!(text.contains("inode 7: /plain\n"), "{text}");
        assert!(text.ends_with("inode 7: \"/\\x1b]0;gotcha\\x07\\x0aobject y\"\n"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
