//! The engine beside plain reads and writes of a file of the same size, in one run: `cargo bench`.
//!
//! Times drift on a shared machine; what counts is the ratio of neighbours.

#![allow(clippy::unwrap_used, clippy::as_conversions, missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use thinstore_pool::{LayerId, NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, FileOptions, Storage};

const SIZE_BYTES: u64 = 256 << 20;
const BLOCK: u64 = 4096;

/// Blocks in a scattered order, each as likely as any other.
fn scattered(step: u64) -> u64 {
    step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 & (SIZE_BYTES / BLOCK - 1)
}

fn pool_in(folder: &Path) -> Pool {
    let path = folder.join("pool");
    let options = PoolOptions {
        size_bytes: 2 << 30,
        default_device_size_bytes: SIZE_BYTES,
        ..PoolOptions::default()
    };
    let storage = FileOptions::new().create_new(&path, options.size_bytes).unwrap();
    Pool::create(&storage, &options).unwrap();
    Pool::open(Arc::new(storage), &OpenOptions::default()).unwrap()
}

fn filled(pool: &Pool) -> LayerId {
    let id = pool.create_layer(NewLayer::default()).unwrap();
    let device = pool.device(id).unwrap();
    let data = vec![7; 1 << 20];
    for offset in (0..SIZE_BYTES).step_by(data.len()) {
        device.write(offset, &data).unwrap();
    }
    device.flush().unwrap();
    device.flush().unwrap();
    id
}

fn random_io(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let file = FileOptions::new().create_new(folder.path().join("plain"), SIZE_BYTES).unwrap();
    for offset in (0..SIZE_BYTES).step_by(1 << 20) {
        file.write_at(offset, &vec![7; 1 << 20]).unwrap();
    }
    let pool = pool_in(folder.path());
    let base = filled(&pool);
    let device = pool.device(base).unwrap();
    let mut group = criterion.benchmark_group("random 4 KiB");
    group.throughput(Throughput::Bytes(BLOCK));
    let mut buffer = vec![0; 4096];
    let mut step = 0;
    group.bench_function("read, file", |bencher| {
        bencher.iter(|| {
            step += 1;
            file.read_at(scattered(step) * BLOCK, black_box(&mut buffer)).unwrap();
        });
    });
    group.bench_function("read, device", |bencher| {
        bencher.iter(|| {
            step += 1;
            device.read(scattered(step) * BLOCK, black_box(&mut buffer)).unwrap();
        });
    });
    group.bench_function("overwrite, file", |bencher| {
        bencher.iter(|| {
            step += 1;
            file.write_at(scattered(step) * BLOCK, black_box(&buffer)).unwrap();
        });
    });
    group.bench_function("overwrite, device", |bencher| {
        bencher.iter(|| {
            step += 1;
            device.write(scattered(step) * BLOCK, black_box(&buffer)).unwrap();
        });
    });
    group.finish();
}

fn snapshots(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let pool = pool_in(folder.path());
    let base = filled(&pool);
    pool.seal(base).unwrap();
    let mut group = criterion.benchmark_group("layers");
    group.sample_size(20);
    group.bench_function("snapshot and remove", |bencher| {
        bencher.iter(|| {
            let id = pool.snapshot(base, NewLayer::default()).unwrap();
            pool.remove(id).unwrap();
        });
    });
    group.finish();
}

criterion_group!(engine, random_io, snapshots);
criterion_main!(engine);
