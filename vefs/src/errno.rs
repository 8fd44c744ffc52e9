//! The POSIX error numbers that a plan can answer with. One type, so that the mapping to the kernel is exhaustive.

/// An error an operation answers with (errno(3)). The name is the answer; the numeric value is Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[allow(missing_docs, reason = "the names are errno(3)'s own")]
pub enum Errno {
    #[error("operation not permitted")]
    EPERM = 1,
    #[error("no such file or directory")]
    ENOENT = 2,
    #[error("interrupted system call")]
    EINTR = 4,
    #[error("input/output error")]
    EIO = 5,
    #[error("no such device or address")]
    ENXIO = 6,
    #[error("bad file descriptor")]
    EBADF = 9,
    #[error("resource temporarily unavailable")]
    EAGAIN = 11,
    #[error("device or resource busy")]
    EBUSY = 16,
    #[error("file exists")]
    EEXIST = 17,
    #[error("not a directory")]
    ENOTDIR = 20,
    #[error("is a directory")]
    EISDIR = 21,
    #[error("invalid argument")]
    EINVAL = 22,
    #[error("file too large")]
    EFBIG = 27,
    #[error("no space left on device")]
    ENOSPC = 28,
    #[error("read-only file system")]
    EROFS = 30,
    #[error("too many links")]
    EMLINK = 31,
    #[error("numerical result out of range")]
    ERANGE = 34,
    #[error("file name too long")]
    ENAMETOOLONG = 36,
    #[error("directory not empty")]
    ENOTEMPTY = 39,
    #[error("no data available")]
    ENODATA = 61,
    #[error("operation not supported")]
    EOPNOTSUPP = 95,
    #[error("stale file handle")]
    ESTALE = 116,
    #[error("disk quota exceeded")]
    EDQUOT = 122,
}

impl Errno {
    /// Linux's number for it.
    pub fn code(self) -> i32 {
        self as i32
    }
}
