//! Any sequence of operations, held against a list of what each sector may hold.

use super::*;

const SIZE_BYTES: u64 = 3 * 4096 + 512;

#[derive(Clone, Debug)]
enum Step {
    Write { offset_bytes: u64, length: usize, value: u8 },
    Punch { offset_bytes: u64, length: u64 },
    Sync,
    DropCache,
    Crash { seed: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let range = (0..SIZE_BYTES, prop_oneof![0..40_u64, 0..3000_u64, 0..SIZE_BYTES])
        .prop_map(|(offset_bytes, length)| (offset_bytes, length.min(SIZE_BYTES - offset_bytes)))
        // Half of them in whole sectors.
        .prop_flat_map(|(offset_bytes, length)| {
            let whole = (offset_bytes / 512 * 512, length / 512 * 512);
            prop_oneof![Just((offset_bytes, length)), Just(whole)]
        });
    let write = (range.clone(), 1..=u8::MAX).prop_map(|((offset_bytes, length), value)| {
        Step::Write { offset_bytes, length: usize::try_from(length).unwrap(), value }
    });
    let punch = range.prop_map(|(offset_bytes, length)| Step::Punch { offset_bytes, length });
    prop_oneof![
        8 => write,
        2 => punch,
        2 => Just(Step::Sync),
        1 => Just(Step::DropCache),
        2 => (0..40_u64).prop_map(|seed| Step::Crash { seed }),
    ]
}

/// What reads must show, and what each sector may hold after a crash: the durable value first,
/// then what each unsynced write to it left there.
struct Model {
    visible: Vec<u8>,
    allowed: Vec<Vec<Vec<u8>>>,
}

impl Model {
    fn holding(visible: Vec<u8>) -> Model {
        let allowed = visible.chunks(SECTOR).map(|sector| vec![sector.to_vec()]).collect();
        Model { visible, allowed }
    }

    fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let start = usize::try_from(offset_bytes).unwrap();
        let end = start + data.len();
        self.visible[start..end].copy_from_slice(data);
        for sector in start / SECTOR..=(end - 1) / SECTOR {
            let value = &self.visible[sector * SECTOR..(sector + 1) * SECTOR];
            self.allowed[sector].push(value.to_vec());
        }
    }

    fn check_crashed(&self, policy: CrashPolicy, found: &[u8]) {
        for (sector, value) in found.chunks(SECTOR).enumerate() {
            let allowed = &self.allowed[sector];
            assert!(allowed.iter().any(|one| one == value), "{policy:?}, sector {sector}");
        }
        match policy {
            CrashPolicy::KeepAll => assert!(found == self.visible),
            CrashPolicy::DropAll => {
                let durable = self.allowed.iter().map(|values| values[0].as_slice());
                assert!(found.chunks(SECTOR).eq(durable));
            }
            _ => {}
        }
    }
}

fn everything(disk: &SimulatedDisk) -> Vec<u8> {
    read(disk, 0, usize::try_from(SIZE_BYTES).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn reads_show_every_write_and_crashes_leave_only_allowed_sectors(
        steps in prop::collection::vec(any_step(), 1..40)
    ) {
        let mut disk = SimulatedDisk::new(SIZE_BYTES);
        let mut model = Model::holding(everything(&disk));
        for step in steps {
            match step {
                Step::Write { offset_bytes, length, value } => {
                    disk.write_at(offset_bytes, &vec![value; length]).unwrap();
                    model.write(offset_bytes, &vec![value; length]);
                }
                Step::Punch { offset_bytes, length } => {
                    disk.punch_hole(offset_bytes, length).unwrap();
                    model.write(offset_bytes, &vec![0; usize::try_from(length).unwrap()]);
                }
                Step::Sync => {
                    disk.sync().unwrap();
                    model = Model::holding(model.visible);
                }
                Step::DropCache => disk.drop_cache().unwrap(),
                Step::Crash { seed } => {
                    for policy in [CrashPolicy::KeepAll, CrashPolicy::DropAll] {
                        model.check_crashed(policy, &everything(&disk.crash_with(policy)));
                    }
                    let crashed = disk.crash(seed);
                    let found = everything(&crashed);
                    model.check_crashed(CrashPolicy::from_seed(seed), &found);
                    assert!(everything(&disk.crash(seed)) == found, "a seed gave two disks");
                    disk = crashed;
                    model = Model::holding(found);
                }
            }
            assert!(everything(&disk) == model.visible);
        }
    }
}
