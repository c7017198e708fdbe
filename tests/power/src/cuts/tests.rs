use std::io::Cursor;

use super::*;
use crate::log::read_entries;
use crate::log::tests::Made;

fn entries_of(made: Made) -> (Vec<Entry>, LogReader<Cursor<Vec<u8>>>) {
    let mut reader = made.reader();
    (read_entries(&mut reader).expect("entries"), reader)
}

fn first_bytes(disk: &SimulatedDisk) -> [u8; 4] {
    let mut sectors = [0; 4 * 512];
    disk.read_at(0, &mut sectors).expect("read");
    [sectors[0], sectors[512], sectors[1024], sectors[1536]]
}

#[test]
fn a_loss_of_power_takes_what_was_not_flushed_and_nothing_else() {
    let flush_and_durable = 3;
    let (entries, reader) = entries_of(
        Made::new()
            .write(0, 0, 1)
            .flush()
            .write(1, 0, 2)
            .write(2, flush_and_durable, 3)
            .write(3, 0, 4),
    );
    let mut replay = Replay::new(reader, &entries, SimulatedDisk::new(2048));
    let mut found = Vec::new();
    for position in 0..=entries.len() {
        replay.advance_to(position).expect("replay");
        for policy in [CrashPolicy::DropAll, CrashPolicy::KeepAll] {
            found.push(first_bytes(&replay.after_power_loss(policy)));
        }
    }
    let wanted: [[u8; 4]; 12] = [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 2, 0, 0],
        [1, 2, 3, 0],
        [1, 2, 3, 0],
        [1, 2, 3, 0],
        [1, 2, 3, 4],
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_replayed_log_is_held_against_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    for (bytes, same) in [([1; 512], true), ([2; 512], false)] {
        std::fs::write(&path, bytes).expect("write");
        let (entries, reader) = entries_of(Made::new().write(0, 0, 1));
        let mut replay = Replay::new(reader, &entries, SimulatedDisk::new(512));
        replay.advance_to(1).expect("replay");
        assert_eq!(replay.is_same_as(&File::open(&path).expect("open")), Ok(same));
    }
    let (entries, reader) = entries_of(Made::new().write(1, 0, 1));
    let mut replay = Replay::new(reader, &entries, SimulatedDisk::new(512));
    assert!(replay.advance_to(1).is_err(), "it writes beyond the disk");
}

#[test]
fn marks_say_what_had_happened_and_what_had_begun() {
    let made = Made::new().mark("dm-log-writes-x").mark("3").write(0, 0, 1).mark("5").flush();
    let (entries, _) = entries_of(made.mark("9").write(1, 0, 1));
    assert_eq!(beginning(&entries), Some(2));
    let known: Vec<_> = (1..=7).map(|position| events_at(&entries, position)).collect();
    let most = [Some(5), Some(9), Some(9), None, None, None, None];
    let least = [0, 3, 3, 5, 5, 9, 9];
    assert_eq!(known, least.into_iter().zip(most).collect::<Vec<_>>());
}

#[test]
fn cuts_lie_behind_the_beginning_in_order_and_at_all_telling_moments_if_there_are_few() {
    let mut made = Made::new().flush().mark("0");
    for number in 0..20 {
        made = made.write(number % 4, 0, 1).write(1, 0, 2);
        match number % 5 {
            3 => made = made.write(35 * 8, 0, 3),
            4 => made = made.flush(),
            _ => {}
        }
    }
    let (entries, _) = entries_of(made.write(1, 0, 1).flush().mark("1"));
    let positions = |count| -> Vec<usize> {
        let cuts = choose(&entries, 2, count, &mut Random::new(5));
        cuts.iter().map(|cut| cut.position).collect()
    };
    let found = moments(&entries, 2);
    let counts = [found.flushes.len(), found.superblocks.len(), found.marks.len()];
    assert_eq!(counts, [5, 4, 1]);
    assert_eq!(found.marks, [entries.len()]);
    let chosen = positions(30);
    assert_eq!(chosen.len(), 30);
    assert!(chosen.is_sorted() && chosen.iter().all(|at| (2..=entries.len()).contains(at)));
    assert!(found.flushes.iter().chain(&found.marks).all(|at| chosen.contains(at)));
    let few = positions(4);
    assert!(few.iter().filter(|at| found.flushes.contains(at)).count() >= 2);
    assert_eq!(choose(&entries, entries.len(), 3, &mut Random::new(5)), []);
}
