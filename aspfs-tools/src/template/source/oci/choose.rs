//! Which image of a layout is meant.

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use super::super::{Result, SourceError};
use super::blobs::Blobs;

/// How deep indices may lie within indices.
const DEPTH_MAX: usize = 4;
/// Most indices that are read, whatever they name: each is a document of up to 4 MiB that may name thousands of others.
const INDICES_MAX: usize = 1000;
/// Most images in all of them.
const IMAGES_MAX: usize = 4096;
/// The annotation that holds an image's name.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation of what is not an image but a statement about one.
const NO_IMAGE: &str = "vnd.docker.reference.type";

/// An image in the layout.
struct Image {
    descriptor: Descriptor,
    name: Option<String>,
    platform: Option<String>,
}

impl Image {
    fn is(&self, wanted: &str) -> bool {
        let digest = self.descriptor.digest().to_string();
        let hex = digest.split_once(':').map_or("", |(_, hex)| hex);
        let begins = wanted.len() >= 6 && (digest.starts_with(wanted) || hex.starts_with(wanted));
        let named = [&self.name, &self.platform].into_iter().flatten().any(|name| name == wanted);
        let platform =
            self.platform.as_deref().is_some_and(|p| p.starts_with(wanted) && p[wanted.len()..].starts_with('/'));
        named || begins || platform
    }

    fn shown(&self) -> String {
        let parts = [self.name.clone(), self.platform.clone(), Some(self.descriptor.digest().to_string())];
        parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
    }
}

/// What the indices name.
#[derive(Default)]
struct Found {
    images: Vec<Image>,
    /// How many indices were read.
    indices: usize,
}

/// The manifest of the image that is wanted; without a wish the only one, or the only one for this machine.
pub(super) fn manifest(blobs: &Blobs, wanted: Option<&str>) -> Result<Descriptor> {
    let mut found = Found::default();
    collect(blobs, &blobs.index()?, None, 0, &mut found)?;
    let images = found.images;
    if images.is_empty() {
        return Err(SourceError::Image("there is no image in it".into()));
    }
    let all = images.iter().map(Image::shown).collect::<Vec<_>>().join("\n  ");
    let matching: Vec<&Image> = match wanted {
        Some(wanted) => images.iter().filter(|image| image.is(wanted)).collect(),
        None if images.len() == 1 => images.iter().collect(),
        None => images.iter().filter(|image| image.is(&here())).collect(),
    };
    let say = |why: String| Err(SourceError::Image(format!("{why}; there are:\n  {all}")));
    match (matching[..].first(), matching.len(), wanted) {
        (Some(image), 1, _) => Ok(image.descriptor.clone()),
        // Several names for one image.
        (Some(image), ..) if matching.iter().all(|m| m.descriptor.digest() == image.descriptor.digest()) => {
            Ok(image.descriptor.clone())
        }
        (None, _, Some(wanted)) => say(format!("no image is {wanted:?}")),
        (_, _, Some(wanted)) => say(format!("several images are {wanted:?}")),
        _ => say("it holds several images, say which one (name, platform or digest)".into()),
    }
}

/// The platform of this machine, as images name it.
fn here() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{arch}")
}

fn collect(blobs: &Blobs, index: &ImageIndex, name: Option<&String>, depth: usize, out: &mut Found) -> Result<()> {
    for descriptor in index.manifests() {
        let note = |key| descriptor.annotations().as_ref().and_then(|notes| notes.get(key));
        if note(NO_IMAGE).is_some() {
            continue;
        }
        let name = note(NAME).or(name);
        match descriptor.media_type() {
            MediaType::ImageIndex => nested(blobs, descriptor, name, depth, out)?,
            MediaType::Other(other) if other == "application/vnd.docker.distribution.manifest.list.v2+json" => {
                nested(blobs, descriptor, name, depth, out)?;
            }
            MediaType::ImageManifest => out.images.push(image(descriptor, name)),
            MediaType::Other(other) if other == "application/vnd.docker.distribution.manifest.v2+json" => {
                out.images.push(image(descriptor, name));
            }
            _ => {}
        }
        if out.images.len() > IMAGES_MAX {
            return Err(SourceError::Image(format!("it holds more than {IMAGES_MAX} images")));
        }
    }
    Ok(())
}

fn nested(blobs: &Blobs, descriptor: &Descriptor, name: Option<&String>, depth: usize, out: &mut Found) -> Result<()> {
    if depth == DEPTH_MAX {
        return Err(SourceError::Image(format!("its indices are nested more than {DEPTH_MAX} deep")));
    }
    out.indices += 1;
    if out.indices > INDICES_MAX {
        return Err(SourceError::Image(format!("it has more than {INDICES_MAX} indices within indices")));
    }
    let bytes = blobs.document(descriptor)?;
    let index = ImageIndex::from_reader(&bytes[..])
        .map_err(|e| SourceError::Image(format!("index {} cannot be read: {}", descriptor.digest(), super::why(&e))))?;
    collect(blobs, &index, name, depth + 1, out)
}

fn image(descriptor: &Descriptor, name: Option<&String>) -> Image {
    let platform = descriptor.platform().as_ref().map(|p| {
        let variant = p.variant().as_ref().map_or(String::new(), |v| format!("/{v}"));
        format!("{}/{}{variant}", p.os(), p.architecture())
    });
    Image { descriptor: descriptor.clone(), name: name.cloned(), platform }
}
