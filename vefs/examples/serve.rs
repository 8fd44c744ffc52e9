//! Serves one VE of a store on a folder until it is unmounted: `serve STORE VEID FOLDER`. Makes what is missing.
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use vefs::base::BaseTree;
use vefs::change::Settings;
use vefs::{Options, Store, fuse, store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let (path, id, dir) = (Path::new(&args[1]), args[2].parse()?, &args[3]);
    if !path.join("superblock").exists() {
        Store::create(path)?;
    }
    let store = Arc::new(Store::open(path, Options::default())?);
    let ve = store.ve(id).or_else(|_| store.create_ve(id, BaseTree::empty().hash(), Settings::default()))?;
    let _background = store::Background::start(store.clone(), Duration::from_secs(1))?;
    let host = fuse::Host::new(path, &store, true)?;
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", device.as_raw_fd());
    let data = std::ffi::CString::new(data)?;
    rustix::mount::mount(
        id.to_string(),
        dir.as_str(),
        "fuse.vefs",
        rustix::mount::MountFlags::NOATIME,
        data.as_c_str(),
    )?;
    let kept = rustix::fs::memfd_create("kept", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mounted = host.serve(ve, device.into(), kept, &fuse::Options::default())?;
    mounted.wait();
    store.close()?;
    Ok(())
}
