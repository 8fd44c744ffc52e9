//! Whether a stored value may be used under its key: what comes from the metadata store is checked like what comes from
//! the journal, so that no row makes a sum overflow (promise G29).

use super::key::{Key, KeyKind, Value};
use crate::change::validate::{self, Invalid};

/// Checks a value against the kind of its key. A whiteout may stand under any key that a base tree can have.
pub fn value(key: &Key, value: &Value) -> Result<(), Invalid> {
    let checked = match (key.kind(), value) {
        (KeyKind::Inode, Value::Inode(i)) => validate::ino(key.ino()).and_then(|()| validate::inode(i)),
        (KeyKind::Dentry, Value::Dentry(d)) => validate::name(key.rest()).and_then(|()| validate::dentry(d)),
        (KeyKind::Cookie, Value::Entry(e)) => {
            validate::name(&e.name).and_then(|()| validate::ino(e.ino)).and_then(|()| validate::cookie(key.number()))
        }
        (KeyKind::Target, Value::Bytes(b)) => validate::target(b),
        (KeyKind::Xattr, Value::Bytes(b)) => validate::xattr_value(b),
        (KeyKind::Extent, Value::Extent(e)) => validate::extent(key.number(), e),
        (KeyKind::Hold, Value::Hold(h)) => validate::hold(h),
        (KeyKind::Policy, Value::Policy(p)) => validate::policy(p),
        (KeyKind::Orphan, Value::Mark) | (KeyKind::Settings, Value::Settings(_)) => Ok(()),
        (KeyKind::Inode | KeyKind::Dentry | KeyKind::Cookie | KeyKind::Target | KeyKind::Xattr, Value::Whiteout) => {
            Ok(())
        }
        _ => Err("kind of value"),
    };
    checked.map_err(Invalid::Value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InodeNo, PayloadId, TxnNo};
    use crate::types::{Extent, Source};

    #[test]
    fn a_value_must_fit_its_key() {
        let extent =
            |len, offset| Value::Extent(Extent { len, source: Source::Payload(PayloadId { txn: TxnNo(1), offset }) });
        let key = Key::extent(InodeNo(7), 10);
        assert_eq!(value(&key, &extent(5, 0)), Ok(()));
        assert_eq!(value(&key, &extent(0, 0)), Err(Invalid::Value("extent")));
        assert_eq!(value(&key, &extent(u64::MAX - 5, 0)), Err(Invalid::Value("extent")));
        assert_eq!(value(&key, &extent(5, u64::MAX - 3)), Err(Invalid::Value("payload id")));
        assert_eq!(value(&key, &Value::Mark), Err(Invalid::Value("kind of value")));
        assert_eq!(value(&key, &Value::Whiteout), Err(Invalid::Value("kind of value")));
        assert_eq!(value(&Key::inode(InodeNo(7)), &Value::Whiteout), Ok(()));
        assert_eq!(value(&Key::target(InodeNo(7)), &Value::Bytes(Box::new([]))), Err(Invalid::Value("link target")));
    }
}
