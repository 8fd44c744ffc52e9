//! Who names the writers of VEs, as it is configured.

use std::path::PathBuf;
use std::time::Duration;

use aspfs_replica::runtime::{ArbiterSettings, NamedBy};

use super::{ConfigError, Settings};
use crate::units;

/// Who names writers, and what happens when one is silent.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// Who.
    pub by: NamedBy,
    /// Whether a replica is promoted by itself.
    pub fail_over: bool,
    /// The program that is told of it.
    pub on_promotion: Option<PathBuf>,
}

fn bad<T>(name: &'static str, why: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value { name, why: why.into() })
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn lease(settings: &Settings) -> Result<Duration, ConfigError> {
    match units::parse_duration(text(&settings.lease)) {
        Ok(ms) if (1_000..=60_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        Ok(_) => bad("lease", "must be from 1s to 60s"),
        Err(e) => bad("lease", e.to_string()),
    }
}

fn servers(settings: &Settings) -> Result<Vec<String>, ConfigError> {
    let mut servers = Vec::new();
    for server in text(&settings.etcd).split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let server = server.trim_end_matches('/');
        let host = server.strip_prefix("http://").filter(|host| !host.is_empty() && !host.contains(['/', ' ', '@']));
        if host.is_none() {
            return bad("etcd", format!("{server:?} is no server like http://10.0.0.1:2379"));
        }
        servers.push(server.to_owned());
    }
    Ok(servers)
}

impl Naming {
    /// Checks what is set.
    pub(super) fn new(settings: &Settings) -> Result<Naming, ConfigError> {
        let prefix = text(&settings.etcd_prefix).to_owned();
        if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.len() > 200 {
            return bad("etcd-prefix", format!("{prefix:?} does not begin with / and end with a name"));
        }
        let (lease, servers) = (lease(settings)?, servers(settings)?);
        let by = match (text(&settings.writers), servers.is_empty()) {
            ("people", true) => NamedBy::People,
            ("people" | "etcd", false) => NamedBy::Etcd(ArbiterSettings { servers, prefix, lease }),
            ("replicas", true) => NamedBy::Replicas(lease),
            ("replicas", false) => return bad("writers", "either the replicas name them or the etcd that is set does"),
            ("etcd", true) => return bad("writers", "no etcd is set"),
            (other, _) => return bad("writers", format!("{other:?} is none of people, replicas and etcd")),
        };
        let fail_over = match (text(&settings.fail_over), &by) {
            ("by-hand", _) => false,
            ("by-itself", NamedBy::People) => {
                return bad("fail-over", "people name writers: nobody can know by itself that the old one is off");
            }
            ("by-itself", _) => true,
            (other, _) => return bad("fail-over", format!("{other:?} is neither by-hand nor by-itself")),
        };
        let on_promotion = Some(text(&settings.on_promotion)).filter(|p| !p.is_empty()).map(PathBuf::from);
        if let Some(program) = on_promotion.as_ref().filter(|p| !p.is_absolute()) {
            return bad("on-promotion", format!("{} does not begin with /", program.display()));
        }
        Ok(Naming { by, fail_over, on_promotion })
    }
}
