//! Faults that were found once and must not come back, each by the shortest way to it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use thinstore_pool::{
    BLOCK_BYTES, LayerId, Namespace, NewLayer, OpenOptions, Pool, PoolOptions, Transaction,
};
use thinstore_storage::{BlockDevice, CrashPolicy, MemoryStorage, SimulatedDisk, Storage};

const NAMES: Namespace = Namespace(1);

fn options() -> OpenOptions {
    OpenOptions { background: false, ..OpenOptions::default() }
}

fn create(size_bytes: u64) -> Arc<SimulatedDisk> {
    let disk = Arc::new(SimulatedDisk::new(size_bytes));
    let pool_options = PoolOptions {
        size_bytes,
        allocation_run_bytes: 4096,
        journal_bytes: Some(if size_bytes < 8 << 20 { 256 << 10 } else { 1 << 20 }),
        default_device_size_bytes: 16 << 30,
        uuid: Some([3; 16]),
    };
    Pool::create(&*disk, &pool_options).unwrap();
    disk
}

fn open(disk: &Arc<SimulatedDisk>) -> Pool {
    Pool::open(Arc::clone(disk) as Arc<dyn Storage>, &options()).unwrap()
}

/// The disk as a loss of power now may leave it.
fn crash(disk: &SimulatedDisk, policy: CrashPolicy) -> Arc<SimulatedDisk> {
    Arc::new(disk.crash_with(policy))
}

fn assert_clean(pool: &Pool) {
    let report = pool.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
}

fn named(name: &str) -> NewLayer {
    NewLayer { namespace: NAMES, name: name.to_owned(), ..NewLayer::default() }
}

#[test]
fn a_recovery_that_loses_power_itself_keeps_what_was_acknowledged() {
    // Blocks for pages are set aside by the dozen: with one of these numbers recovery takes more of them.
    for leaves in 54..64 {
        lose_power_in_recovery(leaves);
    }
}

fn lose_power_in_recovery(leaves: u64) {
    let disk = create(8 << 20);
    let pool = open(&disk);
    let id = pool.create_layer(named("web")).unwrap();
    pool.close().unwrap();
    let pool = open(&disk);
    let device = pool.device(id).unwrap();
    // Written twice before one flush: the batch names blocks that it frees as well.
    for value in 19..=20 {
        device.write(0, &[value; 128 * 4096]).unwrap();
    }
    for leaf in 1..leaves {
        device.write(leaf * 256 * BLOCK_BYTES, &[1; 4096]).unwrap();
    }
    device.flush().unwrap();
    let crashed = crash(&disk, CrashPolicy::DropAll);
    disk.power_off();
    drop((device, pool));
    for operation in 1.. {
        let recovering = crash(&crashed, CrashPolicy::KeepAll);
        recovering.power_fails_at(operation);
        let whole = Pool::open(Arc::clone(&recovering) as Arc<dyn Storage>, &options()).is_ok();
        for seed in 0..8 {
            let again = open(&Arc::new(recovering.crash(seed)));
            let mut bytes = [0; 4096];
            again.device(id).unwrap().read(0, &mut bytes).unwrap();
            assert!(
                bytes == [20; 4096],
                "lost at operation {operation}, seed {seed}: {}",
                bytes[0]
            );
            assert_clean(&again);
        }
        if whole {
            break;
        }
    }
}

#[test]
fn a_journal_with_more_pages_than_the_cache_holds_is_replayed() {
    let disk = create(64 << 20);
    let pool = open(&disk);
    let id = pool.create_layer(named("web")).unwrap();
    let device = pool.device(id).unwrap();
    for leaf in 0..2500 {
        device.write(leaf * 256 * BLOCK_BYTES, &[1; 4096]).unwrap();
    }
    pool.checkpoint().unwrap();
    for leaf in 0..2500 {
        device.write((leaf * 256 + 1) * BLOCK_BYTES, &[2; 4096]).unwrap();
    }
    device.flush().unwrap();
    let crashed = crash(&disk, CrashPolicy::DropAll);
    disk.power_off();
    drop((device, pool));
    let small = OpenOptions { cache_bytes: 0, ..options() };
    let (done, opened) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let pool = Pool::open(crashed as Arc<dyn Storage>, &small).unwrap();
        assert_clean(&pool);
        done.send(()).unwrap();
    });
    opened.recv_timeout(std::time::Duration::from_secs(40)).expect("opening comes to an end");
}

#[test]
fn a_snapshot_that_is_refused_leaves_the_device_as_it_was() {
    let disk = create(4 << 20);
    let pool = open(&disk);
    let id = pool.create_layer(named("web")).unwrap();
    let device = pool.device(id).unwrap();
    device.write(0, &[1; 4096]).unwrap();
    let lost = NewLayer { reference: LayerId::new(999), ..named("child") };
    assert!(pool.snapshot(id, lost).is_err());
    assert_eq!(pool.layers().len(), 1);
    device.write(0, &[2; 8192]).unwrap();
    device.flush().unwrap();
    let again = open(&crash(&disk, CrashPolicy::DropAll));
    assert_clean(&again);
}

