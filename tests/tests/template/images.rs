//! OCI image layouts made by hand: layers, whiteouts, digests, choice of an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aspfs_tools::template::source::Options;
use sha2::{Digest, Sha256};

use crate::bed::{import, import_with, look, store};
use crate::fixture::Make::{self, Dir, File, Link, Symlink};
use crate::fixture::{FULL, archive, everything, is_root, pack, tar};

/// A layout in the making.
pub struct Layout {
    pub dir: PathBuf,
    manifests: Vec<String>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Layout {
    pub fn new(dir: &Path) -> Layout {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Layout { dir: dir.to_owned(), manifests: Vec::new() }
    }

    /// Stores a blob and answers its descriptor, open at its end.
    fn blob(&self, kind: &str, bytes: &[u8]) -> String {
        let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        std::fs::write(self.dir.join("blobs/sha256").join(&digest), bytes).unwrap();
        format!(r#"{{"mediaType": "{kind}", "digest": "sha256:{digest}", "size": {}"#, bytes.len())
    }

    /// Adds an image of layers, the lowest first; `more` follows in its descriptor.
    pub fn image(&mut self, layers: &[(&str, Vec<u8>)], more: &str) -> String {
        let config = self.blob("application/vnd.oci.image.config.v1+json", b"{}") + "}";
        let of = |(how, bytes): &(&str, Vec<u8>)| match *how {
            "" => self.blob(LAYER, bytes) + "}",
            "gz" => self.blob(&format!("{LAYER}+gzip"), &pack(bytes, how)) + "}",
            "zst" => self.blob(&format!("{LAYER}+zstd"), &pack(bytes, how)) + "}",
            other => self.blob(other, bytes) + "}",
        };
        let layers = layers.iter().map(of).collect::<Vec<_>>().join(", ");
        let text =
            format!(r#"{{"schemaVersion": 2, "mediaType": "{MANIFEST}", "config": {config}, "layers": [{layers}]}}"#);
        let descriptor = self.blob(MANIFEST, text.as_bytes());
        self.manifests.push(format!("{descriptor}{more}}}"));
        self.write();
        descriptor
    }

    /// Moves all images so far into an index of their own.
    pub fn nest(&mut self, more: &str) {
        let all = std::mem::take(&mut self.manifests).join(", ");
        let text = format!(r#"{{"schemaVersion": 2, "mediaType": "{INDEX}", "manifests": [{all}]}}"#);
        let descriptor = self.blob(INDEX, text.as_bytes());
        self.manifests.push(format!("{descriptor}{more}}}"));
        self.write();
    }

    fn write(&self) {
        let all = self.manifests.join(", ");
        std::fs::write(self.dir.join("index.json"), format!(r#"{{"schemaVersion": 2, "manifests": [{all}]}}"#))
            .unwrap();
    }
}

/// The paths of the tree that layers make, with the content of files; directories end in a slash.
fn merged(layers: &[&[(&str, Make<'_>)]]) -> Result<BTreeMap<String, String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::new(&dir.path().join("image"));
    let hows = ["", "gz", "zst"];
    let layers: Vec<_> = layers.iter().enumerate().map(|(i, members)| (hows[i % 3], archive(members))).collect();
    layout.image(&layers, "");
    let store = store();
    let done = import(&store, &layout.dir).map_err(|e| e.to_string())?;
    let seen = look(&store, done.hash).into_iter().filter(|(path, _)| !path.is_empty());
    Ok(seen
        .map(|(path, seen)| {
            let slash = if seen.mode & 0o170000 == 0o040000 { "/" } else { "" };
            let text = String::from_utf8(seen.bytes).unwrap();
            (String::from_utf8(path).unwrap() + slash, text)
        })
        .collect())
}

fn is(got: Result<BTreeMap<String, String>, String>, want: &[(&str, &str)]) {
    let want = want.iter().map(|(path, bytes)| ((*path).to_owned(), (*bytes).to_owned()));
    assert_eq!(got.unwrap(), want.collect());
}

#[test]
fn a_whiteout_hides_what_lower_layers_have() {
    let lower: &[_] =
        &[("a", File(b"1")), ("d", Dir(0o755)), ("d/x", File(b"2")), ("d/e", Dir(0o755)), ("d/e/y", File(b"3"))];
    is(merged(&[lower, &[(".wh.a", File(b"")), ("d/.wh.e", File(b""))]]), &[("d/", ""), ("d/x", "2")]);
    is(merged(&[lower, &[(".wh.d", File(b""))]]), &[("a", "1")]);
    // Of what is not there nothing is hidden.
    is(merged(&[&[("a", File(b"1"))], &[(".wh.b", File(b"")), ("n/.wh.c", File(b""))]]), &[("a", "1")]);
}

#[test]
fn a_whiteout_does_not_hide_its_own_layer_wherever_it_stands() {
    let lower: &[_] = &[("a", File(b"old")), ("d", Dir(0o755)), ("d/x", File(b"old"))];
    let before: &[_] =
        &[(".wh.a", File(b"")), ("a", File(b"new")), (".wh.d", File(b"")), ("d", Dir(0o755)), ("d/y", File(b"new"))];
    let after: &[_] =
        &[("a", File(b"new")), (".wh.a", File(b"")), ("d", Dir(0o755)), ("d/y", File(b"new")), (".wh.d", File(b""))];
    for upper in [before, after] {
        is(merged(&[lower, upper]), &[("a", "new"), ("d/", ""), ("d/y", "new")]);
    }
}

#[test]
fn an_opaque_directory_hides_all_below_of_lower_layers() {
    let lower: &[_] = &[
        ("d", Dir(0o755)),
        ("d/x", File(b"old")),
        ("d/e", Dir(0o755)),
        ("d/e/y", File(b"old")),
        ("d/z", File(b"old")),
    ];
    let first: &[_] = &[("d", Dir(0o755)), ("d/.wh..wh..opq", File(b"")), ("d/e", Dir(0o755)), ("d/e/n", File(b"new"))];
    let last: &[_] = &[("d", Dir(0o755)), ("d/e", Dir(0o755)), ("d/e/n", File(b"new")), ("d/.wh..wh..opq", File(b""))];
    for upper in [first, last] {
        is(merged(&[lower, upper]), &[("d/", ""), ("d/e/", ""), ("d/e/n", "new")]);
    }
    is(merged(&[lower, &[(".wh..wh..opq", File(b""))]]), &[]);
}

#[test]
fn a_file_replaces_a_directory_and_the_other_way_round() {
    let lower: &[_] = &[("d", Dir(0o755)), ("d/x", File(b"1")), ("f", File(b"2")), ("l", Symlink("f"))];
    let upper: &[_] =
        &[("d", File(b"3")), ("f", Dir(0o755)), ("f/y", File(b"4")), ("l", Dir(0o755)), ("l/z", File(b"5"))];
    is(merged(&[lower, upper]), &[("d", "3"), ("f/", ""), ("f/y", "4"), ("l/", ""), ("l/z", "5")]);
}

#[test]
fn links_reach_into_lower_layers_and_outlive_a_replaced_name() {
    let got = merged(&[
        &[("a", File(b"1"))],
        &[("b", Link("a"))],
        &[("a", File(b"2")), ("c", Link("/b"))],
        &[(".wh.b", File(b""))],
    ]);
    is(got, &[("a", "2"), ("c", "1")]);
}

#[test]
fn directories_merge_and_missing_ones_are_made() {
    is(
        merged(&[&[("d", Dir(0o700)), ("d/x", File(b"1"))], &[("d/n/m/y", File(b"2")), ("./d/z", File(b"3"))]]),
        &[("d/", ""), ("d/n/", ""), ("d/n/m/", ""), ("d/n/m/y", "2"), ("d/x", "1"), ("d/z", "3")],
    );
    // Notes of an older union file system are nobody's files.
    is(merged(&[&[("a", File(b"1")), (".wh..wh.plnk", Dir(0o700)), (".wh..wh.aufs", File(b""))]]), &[("a", "1")]);
}

/// The name of a directory ends in a slash, and its last part was taken for the empty one behind that: no whiteout, so that aufs's notes to
/// itself became directories of the tree, and what such a member hides stayed.
#[test]
fn a_whiteout_may_be_a_directory() {
    let lower: &[_] = &[("a", File(b"1")), ("d", Dir(0o755)), ("d/x", File(b"2"))];
    let notes = [(".wh..wh.plnk/", Dir(0o700)), (".wh..wh.orph//", Dir(0o700)), ("d/.wh..wh.aufs/", Dir(0o700))];
    is(merged(&[lower, &notes]), &[("a", "1"), ("d/", ""), ("d/x", "2")]);
    is(merged(&[lower, &[("d/.wh..wh..opq/", Dir(0o700))]]), &[("a", "1"), ("d/", "")]);
    is(merged(&[lower, &[(".wh.d/", Dir(0o700))]]), &[("a", "1")]);
}

/// What layer told of an entry was kept with the inode: a new link to `a` made the layer the owner of `b` as well, which is another name of
/// the same inode, and the whiteout of `b` left it there.
#[test]
fn a_whiteout_hides_one_name_of_several() {
    let lower: &[_] = &[("a", File(b"1")), ("b", Link("a")), ("d", Dir(0o755)), ("d/e", Link("a"))];
    let whiteouts: &[_] = &[("c", Link("a")), (".wh.b", File(b"")), ("d/.wh..wh..opq", File(b""))];
    is(merged(&[lower, whiteouts]), &[("a", "1"), ("c", "1"), ("d/", "")]);
    // A name that the layer tells of once more is its own.
    is(merged(&[&lower[..2], &[("b", Link("a")), (".wh.b", File(b"")), (".wh.a", File(b""))]]), &[("b", "1")]);
}

/// A directory that is made opaque again is not looked through again; what the layer brought in between stays, and the next layer may hide it.
#[test]
fn an_opaque_directory_may_be_told_of_again() {
    let lower: &[_] = &[("d", Dir(0o755)), ("d/x", File(b"old")), ("d/e", Dir(0o755)), ("d/e/y", File(b"old"))];
    let opaque = ("d/.wh..wh..opq", File(b""));
    let upper: &[_] = &[opaque, ("d/e/n", File(b"new")), opaque, ("d/z", File(b"new")), opaque, (".wh.d", File(b""))];
    is(merged(&[lower, upper]), &[("d/", ""), ("d/e/", ""), ("d/e/n", "new"), ("d/z", "new")]);
    is(merged(&[lower, upper, &[opaque]]), &[("d/", "")]);
    is(merged(&[lower, upper, &[(".wh.d", File(b""))]]), &[]);
}

#[test]
fn an_image_of_a_tree_gives_the_trees_hash() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    everything(&tree);
    tar(&tree, &dir.path().join("layer"), &FULL);
    let layer = std::fs::read(dir.path().join("layer")).unwrap();
    let lower =
        archive(&[("dir", Dir(0o700)), ("dir/gone", File(b"gone")), ("empty", Dir(0o700)), ("empty/x", File(b"x"))]);
    let mut layout = Layout::new(&dir.path().join("image"));
    layout.image(&[("", lower), ("zst", archive(&[("dir/.wh.gone", File(b""))])), ("gz", layer)], "");
    let store = store();
    let want = import(&store, &tree).unwrap().hash;
    assert_eq!(import(&store, &layout.dir).unwrap().hash, want);
    for (name, options) in [("image.tar", &["--format=gnu"][..]), ("image.tar.gz", &["--format=gnu", "-z"])] {
        let packed = dir.path().join(name);
        tar(&layout.dir, &packed, options);
        assert_eq!(import(&store, &packed).unwrap().hash, want, "{name}");
    }
}

fn text(store: &std::sync::Arc<vefs::Store>, layout: &Layout, image: Option<&str>) -> Result<String, String> {
    let options = Options { image: image.map(str::to_owned), ..Options::default() };
    let done = import_with(store, &layout.dir, &options).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(look(store, done.hash)[&b"f"[..]].bytes.clone()).unwrap())
}

fn platform(name: &str, arch: &str) -> String {
    let note = format!(r#""annotations": {{"org.opencontainers.image.ref.name": "{name}"}}"#);
    format!(r#", "platform": {{"os": "linux", "architecture": "{arch}"}}, {note}"#)
}

#[test]
fn one_image_of_several_is_chosen() {
    let (dir, store) = (tempfile::tempdir().unwrap(), store());
    let mut layout = Layout::new(dir.path());
    let of = |bytes| [("", archive(&[("f", File(bytes))]))];
    layout.image(&of(b"1"), &platform("one", "s390x"));
    assert_eq!(text(&store, &layout, None).unwrap(), "1", "the only one, whatever it is for");
    let second = layout.image(&of(b"2"), &platform("two", "ppc64le"));
    let error = text(&store, &layout, None).unwrap_err();
    assert!(error.contains("several images") && error.contains("one  linux/s390x  sha256:"), "{error}");
    let digest = second.split('"').nth(7).unwrap();
    for (wanted, want) in [("one", "1"), ("linux/ppc64le", "2"), (digest, "2"), (&digest[7..20], "2")] {
        assert_eq!(text(&store, &layout, Some(wanted)).unwrap(), want, "{wanted}");
    }
    assert!(text(&store, &layout, Some("three")).unwrap_err().contains("no image is \"three\""));
    // An attestation is no image.
    layout.image(&of(b"3"), r#", "annotations": {"vnd.docker.reference.type": "attestation-manifest"}"#);
    layout.nest("");
    assert_eq!(text(&store, &layout, Some("two")).unwrap(), "2", "in an index of its own");
    let here = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    layout.image(&of(b"4"), &platform("here", here));
    assert_eq!(text(&store, &layout, None).unwrap(), "4", "the only one for this machine");
}

/// Breaks a layout in one way; the import must fail with these words, and nothing must have a name.
fn refused(what: &str, words: &[&str], spoil: impl FnOnce(&Path, &str)) {
    let (dir, store) = (tempfile::tempdir().unwrap(), store());
    let mut layout = Layout::new(dir.path());
    let bytes = archive(&[("f", File(&[7; 100_000]))]);
    let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    layout.image(&[("", bytes)], "");
    spoil(dir.path(), &digest);
    let error = import(&store, dir.path()).unwrap_err().to_string();
    assert!(words.iter().all(|w| error.contains(w)), "{what}: {error}");
    assert_eq!(store.storage().list("bases").unwrap(), Vec::<String>::new(), "{what}");
    assert!(store.template_list().unwrap().is_empty());
}

#[test]
fn damaged_images_are_refused() {
    let blob = |dir: &Path, digest: &str| dir.join("blobs/sha256").join(digest);
    refused("a flipped bit", &["is damaged", "its digest is sha256:"], |dir, digest| {
        let mut bytes = std::fs::read(blob(dir, digest)).unwrap();
        bytes[50_000] ^= 1;
        std::fs::write(blob(dir, digest), bytes).unwrap();
    });
    refused("a flipped bit behind the end of the archive", &["is damaged"], |dir, digest| {
        let mut bytes = std::fs::read(blob(dir, digest)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(blob(dir, digest), bytes).unwrap();
    });
    refused("cut off", &["50000 bytes, not"], |dir, digest| {
        let bytes = std::fs::read(blob(dir, digest)).unwrap();
        std::fs::write(blob(dir, digest), &bytes[..50_000]).unwrap();
    });
    refused("longer", &["has more bytes, not"], |dir, digest| {
        let bytes = std::fs::read(blob(dir, digest)).unwrap();
        std::fs::write(blob(dir, digest), [bytes, vec![0; 512]].concat()).unwrap();
    });
    refused("missing", &["opening", "blobs/sha256/"], |dir, digest| std::fs::remove_file(blob(dir, digest)).unwrap());
    let edit = |dir: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(dir.join("index.json")).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(dir.join("index.json"), text.replace(from, to)).unwrap();
    };
    refused("a digest that is a path", &["index.json", "../../"], |dir, _| edit(dir, "sha256:", "sha256:../../"));
    refused("another kind of digest", &["sha256 or sha512"], |dir, _| edit(dir, "sha256:", "md5:"));
    refused("no JSON", &["index.json"], |dir, _| edit(dir, "schemaVersion", "\""));
    refused("another manifest", &["has", "bytes, not"], |dir, _| edit(dir, "\"size\": ", "\"size\": 1"));
    refused("a layout of another version", &["\"2.0.0\""], |dir, _| {
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "2.0.0"}"#).unwrap();
    });
    refused("deep JSON", &["index.json"], |dir, _| {
        std::fs::write(dir.join("index.json"), "[".repeat(1 << 20)).unwrap();
    });
    refused("no image", &["no image"], |dir, _| {
        std::fs::write(dir.join("index.json"), r#"{"schemaVersion": 2, "manifests": []}"#).unwrap();
    });
}

#[test]
fn layers_of_unknown_kinds_are_refused_before_anything_is_read() {
    let (dir, store) = (tempfile::tempdir().unwrap(), store());
    let mut layout = Layout::new(dir.path());
    layout.image(&[("application/vnd.oci.image.layer.v1.tar+encrypted", vec![1, 2, 3])], "");
    let error = import(&store, dir.path()).unwrap_err().to_string();
    assert!(error.contains("tar+encrypted"), "{error}");
}

#[test]
fn a_member_below_a_link_of_a_lower_layer_is_refused() {
    let error = merged(&[&[("l", Symlink("/etc"))], &[("l/passwd", File(b"x"))]]).unwrap_err();
    assert!(error.contains("\"l/passwd\"") && error.contains("symbolic link"), "{error}");
}

/// Each index named the same one below it a thousand times over, three deep: a file of some hundred kilobytes had a billion documents read, as
/// only images were counted. Now it is refused before long.
#[test]
fn indices_that_multiply_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::new(&dir.path().join("image"));
    layout.nest("");
    for _ in 0..2 {
        let one = layout.manifests.remove(0);
        layout.manifests = vec![one; 1000];
        layout.nest("");
    }
    let one = layout.manifests.remove(0);
    layout.manifests = vec![one; 1000];
    layout.write();
    let error = import(&store(), &layout.dir).err().unwrap().to_string();
    assert!(error.contains("more than 1000 indices"), "{error}");
}
