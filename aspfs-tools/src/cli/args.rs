//! The command line of `aspfs`: what can be said, and the help that teaches it. Man pages and completions are made of it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vefs::ids::VeId;

use super::cluster_args::{BranchCommand, ClusterCommand, NodeCommand, PromoteArgs, ReplicaCommand, SwitchoverArgs};
use crate::client::mounting::Target;
use crate::control::message::At;
use crate::control::replication::AtWindow;
use crate::control::versions::Named;
use crate::units;

/// Administers virtual environments' file systems: templates, VEs, mounts, versions.
///
/// Talks to the daemon aspfsd over its control socket. Sizes are written 10G, 512M or 1.5G (powers of 1024), durations 30s or 5m, times
/// `1 minute ago`, -60s or 2026-01-31T12:00:00Z. A VE is named by exactly 8 hex digits.
///
/// Exit status: 0 done, 1 not done, 2 asked for wrongly. What is refused changes nothing.
#[derive(Parser, Debug)]
#[command(
    name = "aspfs",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  aspfs template import debian /srv/bookworm  a debootstrap'd tree becomes a template
  aspfs ve create 0000002A --template debian --quota 10G
  aspfs mount 0000002A /srv/web               its root, mounted
  aspfs versions 0000002A                     what can be read of its past
  aspfs cat 0000002A /etc/motd --at '1 minute ago'
  aspfs umount 0000002A"
)]
pub struct Cli {
    /// Where the daemon listens
    #[arg(long, global = true, value_name = "PATH", env = "ASPFS_SOCKET", default_value = crate::control::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show how the daemon, its store and its mounts are
    Status,
    /// Create, list, show, set and destroy virtual environments
    #[command(subcommand)]
    Ve(VeCommand),
    /// Import, list, show, verify and remove templates
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Mount a VE's tree, or a version of it, on a folder
    ///
    /// The mount outlives the daemon: while no daemon runs, programs in the VE wait, and the next aspfsd goes on with them.
    ///
    /// A version is mounted read-only, also where the node follows the VE, and as often as there are versions. It is kept from garbage
    /// collection until it is unmounted. To restore files, copy them: `cp -a`.
    #[command(after_help = "Examples:
  aspfs mount 0000002A /srv/web
  aspfs mount 0000002A /srv/web -o ro,nosuid,fsname=web
  aspfs mount '0000002A@1 hour ago' /mnt/old && cp -a /mnt/old/etc/passwd /srv/web/etc/
  aspfs mount 0000002A@1234 /mnt/old          after transaction 1234
  aspfs mount 0000002A@before-upgrade /mnt/old  what a hold keeps
  aspfs mount 0000002A@epoch-1.0 /mnt/tail    the end of a branch; BRANCH:TXN: within it
  mount -t fuse.vefs 0000002A /srv/web
  mount -t fuse.vefs 0000002A@-60s /mnt/old
  in /etc/fstab:  0000002A /srv/web fuse.vefs noauto,x-systemd.after=aspfsd.service 0 0")]
    Mount(MountArgs),
    /// Unmount a VE or a version
    #[command(after_help = "Examples:
  aspfs umount 0000002A
  aspfs umount 0000002A@1234
  aspfs umount /mnt/old")]
    Umount(UmountArgs),
    /// List the versions of a VE that can be read
    ///
    /// Every second in which something changed leaves a version; garbage collection thins them out with age. A hold keeps one.
    #[command(after_help = "Examples:
  aspfs versions 0000002A
  aspfs versions 0000002A@epoch-1.0           of a branch")]
    Versions {
        /// The VE, or a branch of it
        #[arg(value_name = "VEID[@BRANCH]")]
        what: Named,
    },
    /// Write a file of a VE, as it is or as it was, to standard output
    #[command(after_help = "Examples:
  aspfs cat 0000002A /etc/passwd
  aspfs cat 0000002A /etc/passwd --at '1 minute ago'
  aspfs cat 0000002A@epoch-1.0 /etc/passwd    the end of a branch
  aspfs cat 0000002A /srv/db.sqlite --at 1234 > db.sqlite")]
    Cat {
        /// The VE, or a version as for `aspfs mount`
        #[arg(value_name = "VEID[@VERSION]")]
        what: Named,
        /// The file; symlinks are followed inside the VE's own tree
        path: PathBuf,
        /// Which version
        #[command(flatten)]
        at: AtArgs,
    },
    /// Show what differs between two versions of a VE, or between one and its present state
    #[command(after_help = super::diff::EXAMPLES)]
    Diff(super::diff::DiffArgs),
    /// Keep versions from garbage collection
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Begin a cluster, or join one
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Add, list and revoke nodes of the cluster, and renew their certificates
    #[command(subcommand)]
    Node(NodeCommand),
    /// Add, remove and watch the replicas of VEs
    #[command(subcommand)]
    Replica(ReplicaCommand),
    /// Make this node the writer of a VE that it follows, after its primary was lost
    ///
    /// A new epoch begins behind the newest change that this node has. A primary that still runs finds out when it meets another node, but until
    /// then both would go on: say that it is off only when it is. What it had beyond stays there as a branch.
    #[command(after_help = "Example:\n  aspfs promote 0000002A --old-primary-is-off && aspfs mount 0000002A /srv/web")]
    Promote(PromoteArgs),
    /// Hand a VE that this node writes to one of its replicas, without loss
    ///
    /// Writers wait, the replica gets the rest, and writes from then on. This node follows it.
    #[command(after_help = "Example:\n  aspfs switchover 0000002A node-2")]
    Switchover(SwitchoverArgs),
    /// List and remove former states of a VE, kept when another node's history replaced them
    #[command(subcommand)]
    Branch(BranchCommand),
    /// Collect garbage now
    Gc,
    /// Show how the check of everything stored is, and what it found damaged
    ///
    /// The daemon reads and checks everything once per `scrub-period`, at most `scrub-rate` a second.
    Scrub {
        /// Begin a pass, unless one is under way
        #[arg(long)]
        now: bool,
    },
    /// Command the daemon itself
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Print a shell's completions
    #[command(after_help = "Example:\n  aspfs completions bash > /etc/bash_completion.d/aspfs")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    #[command(after_help = "Example:\n  aspfs man /usr/local/share/man/man8")]
    Man {
        /// Where to
        dir: PathBuf,
    },
}

