//! `aspfs-tools`: the only crate that composes. File system, replication and command line meet here and nowhere else.
//!
//! The layering rule, which the `tidy` test checks: this crate may depend on every crate of the product, and no crate
//! of the product depends on it. A binary parses its arguments, builds the parts, connects them and reports errors;
//! whatever could be of use to a second caller belongs in a library crate.
//!
//! Three programs are made of it: `aspfsd`, a node's storage daemon ([`daemon`]), which owns the store; `aspfs-holder` (the crate of that name), which owns
//! what must survive the daemon, and nothing else; and `aspfs` ([`cli`]), the administrator's client, which is also mount(8)'s helper.

pub mod cli;
pub mod client;
pub mod control;
pub mod daemon;
pub mod sys;
pub mod template;
pub mod units;

/// The release this build belongs to, as `MAJOR.MINOR.PATCH` (semver.org): what every binary prints for `--version`.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_version_is_three_numbers() {
        let parts: Vec<Option<u32>> = version().split('.').map(|p| p.parse().ok()).collect();
        assert_eq!(parts.len(), 3, "{}", version());
        assert!(parts.iter().all(Option::is_some), "{}", version());
    }
}
