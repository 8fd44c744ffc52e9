//! Content: write, fallocate, copy_file_range, and the cutting that truncation does.

use bytes::Bytes;

use vefs::clock::Timestamp;
use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::limits::WRITE_MAX;
use vefs::op::{FallocMode, Reply};

use super::content::Segment;
use super::{Model, end_of};

impl Model {
    pub(super) fn write(
        &mut self,
        ino: InodeNo,
        offset: u64,
        data: &Bytes,
        kill_priv: bool,
        now: Timestamp,
    ) -> Result<Reply, Errno> {
        if data.len() > WRITE_MAX {
            return Err(Errno::EINVAL);
        }
        let content = self.file(ino)?.content();
        if data.is_empty() {
            return Ok(Reply::Written(0));
        }
        let len = data.len() as u64;
        let end = end_of(offset, len)?;
        self.check_byte_quota(content.charged_in(offset, end), len)?;
        self.change_content(ino, |c| c.put(offset, Segment::Data(data.clone())));
        self.content_changed(ino, Some(end), kill_priv, now);
        Ok(Reply::Written(len))
    }

    pub(super) fn fallocate(
        &mut self,
        ino: InodeNo,
        how: FallocMode,
        offset: u64,
        len: u64,
        now: Timestamp,
    ) -> Result<Reply, Errno> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let content = self.file(ino)?.content();
        let end = end_of(offset, len)?;
        match how {
            FallocMode::Allocate { .. } => {
                let holes = content.holes(offset, end);
                self.check_byte_quota(0, holes.iter().map(|(a, b)| b - a).sum())?;
                self.change_content(ino, |c| holes.iter().for_each(|(a, b)| c.put(*a, Segment::Reserved(b - a))));
            }
            FallocMode::PunchHole => self.change_content(ino, |c| c.unmap(offset, end)),
            FallocMode::ZeroRange { .. } => {
                self.check_byte_quota(content.charged_in(offset, end), len)?;
                self.change_content(ino, |c| c.put(offset, Segment::Reserved(len)));
            }
        }
        let grows =
            matches!(how, FallocMode::Allocate { keep_size: false } | FallocMode::ZeroRange { keep_size: false });
        self.content_changed(ino, grows.then_some(end), true, now);
        Ok(Reply::Done)
    }

    pub(super) fn copy_range(
        &mut self,
        (src, src_offset): (InodeNo, u64),
        (dst, dst_offset): (InodeNo, u64),
        len: u64,
        now: Timestamp,
    ) -> Result<Reply, Errno> {
        let source = self.file(src)?;
        let target = self.file(dst)?.content();
        let len = len.min(source.attr.size.saturating_sub(src_offset));
        if len == 0 {
            return Ok(Reply::Written(0));
        }
        let dst_end = end_of(dst_offset, len)?;
        let src_end = src_offset + len;
        if src == dst && src_offset < dst_end && dst_offset < src_end {
            return Err(Errno::EINVAL);
        }
        let mut copied = source.content().slices(src_offset, src_end);
        copied.retain(|(_, seg)| !matches!(seg, Segment::Reserved(_)));
        let charge =
            source.content().charged_in(src_offset, src_end) - reserved_in(source.content(), src_offset, src_end);
        self.check_byte_quota(target.charged_in(dst_offset, dst_end), charge)?;
        self.change_content(dst, |c| {
            c.unmap(dst_offset, dst_end);
            copied.into_iter().for_each(|(at, seg)| c.put(at - src_offset + dst_offset, seg));
        });
        self.content_changed(dst, Some(dst_end), true, now);
        Ok(Reply::Written(len))
    }

    /// Sets a file's size: shrinking unmaps what lies beyond, growing leaves a hole.
    pub(super) fn truncate(&mut self, ino: InodeNo, size: u64) {
        let old = self.known(ino).attr.size;
        self.change_content(ino, |c| {
            if size < old {
                c.unmap(size, u64::MAX);
            }
        });
        self.known(ino).attr.size = size;
    }

    /// What every change of content does to the attributes.
    fn content_changed(&mut self, ino: InodeNo, end: Option<u64>, kill_priv: bool, now: Timestamp) {
        let node = self.known(ino);
        node.attr.size = node.attr.size.max(end.unwrap_or(0));
        (node.attr.mtime, node.attr.ctime) = (now, now);
        node.lose_capabilities();
        if kill_priv {
            node.kill_priv();
        }
    }
}

fn reserved_in(content: &super::Content, start: u64, end: u64) -> u64 {
    let reserved = |seg: Segment| if let Segment::Reserved(n) = seg { n } else { 0 };
    content.slices(start, end).into_iter().map(|(_, seg)| reserved(seg)).sum()
}
