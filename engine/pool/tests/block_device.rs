//! A pool on a block device, here a loop device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::process::Command;
use std::sync::Arc;

use thinstore_pool::{NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, FileOptions};

/// A loop device that goes with this.
struct LoopDevice(String);

impl LoopDevice {
    fn new(backing: &std::path::Path) -> LoopDevice {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", "4096"])
            .arg(backing)
            .output()
            .expect("losetup starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        LoopDevice(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
#[ignore = "needs root: makes a loop device"]
fn a_pool_lives_on_a_block_device() {
    let backing = tempfile::NamedTempFile::new().unwrap();
    backing.as_file().set_len(64 << 20).unwrap();
    let device = LoopDevice::new(backing.path());
    let options = PoolOptions {
        size_bytes: 64 << 20,
        default_device_size_bytes: 32 << 20,
        ..PoolOptions::default()
    };
    let storage = FileOptions::new().open(&device.0).unwrap();
    assert!(storage.is_block_device() && storage.is_direct());
    Pool::create(&storage, &options).unwrap();
    let pool = Pool::open(Arc::new(storage), &OpenOptions::default()).unwrap();
    let base = pool.create_layer(NewLayer::default()).unwrap();
    pool.device(base).unwrap().write(0, &[7; 1 << 20]).unwrap();
    pool.seal(base).unwrap();
    let child = pool.snapshot(base, NewLayer::default()).unwrap();
    pool.device(child).unwrap().write(8192, &[8; 4096]).unwrap();
    pool.close().unwrap();

    let storage = FileOptions::new().open(&device.0).unwrap();
    let pool = Pool::open(Arc::new(storage), &OpenOptions::default()).unwrap();
    let mut found = vec![0; 12_288];
    pool.device(child).unwrap().read(4096, &mut found).unwrap();
    assert!(found[..4096].iter().all(|byte| *byte == 7));
    assert!(found[4096..8192].iter().all(|byte| *byte == 8));
    assert!(pool.check().unwrap().is_clean());
    // Larger than its device a pool cannot become.
    assert!(pool.grow(128 << 20).is_err());
    assert!(pool.check().unwrap().is_clean());
    pool.close().unwrap();
}
