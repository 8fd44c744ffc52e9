//! An OCI image layout as a source (OCI image specification 1.1, "Image Layout"): a directory, or a tar archive of one. Its layers are
//! read in order, each on top of those below it, with whiteouts.
//!
//! Every blob's length and digest are checked while it is read; [`super::read`] ends with an error if one does not hold, and then
//! nobody takes what was told of for a tree. In an image a member below a symbolic link is refused, as in any archive.

mod blobs;
mod choose;

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;

use oci_spec::image::{Descriptor, ImageManifest, MediaType};

use super::names::Names;
use super::tar::members::TarError;
use super::tar::{Archive, unpack};
use super::{Options, Out, Result, SourceError};
use blobs::Checked;
pub(super) use blobs::{Blobs, is_layout};

/// Most layers of an image.
const LAYERS_MAX: usize = 1024;

/// Reads the image that the options name.
pub(super) fn read(blobs: Blobs, options: &Options, out: &mut Out<'_>) -> Result<()> {
    let chosen = choose::manifest(&blobs, options.image.as_deref())?;
    let bytes = blobs.document(&chosen)?;
    let manifest = ImageManifest::from_reader(&bytes[..])
        .map_err(|e| SourceError::Image(format!("manifest {} cannot be read: {}", chosen.digest(), why(&e))))?;
    let layers = manifest.layers();
    if layers.len() > LAYERS_MAX {
        return Err(SourceError::Image(format!("it has {} layers, over the limit of {LAYERS_MAX}", layers.len())));
    }
    layers.iter().try_for_each(is_known)?;
    let total = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size()));
    let mut names = Names::new();
    let mut before = 0u64;
    for layer in layers {
        names.next_layer();
        read_layer(&blobs, layer, &mut names, (before, total), out)?;
        before = before.saturating_add(layer.size());
    }
    Ok(())
}

/// An error with all its reasons.
fn why(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(reason) = next {
        out = format!("{out}: {reason}");
        next = reason.source();
    }
    out
}

/// Refuses what is no layer of files.
fn is_known(layer: &Descriptor) -> Result<()> {
    const DOCKER: [&str; 2] =
        ["application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.diff.tar"];
    match layer.media_type() {
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Ok(()),
        MediaType::Other(other) if DOCKER.contains(&other.as_str()) => Ok(()),
        other => {
            let digest = layer.digest();
            Err(SourceError::Image(format!(
                "layer {digest} is of type {other}: only tar, tar+gzip and tar+zstd are known"
            )))
        }
    }
}

fn read_layer(
    blobs: &Blobs,
    layer: &Descriptor,
    names: &mut Names,
    (before, total): (u64, u64),
    out: &mut Out<'_>,
) -> Result<()> {
    let place = format!("layer {}", layer.digest());
    let blob = Rc::new(RefCell::new(blobs.open(layer)?));
    let read = Shared(blob.clone());
    // A damaged blob fails in many ways: what counts is that it is not the one that was meant.
    let checked = |result: Result<()>| match result {
        Err(SourceError::Receiver(e)) => Err(SourceError::Receiver(e)),
        other => blob.borrow_mut().finish().and(other),
    };
    let unpacked = match unpack::open(Box::new(read)) {
        Ok(unpacked) => unpacked,
        Err(e) => return checked(Err(TarError::from(e).at(&place))),
    };
    let mut archive = Archive { place, names, layered: true };
    let mut note = |out: &mut Out<'_>| out.read(before.saturating_add(blob.borrow().done()), total);
    let result = archive.read(unpacked, &mut note, out);
    checked(result)
}

/// A blob that is read here and asked about there.
struct Shared(Rc<RefCell<Checked>>);

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(buf)
    }
}