#[test]
fn a_name_goes_over_to_another_layer_in_one_transaction() {
    let disk = create(4 << 20);
    let pool = open(&disk);
    let old = pool.create_layer(named("web")).unwrap();
    let new = pool.create_layer(NewLayer { transient: true, ..named("") }).unwrap();
    let mut transaction = pool.begin();
    transaction.publish(new, Some("web"));
    transaction.remove(old);
    pool.commit(transaction).unwrap();
    assert_eq!(pool.find(NAMES, "web"), Some(new));
    let mut transaction = Transaction::default();
    transaction.create(NewLayer { size_bytes: Some(4096), ..named("web") }, true, None);
    transaction.remove(new);
    let made = pool.commit(transaction).unwrap();
    assert_eq!(pool.find(NAMES, "web"), made.first().copied());
    let again = open(&crash(&disk, CrashPolicy::DropAll));
    assert_eq!(again.find(NAMES, "web"), made.first().copied());
}

#[test]
fn a_transient_layer_that_another_one_needs_does_not_keep_the_pool_closed() {
    let disk = create(4 << 20);
    let pool = open(&disk);
    let image = pool.create_layer(NewLayer { transient: true, ..named("image") }).unwrap();
    pool.create_layer(NewLayer { reference: Some(image), ..named("web") }).unwrap();
    pool.close().unwrap();
    let pool = open(&disk);
    assert!(pool.find(NAMES, "web").is_some());
    assert_clean(&pool);
}

/// Writes until the pool is full, two blocks of each leaf; gives how many leaves.
fn fill(device: &dyn BlockDevice) -> u64 {
    for leaf in 0.. {
        for block in 0..2 {
            if device.write((leaf * 256 + block) * BLOCK_BYTES, &[7; 4096]).is_err() {
                return leaf;
            }
        }
    }
    0
}

#[test]
fn a_full_pool_in_which_much_was_discarded_is_recovered() {
    let disk = create(8 << 20);
    let pool = open(&disk);
    let id = pool.create_layer(named("web")).unwrap();
    let device = pool.device(id).unwrap();
    let leaves = fill(&device);
    assert!(leaves > 300, "{leaves}");
    pool.checkpoint().unwrap();
    for leaf in 0..leaves {
        device.discard(leaf * 256 * BLOCK_BYTES, BLOCK_BYTES).unwrap();
        if leaf % 16 == 0 {
            device.flush().unwrap();
        }
    }
    device.flush().unwrap();
    let again = open(&crash(&disk, CrashPolicy::DropAll));
    assert_clean(&again);
    let device = again.device(id).unwrap();
    device.write(0, &[9; 4096]).unwrap();
    device.flush().unwrap();
}

#[test]
fn layers_made_in_a_full_pool_do_not_use_up_what_checkpoints_need() {
    let disk = create(4 << 20);
    let pool = open(&disk);
    let id = pool.create_layer(named("web")).unwrap();
    let device = pool.device(id).unwrap();
    fill(&device);
    let mut made = 0;
    while made < 3000 {
        match pool.create_layer(named(&format!("layer-{made}"))) {
            Ok(_) => made += 1,
            Err(error) => {
                assert_eq!(error.kind(), thinstore_storage::ErrorKind::Full, "{error}");
                break;
            }
        }
    }
    pool.checkpoint().unwrap();
    drop(device);
    pool.remove(id).unwrap();
    let pool = {
        drop(pool);
        open(&disk)
    };
    assert_clean(&pool);
    pool.create_layer(named("after")).unwrap();
}

#[test]
fn a_device_that_is_removed_while_a_snapshot_waits_is_not_forked() {
    let disk = create(4 << 20);
    let pool = open(&disk);
    let id = pool.create_layer(named("web")).unwrap();
    let device = pool.device(id).unwrap();
    device.write(0, &[1; 4096]).unwrap();
    pool.flush().unwrap();
    pool.flush().unwrap();
    // Overwritten in place: the snapshot flushes before it forks.
    device.write(0, &[2; 4096]).unwrap();
    drop(device);
    let (remover, once) = (pool.clone(), std::sync::Once::new());
    disk.observe(move |operation, _| {
        if operation == thinstore_storage::DiskOperation::Sync {
            once.call_once(|| {
                let removing = remover.clone();
                std::thread::spawn(move || removing.remove(id));
                while remover.layer(id).is_ok_and(|info| !info.hidden) {
                    std::thread::yield_now();
                }
            });
        }
    });
    let error = pool.snapshot(id, named("copy")).unwrap_err();
    assert_eq!(error.kind(), thinstore_storage::ErrorKind::NotFound, "{error}");
    pool.wait_for_frees().unwrap();
    assert_clean(&pool);
    assert_eq!(pool.usage().data_bytes, 0);
}

