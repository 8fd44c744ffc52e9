//! The same tree from every kind of source.
use crate::bed::*;
use std::process::Command;

#[test]
fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::write(tree.join("a/b/c"), b"hello").unwrap();
    std::fs::write(tree.join("a/big"), vec![7; 200_000]).unwrap();
    std::fs::hard_link(tree.join("a/big"), tree.join("a/zbig")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("l")).unwrap();
    let ok = Command::new("tar")
        .args(["--format=posix", "-C"])
        .arg(&tree)
        .args(["-cf"])
        .arg(dir.path().join("t.tar"))
        .arg(".")
        .status()
        .unwrap();
    assert!(ok.success());
    let store = store();
    let a = import(&store, &tree).unwrap();
    println!(
        "{a:?} {:#?}",
        look(&store, a.hash).keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect::<Vec<_>>()
    );
    let b = import(&store, &dir.path().join("t.tar")).unwrap();
    assert_eq!(look(&store, a.hash), look(&store, b.hash));
    assert_eq!(a.hash, b.hash);
    assert_eq!(b.new_bytes, 0);
    store.template_put("x", a.hash, "here").unwrap();
}
