//! Mount options as mount(8) and fstab(5) write them.

use std::path::PathBuf;

use aspfs_holder::protocol::MountFlags;

/// What the options ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How the mount behaves.
    pub flags: MountFlags,
    /// `fsname=`: its source in /proc/mounts; the VE's identifier if not given.
    pub source: Option<String>,
    /// `socket=`: where the daemon listens.
    pub socket: Option<PathBuf>,
    /// `remount`: change the flags of a mount that is there.
    pub remount: bool,
}

/// An option that is not known or makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not known.
    #[error("unknown mount option {0:?}")]
    Unknown(String),
    /// Known, without a value that it needs, or with one that it cannot have.
    #[error("mount option {0:?} needs a value: {0}=…")]
    Value(String),
}

/// What every mount of a VE has: mount(8) passes it back at a remount.
const OURS: &[&str] = &[
    "subtype=vefs",
    "user_id=0",
    "group_id=0",
    "rootmode=40000",
    "max_read=1048576",
    "allow_other",
    "default_permissions",
    "async",
];
/// What a remount may change, where the kernel says it of a mount; `rw` is the rest.
const FLAGS: &[&str] = &["ro", "nosuid", "nodev", "noexec", "nosymfollow"];
/// Options for mount(8), systemd and people: nothing of them is for the file system.
const FOREIGN: &[&str] =
    &["defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "loud", "silent"];
/// Options whose access times the file system keeps as `noatime` does: it never writes them on reading.
const TIMES: &[&str] = &["noatime", "relatime", "norelatime", "nodiratime", "diratime", "lazytime", "nolazytime"];

impl Options {
    /// Reads lists of options; later ones win.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<Options, OptionError> {
        let mut out = Options::default();
        for option in lists.into_iter().flat_map(|list| list.split(',')).map(str::trim).filter(|o| !o.is_empty()) {
            out.take(option)?;
        }
        Ok(out)
    }

    /// Those of a mount's options in /proc/self/mountinfo that a remount may change.
    pub fn flags_in(options: &str) -> String {
        options.split(',').filter(|option| FLAGS.contains(option)).collect::<Vec<_>>().join(",")
    }

    fn take(&mut self, option: &str) -> Result<(), OptionError> {
        let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
        let value = || value.filter(|v| !v.is_empty()).ok_or_else(|| OptionError::Value(name.to_owned()));
        let flags = &mut self.flags;
        match name {
            "fsname" => self.source = Some(value()?.to_owned()),
            "socket" => self.socket = Some(value()?.into()),
            _ if OURS.contains(&option) => {}
            _ if name.starts_with("x-") || name.starts_with("X-") || name == "comment" || name == "uhelper" => {}
            _ if option != name => return Err(OptionError::Unknown(option.to_owned())),
            "remount" => self.remount = true,
            "ro" => flags.read_only = true,
            "rw" => flags.read_only = false,
            "nosuid" => flags.nosuid = true,
            "suid" => flags.nosuid = false,
            "nodev" => flags.nodev = true,
            "dev" => flags.nodev = false,
            "noexec" => flags.noexec = true,
            "exec" => flags.noexec = false,
            "nosymfollow" => flags.nosymfollow = true,
            "symfollow" => flags.nosymfollow = false,
            _ if FOREIGN.contains(&name) || TIMES.contains(&name) => {}
            _ => return Err(OptionError::Unknown(option.to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_and_later_ones_win() {
        let o =
            Options::parse(["rw,suid,dev,noatime,x-systemd.requires=aspfsd.service", "ro,nosuid,fsname=web,socket=/s"])
                .unwrap();
        assert!(o.flags.read_only && o.flags.nosuid && !o.flags.nodev && !o.remount);
        assert_eq!((o.source.as_deref(), o.socket), (Some("web"), Some("/s".into())));
        assert!(!Options::parse(["ro,rw"]).unwrap().flags.read_only);
        assert_eq!(Options::parse(["", "defaults,,_netdev"]).unwrap(), Options::default());
        let again = "ro,noatime,remount,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576";
        assert!(Options::parse([again]).unwrap().remount, "what mount(8) says at a remount");
    }

    /// `aspfs mount VE DIR -o remount,ro` gave the mount just that: what it had of nosuid, nodev and noexec was gone, and programs with set-user-ID
    /// bits worked again.
    #[test]
    fn a_remount_changes_what_it_names() {
        let present = Options::flags_in("rw,nosuid,nodev,noatime,idmapped");
        assert_eq!(present, "nosuid,nodev");
        let flags = Options::parse([present.as_str(), "remount,ro,dev"]).unwrap().flags;
        assert_eq!(flags, MountFlags { read_only: true, nosuid: true, ..MountFlags::default() });
        let flags = Options::parse([Options::flags_in("ro,noexec,nosymfollow").as_str(), "remount,rw"]).unwrap().flags;
        assert_eq!(flags, MountFlags { noexec: true, nosymfollow: true, ..MountFlags::default() });
    }

    #[test]
    fn unknown_options_are_named() {
        for bad in ["quota", "ro=1", "max_read=5", "subtype=sshfs", "strictatime"] {
            assert_eq!(Options::parse([bad]), Err(OptionError::Unknown(bad.into())), "{bad}");
        }
        for bad in ["fsname", "fsname=", "socket="] {
            assert!(matches!(Options::parse([bad]), Err(OptionError::Value(_))), "{bad}");
        }
    }
}