/// A version.
#[derive(Args, Debug)]
pub struct AtArgs {
    /// A version: a transaction number, or a time, which means the newest version that is not younger
    #[arg(long, value_name = "TXN|TIME", allow_hyphen_values = true, value_parser = parse_at)]
    pub at: Option<At>,
}

/// A transaction number or a time.
fn parse_at(text: &str) -> Result<At, units::UnitError> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(At::Txn).map_err(|_| units::UnitError::Time(text.chars().take(40).collect()));
    }
    use vefs::clock::Clock;
    units::parse_time(text, vefs::clock::SystemClock.wall()).map(At::time)
}

/// Commands about templates.
#[derive(Subcommand, Debug)]
pub enum TemplateCommand {
    /// Import a template from a directory, a tar archive or an OCI image
    ///
    /// Owners, modes, times, extended attributes, ACLs, capabilities, links, devices and holes are kept. What the store has already
    /// is not stored again. An import that does not come to its end leaves nothing.
    #[command(after_help = "Examples:
  debootstrap bookworm /tmp/bookworm && aspfs template import debian-12 /tmp/bookworm
  aspfs template import alpine rootfs.tar.gz
  aspfs template import web image.oci.tar --image web:1.4")]
    Import {
        /// Its name: 1 to 64 of a-z, 0-9, '.', '_' and '-'
        name: String,
        /// A directory, a tar archive (.tar, .gz, .xz, .zst), or an OCI image layout (directory or archive)
        source: PathBuf,
        /// Which image of several: its name, digest or platform
        #[arg(long, value_name = "REF")]
        image: Option<String>,
        /// Go into file systems that are mounted inside the directory
        #[arg(long)]
        cross_mounts: bool,
    },
    /// List all templates
    List,
    /// Show one template and the VEs that use it
    Show {
        /// The template
        name: String,
    },
    /// Check every byte of a template against its checksums; exit status 1 when something is damaged
    Verify {
        /// The template
        name: String,
    },
    /// Remove a template; refused while a VE uses it
    Remove {
        /// The template
        name: String,
    },
}