#[test]
fn a_transaction_that_the_journal_cannot_take_is_refused_before_it_begins() {
    let disk = create(4 << 20);
    let pool = open(&disk);
    let mut transaction = pool.begin();
    for number in 0..1000 {
        transaction.create(named(&format!("layer-{number}")), false, None);
    }
    let error = pool.commit(transaction).unwrap_err();
    assert_eq!(error.kind(), thinstore_storage::ErrorKind::Usage, "{error}");
    assert!(pool.layers().is_empty());
    pool.create_layer(named("web")).unwrap();
}

/// A disk whose next flush lets somebody else come between, once.
struct Meddled {
    disk: Arc<SimulatedDisk>,
    before_flush: parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Storage for Meddled {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.disk.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> std::io::Result<()> {
        self.disk.write_at(offset_bytes, data)
    }

    fn sync(&self) -> std::io::Result<()> {
        let meddle = self.before_flush.lock().take();
        meddle.into_iter().for_each(|meddle| meddle());
        self.disk.sync()
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
        self.disk.punch_hole(offset_bytes, length_bytes)
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
        self.disk.reserve(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> std::io::Result<()> {
        self.disk.grow(size_bytes)
    }

    fn drop_cache(&self) -> std::io::Result<()> {
        self.disk.drop_cache()
    }

    fn name(&self) -> String {
        self.disk.name()
    }
}

#[test]
fn a_fork_waits_for_overwrites_that_a_flush_under_way_is_still_to_make_durable() {
    let disk = create(4 << 20);
    let storage = Arc::new(Meddled { disk: Arc::clone(&disk), before_flush: Default::default() });
    let pool = Pool::open(Arc::clone(&storage) as Arc<dyn Storage>, &options()).unwrap();
    let id = pool.create_layer(named("web")).unwrap();
    let device = pool.device(id).unwrap();
    device.write(0, &[1; 4096]).unwrap();
    device.flush().unwrap();
    device.flush().unwrap();
    // Settled, so overwritten in place: no record tells of it.
    device.write(0, &[2; 4096]).unwrap();
    let (forking, forks) = (pool.clone(), Arc::new(parking_lot::Mutex::new(None)));
    let kept = Arc::clone(&forks);
    *storage.before_flush.lock() = Some(Box::new(move || {
        let snapshotting = forking.clone();
        *kept.lock() = Some(std::thread::spawn(move || {
            snapshotting.snapshot(id, named("copy")).unwrap();
        }));
        // A fork that believed the flush to be over puts its layers into the table now.
        let begun = std::time::Instant::now();
        while forking.find(NAMES, "copy").is_none() && begun.elapsed().as_millis() < 300 {
            std::thread::yield_now();
        }
        assert!(forking.find(NAMES, "copy").is_none(), "forked before the overwrite was durable");
    }));
    device.flush().unwrap();
    forks.lock().take().unwrap().join().unwrap();
    assert!(pool.find(NAMES, "copy").is_some());
}

#[test]
fn more_transient_layers_than_a_batch_can_remove_go_at_the_next_open() {
    let disk = create(7 << 20);
    let pool = open(&disk);
    let transient = |reference| NewLayer { transient: true, reference, ..NewLayer::default() };
    let mut last = None;
    // A batch of the smallest ring takes the removal of 2,045 layers.
    for number in 0..2100 {
        // Some need the one before: they must not go later than that.
        let reference = last.filter(|_| number % 3 == 0);
        last = Some(pool.create_layer(transient(reference)).unwrap());
    }
    let made = pool.layers().len();
    drop(pool);
    let pool = open(&disk);
    assert_eq!((made, pool.layers().len()), (2100, 0));
    assert_clean(&pool);
}

#[test]
fn a_document_is_never_read_from_a_layer_that_has_its_slot_by_now() {
    let disk = create(8 << 20);
    let pool = open(&disk);
    let changing = std::sync::atomic::AtomicBool::new(true);
    let read = || {
        while changing.load(std::sync::atomic::Ordering::Relaxed) {
            let Some(id) = pool.find(NAMES, "image") else { continue };
            match pool.document(id) {
                Ok(Some(bytes)) => assert!(bytes == [1; 5000]),
                Ok(None) => {}
                Err(error) => {
                    assert_eq!(error.kind(), thinstore_storage::ErrorKind::NotFound, "{error}");
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read), scope.spawn(read)];
        for _ in 0..400 {
            let document = pool.store_document(&[1; 5000]).unwrap();
            let mut transaction = pool.begin();
            transaction.create(named("image"), true, Some(document));
            let image = pool.commit(transaction).unwrap()[0];
            pool.remove(image).unwrap();
            // These take the two slots that have become free.
            let others = [(); 2].map(|()| pool.create_layer(NewLayer::default()).unwrap());
            for other in others {
                pool.device(other).unwrap().write(0, &[2; 8192]).unwrap();
            }
            others.into_iter().for_each(|other| pool.remove(other).unwrap());
        }
        changing.store(false, std::sync::atomic::Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

type Hook = Box<dyn FnOnce() + Send>;

/// A storage on which something else happens while a block is read.
struct Interrupted {
    inner: MemoryStorage,
    hook: Mutex<Option<Hook>>,
}

impl Storage for Interrupted {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let hook = self.hook.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        self.inner.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> std::io::Result<()> {
        self.inner.write_at(offset_bytes, data)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.inner.sync()
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
        self.inner.punch_hole(offset_bytes, length_bytes)
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> std::io::Result<()> {
        self.inner.reserve(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> std::io::Result<()> {
        self.inner.grow(size_bytes)
    }

    fn drop_cache(&self) -> std::io::Result<()> {
        self.inner.drop_cache()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

#[test]
fn a_page_that_goes_out_of_use_while_it_is_read_is_no_damage() {
    let size_bytes = 8 << 20;
    let inner = MemoryStorage::new(size_bytes);
    let storage = Arc::new(Interrupted { inner, hook: Mutex::default() });
    let pool_options =
        PoolOptions { size_bytes, allocation_run_bytes: 4096, ..PoolOptions::default() };
    Pool::create(&*storage, &pool_options).unwrap();
    let open = || Pool::open(Arc::clone(&storage) as Arc<dyn Storage>, &options()).unwrap();
    let pool = open();
    let id = pool.create_layer(named("web")).unwrap();
    pool.device(id).unwrap().write(0, &[7; 4096]).unwrap();
    drop(pool);
    // The cache is empty: the read below asks for the map's page first. While it is on its way, the page is
    // copied, its place becomes free, and others write there.
    let pool = open();
    let device = pool.device(id).unwrap();
    let (other, checkpoints) = (device.clone(), pool.clone());
    *storage.hook.lock() = Some(Box::new(move || {
        other.write(5 * BLOCK_BYTES, &[8; 4096]).unwrap();
        (0..3).for_each(|_| checkpoints.checkpoint().unwrap());
        for block in 0..200 {
            other.write((10 + 2 * block) * BLOCK_BYTES, &[9; 4096]).unwrap();
        }
    }));
    let mut bytes = [0; 4096];
    device.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 4096]);
    assert_clean(&pool);
}

/// A disk on which a hole takes until it is let go.
struct SlowHoles {
    disk: MemoryStorage,
    state: Mutex<Holes>,
    changed: Condvar,
}

#[derive(Default)]
struct Holes {
    begun: bool,
    let_go: bool,
    done: bool,
}

impl Storage for SlowHoles {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset_bytes, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn punch_hole(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begun = true;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| !state.let_go);
        drop(state);
        self.disk.punch_hole(offset_bytes, length_bytes)?;
        self.state.lock().done = true;
        Ok(())
    }

    fn reserve(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.disk.reserve(offset_bytes, length_bytes)
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.disk.grow(size_bytes)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.drop_cache()
    }

    fn name(&self) -> String {
        "slow holes".to_owned()
    }
}

#[test]
fn whoever_waits_for_frees_waits_for_the_holes_of_others_too() {
    let disk = Arc::new(SlowHoles {
        disk: MemoryStorage::new(16 << 20),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let pool_options = PoolOptions { size_bytes: 16 << 20, ..PoolOptions::default() };
    Pool::create(&*disk, &pool_options).unwrap();
    let pool = Pool::open(Arc::clone(&disk) as Arc<dyn Storage>, &options()).unwrap();
    let id = pool.create_layer(named("web")).unwrap();
    let device = pool.device(id).unwrap();
    device.write(0, &[1; 1 << 20]).unwrap();
    device.flush().unwrap();
    device.discard(0, 1 << 20).unwrap();
    thread::scope(|scope| {
        // The second flush says that the first is durable: then the blocks are given back.
        scope.spawn(|| (0..2).for_each(|_| device.flush().unwrap()));
        disk.changed.wait_while(&mut disk.state.lock(), |state| !state.begun);
        let waiting = scope.spawn(|| {
            pool.wait_for_frees().unwrap();
            assert!(disk.state.lock().done, "the host does not have it back");
            assert_eq!(pool.usage().pending_free_bytes, 0);
        });
        // Time enough for one that does not wait to be through.
        thread::sleep(Duration::from_millis(200));
        disk.state.lock().let_go = true;
        disk.changed.notify_all();
        waiting.join().unwrap();
    });
    drop(device);
    pool.close().unwrap();
}
