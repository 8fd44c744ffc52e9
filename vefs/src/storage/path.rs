//! What a path in a store may look like. The same rules for every implementation, so that what works in memory works
//! on disk: relative, `/`-separated, no empty, `.` or `..` component, no NUL.

use std::io;

/// Checks the path of a file. `InvalidInput` when it is not allowed.
pub(super) fn check_file(path: &str) -> io::Result<()> {
    let allowed = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(allowed) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a path within a store: {path:?}")))
}

/// Checks the path of a folder, where the empty path is the store itself. `InvalidInput` when it is not allowed.
pub(super) fn check_dir(dir: &str) -> io::Result<()> {
    if dir.is_empty() { Ok(()) } else { check_file(dir) }
}

/// The folder a path lies in (empty for the store itself) and its last component.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The folders a path lies in, the outermost first, the store itself left out.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_store_are_refused() {
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b"] {
            assert_eq!(check_file(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
        for good in ["a", "a/b", "..a", "a/.b", "a/b/c..d"] {
            check_file(good).unwrap();
        }
        check_dir("").unwrap();
        assert!(check_dir("a/").is_err());
    }

    #[test]
    fn ancestors_come_outermost_first() {
        assert_eq!(ancestors("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(ancestors("a").count(), 0);
        assert_eq!(split("a/b/c"), ("a/b", "c"));
        assert_eq!(split("c"), ("", "c"));
    }
}