/// Commands about VEs.
#[derive(Subcommand, Debug)]
pub enum VeCommand {
    /// Create a VE
    #[command(after_help = "Examples:
  aspfs ve create 0000002A
  aspfs ve create 0000002A --template debian --quota 10G --inodes 1M
  aspfs ve create 0000002A --template debian,web")]
    Create {
        /// Its identifier: exactly 8 hex digits, not 00000000
        #[arg(value_name = "VEID")]
        ve: VeId,
        /// The templates below it, the lowest first; none: an empty tree
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        template: Vec<String>,
        /// Its settings
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// List all VEs
    List,
    /// Show one VE
    Show {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
    },
    /// Change a VE's settings
    #[command(after_help = "Example:\n  aspfs ve set 0000002A --quota 20G")]
    Set {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
        /// Its settings
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Destroy a VE with all its versions; refused while it is mounted
    Destroy {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
    },
}

/// Settings of a VE.
#[derive(Args, Debug)]
pub struct SettingArgs {
    /// Most bytes that it may have of its own (template bytes are free until they are written); `none`: no limit
    #[arg(long, value_name = "SIZE", value_parser = units::parse_limit)]
    pub quota: Option<u64>,
    /// Most files of its own; `none`: no limit
    #[arg(long, value_name = "NUMBER", value_parser = units::parse_count)]
    pub inodes: Option<u64>,
    /// Most bytes that its past versions may take beyond the present one
    #[arg(long, value_name = "SIZE", value_parser = units::parse_limit)]
    pub history: Option<u64>,
    /// Most time for which a change may be on this node alone, where the VE has required replicas: 30s unless set
    #[arg(long, value_name = "DURATION", value_parser = parse_window)]
    pub window: Option<u32>,
    /// What happens when the window would be passed
    #[arg(long, value_name = "WHAT", value_enum)]
    pub at_window: Option<AtWindow>,
    /// Where several VEs have something for the same node: those with the highest number go first, equal ones in turns; 16 at first
    #[arg(long, value_name = "1-255", value_parser = clap::value_parser!(u8).range(1..))]
    pub priority: Option<u8>,
}

fn parse_window(text: &str) -> Result<u32, String> {
    let ms = units::parse_duration(text).map_err(|e| e.to_string())?;
    let least = u64::from(vefs::limits::WINDOW_MIN_MS);
    match u32::try_from(ms) {
        Ok(ms) if u64::from(ms) >= least => Ok(ms),
        _ => Err(format!("a window is from {} to 49d", units::show_duration(least))),
    }
}

/// What to mount, where and how.
#[derive(Args, Debug)]
pub struct MountArgs {
    /// The VE, or a version: a transaction number, a time, a hold's name, BRANCH or BRANCH:TXN
    #[arg(value_name = "VEID[@VERSION]")]
    pub what: Named,
    /// The folder
    pub dir: PathBuf,
    /// Options as for mount(8): ro, nosuid, nodev, noexec, fsname=NAME…
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    pub options: Vec<String>,
}

/// What to unmount.
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// The VE, the version, or a folder where one is mounted: with a slash in it
    #[arg(value_name = "VEID[@VERSION]|DIR")]
    pub what: Target,
    /// Detach it now, also while programs use it; it ends when they do
    #[arg(short, long)]
    pub lazy: bool,
}

/// Commands about holds.
#[derive(Subcommand, Debug)]
pub enum HoldCommand {
    /// Keep a version under a name
    #[command(after_help = "Examples:
  aspfs hold add 0000002A before-upgrade
  aspfs hold add 0000002A yesterday --at '1 day ago'")]
    Add {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
        /// The hold's name
        name: String,
        /// Which version
        #[command(flatten)]
        at: AtArgs,
        /// Keep every later version as well
        #[arg(long)]
        onwards: bool,
        /// Who wants it, for people
        #[arg(long, default_value = "administrator")]
        owner: String,
    },
    /// List a VE's holds
    List {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
    },
    /// Release a hold
    Release {
        /// The VE
        #[arg(value_name = "VEID")]
        ve: VeId,
        /// The hold's name
        name: String,
    },
}

/// Commands about the daemon.
#[derive(Subcommand, Debug)]
pub enum DaemonCommand {
    /// Stop the daemon; mounts stay and wait for the next one
    Stop {
        /// Unmount every VE first and end the holder too
        #[arg(long)]
        unmount: bool,
    },
}
