//! What reads and overwrites take from the heap: nothing, once the pages that they need are in the cache.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use thinstore_pool::{BLOCK_BYTES, NewLayer, OpenOptions, Pool, PoolOptions};
use thinstore_storage::{BlockDevice, MemoryStorage};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is just ending has no counter any more, and nothing to count.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came, and what that answers goes back; counting allocates
// nothing, because the counter needs no initialization and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn reads_and_overwrites_take_nothing_from_the_heap() {
    let size_bytes = 1 << 30;
    let storage = Arc::new(MemoryStorage::new(size_bytes));
    Pool::create(&*storage, &PoolOptions { size_bytes, ..PoolOptions::default() }).unwrap();
    let open = OpenOptions { background: false, ..OpenOptions::default() };
    let pool = Pool::open(storage, &open).unwrap();
    let base = pool.create_layer(NewLayer::default()).unwrap();
    let blocks = 4096;
    // Scattered, so that neighbours on the device are none in the pool.
    let device = pool.device(base).unwrap();
    for number in 0..blocks {
        let block = number * 1237 % blocks;
        device.write(block * BLOCK_BYTES, &[1; 4096]).unwrap();
    }
    device.flush().unwrap();
    drop(device);
    pool.seal(base).unwrap();
    // What is read is held against its checksum too.
    pool.sum_sealed().unwrap();
    let device = pool.device(pool.snapshot(base, NewLayer::default()).unwrap()).unwrap();
    let mut buffer = vec![0; 65_536];
    for block in 0..blocks / 2 {
        device.write(block * BLOCK_BYTES, &[2; 4096]).unwrap();
    }
    // What a flush has just made durable is settled by the next.
    device.flush().unwrap();
    device.flush().unwrap();
    let pass = |buffer: &mut [u8]| {
        for start in (0..blocks).step_by(16) {
            device.read(start * BLOCK_BYTES, buffer).unwrap();
            device.read(start * BLOCK_BYTES + 512, &mut buffer[..512]).unwrap();
        }
        for block in 0..blocks / 2 {
            device.write(block * BLOCK_BYTES, &[3; 4096]).unwrap();
        }
        device.write(8192, &buffer[..16_384]).unwrap();
    };
    // The first pass brings the pages into the cache.
    pass(&mut buffer);
    assert_eq!(allocations(|| pass(&mut buffer)), 0);
}
