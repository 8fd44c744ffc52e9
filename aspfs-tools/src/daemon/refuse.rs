//! Errors as clients are told them.

use vefs::errno::Errno;

use super::holder::LinkError;
use crate::control::message::{Refusal, Why};

/// What a handler returns.
pub type Answer<T> = Result<T, Refusal>;

/// A refusal of this kind.
pub fn refusal(kind: Why, message: impl Into<String>) -> Refusal {
    Refusal { kind, message: message.into() }
}

/// Says where an error of the core happened.
pub fn about(what: impl std::fmt::Display) -> impl FnOnce(vefs::Error) -> Refusal {
    move |e| {
        let kind = match &e {
            vefs::Error::Posix(Errno::ENOENT) => Why::NotFound,
            vefs::Error::Posix(Errno::EEXIST) => Why::Exists,
            vefs::Error::Posix(Errno::EDQUOT | Errno::ENOSPC) | vefs::Error::NoSpace { .. } => Why::Space,
            vefs::Error::Posix(Errno::EINVAL) => Why::Usage,
            _ => Why::Failed,
        };
        refusal(kind, format!("{what}: {e}"))
    }
}

impl From<vefs::Error> for Refusal {
    /// For errors that say themselves where they happened.
    fn from(e: vefs::Error) -> Refusal {
        let kind = if matches!(e, vefs::Error::NoSpace { .. }) { Why::Space } else { Why::Failed };
        refusal(kind, e.to_string())
    }
}

impl From<LinkError> for Refusal {
    fn from(e: LinkError) -> Refusal {
        refusal(Why::Failed, e.to_string())
    }
}
