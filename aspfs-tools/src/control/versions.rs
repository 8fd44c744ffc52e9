//! Versions of VEs as people name them: `VEID@1234`, `VEID@-60s`, `VEID@before-upgrade`, `VEID@BRANCH`, `VEID@BRANCH:1234`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vefs::clock::Clock;
use vefs::ids::VeId;

use super::message::At;
use crate::units;

/// A version of a VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// After a transaction, or the newest that is not younger than a moment.
    At(At),
    /// The one that a hold of this name keeps, or the last of the branch of this name.
    Name(String),
    /// Of a branch, after a transaction.
    Branch(String, u64),
}

/// A VE, or a version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The VE.
    pub ve: VeId,
    /// Which version; none: the present state.
    pub version: Option<Which>,
}

/// Why a text names no VE or version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The VE.
    #[error(transparent)]
    Ve(#[from] vefs::ids::ParseIdError),
    /// The version.
    #[error("{0:?} is no version: a transaction number, a time, a hold's name, BRANCH or BRANCH:TXN is meant")]
    Version(String),
}

impl FromStr for Named {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Named, NameError> {
        let (ve, version) = text.split_once('@').map_or((text, None), |(ve, version)| (ve, Some(version)));
        Ok(Named { ve: ve.parse()?, version: version.map(str::parse).transpose()? })
    }
}

impl FromStr for Which {
    type Err = NameError;

    /// A time comes before a name of the same text.
    fn from_str(text: &str) -> Result<Which, NameError> {
        let bad = || NameError::Version(text.chars().take(80).collect());
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        if let Some(txn) = number(text) {
            return Ok(Which::At(At::Txn(txn)));
        }
        if let Ok(time) = units::parse_time(text, vefs::clock::SystemClock.wall()) {
            return Ok(Which::At(At::time(time)));
        }
        if let Some((branch, txn)) = text.rsplit_once(':')
            && vefs::store::is_branch_name(branch)
        {
            return number(txn).map(|txn| Which::Branch(branch.to_owned(), txn)).ok_or_else(bad);
        }
        let looks_like_a_number = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        if looks_like_a_number || text.len() > vefs::limits::LABEL_MAX || text.contains('\0') {
            return Err(bad());
        }
        Ok(Which::Name(text.to_owned()))
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ve)?;
        match &self.version {
            None => Ok(()),
            Some(Which::At(At::Txn(txn))) => write!(f, "@{txn}"),
            Some(Which::At(At::Time(secs, nanos))) => {
                write!(f, "@{}", units::show_time(vefs::clock::Timestamp { secs: *secs, nanos: *nanos }))
            }
            Some(Which::Name(name)) => write!(f, "@{name}"),
            Some(Which::Branch(branch, txn)) => write!(f, "@{branch}:{txn}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_version_is_understood() {
        let which = |text: &str| text.parse::<Named>().unwrap().version;
        assert_eq!(which("0000002A"), None);
        assert_eq!(which("0000002A@17"), Some(Which::At(At::Txn(17))));
        for time in ["-60s", "1 minute ago", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+01:00", "now"] {
            assert!(matches!(which(&format!("0000002A@{time}")), Some(Which::At(At::Time(..)))), "{time}");
        }
        assert_eq!(which("0000002A@before-upgrade"), Some(Which::Name("before-upgrade".into())));
        assert_eq!(which("0000002A@epoch-1.0:55"), Some(Which::Branch("epoch-1.0".into(), 55)));
        assert_eq!(which("0000002A@Ask me: why"), Some(Which::Name("Ask me: why".into())));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for bad in
            ["", "2A", "0000002A@", "0000002A@-", "0000002A@99999999999999999999", "0000002A@branch:", "0000002A@b:x"]
        {
            assert!(bad.parse::<Named>().is_err(), "{bad}");
        }
        assert!(format!("0000002A@{}", "n".repeat(200)).parse::<Named>().is_err());
    }

    #[test]
    fn a_name_is_shown_as_it_is_read() {
        for text in ["0000002A", "0000002A@17", "0000002A@2026-01-31T12:00:00.000Z", "0000002A@held", "0000002A@b.1:9"]
        {
            assert_eq!(text.parse::<Named>().unwrap().to_string(), text);
        }
    }
}
