use super::*;

fn units(acknowledged: bool, first: usize, count: usize, generation: u64) -> Event {
    Event::Units { container: 0, target: 0, acknowledged, first, count, generation }
}

fn commit(name: &str) -> Event {
    Event::Asked(Change::Commit { container: 0, name: name.to_owned() })
}

fn bounds(events: &[Event], least: usize, most: usize) -> Bounds {
    let known = |count: usize| Known::after(&events[..count]).expect("known");
    Bounds { at_least: known(least), at_most: known(most) }
}

fn may_hold(known: &KnownContainer, unit: usize, generation: u64) -> bool {
    known.ledgers[0].judge(unit, Content::Generation(generation)).is_ok()
}

#[test]
fn a_history_is_read_as_it_was_noted_and_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history");
    let events =
        [Event::Started, units(false, 3, 2, 1), commit("a"), Event::Answered { done: true }];
    for half in events.chunks(2) {
        let (history, _) = History::open(&path).expect("open");
        half.iter().for_each(|event| history.note(event));
    }
    let whole = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, format!("{whole}{{\"Units\":")).expect("write");
    let (history, read) = History::open(&path).expect("open");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), whole, "a line that was cut off");
    assert_eq!((history.events(), read.as_slice()), (4, events.as_slice()));
    std::fs::write(&path, "\"Started\"\nnonsense\n").expect("write");
    assert!(History::open(&path).is_err_and(|error| error.contains("nonsense")));
}

#[test]
fn what_was_acknowledged_must_be_found_and_what_was_begun_may_be() {
    let events =
        [units(false, 5, 1, 1), units(true, 5, 1, 1), units(false, 5, 1, 2), units(false, 5, 1, 3)];
    let known = |least, most| bounds(&events, least, most).container(0).expect("a container");
    assert!(!may_hold(&known(0, 0), 5, 1));
    assert!(may_hold(&known(0, 1), 5, 1));
    assert!(may_hold(&known(2, 3), 5, 1) && may_hold(&known(2, 3), 5, 2));
    assert!(!may_hold(&known(2, 3), 5, 3));
    assert!(known(2, 3).ledgers[0].judge(5, Content::Erased).is_err());
}

#[test]
fn a_copy_is_there_from_its_answer_to_its_removal_and_holds_what_its_container_did() {
    let events = [
        units(false, 0, 1, 1),
        units(true, 0, 1, 1),
        commit("a"),
        units(false, 0, 1, 2),
        Event::Answered { done: true },
        units(false, 0, 1, 3),
        Event::Asked(Change::Remove { name: "a".to_owned() }),
        Event::Answered { done: true },
    ];
    let there = |least, most| bounds(&events, least, most).is_there("a");
    let found = [there(3, 3), there(4, 5), there(5, 6), there(6, 7), there(8, 8)];
    assert_eq!(found, [None, None, Some(true), None, Some(false)]);
    let copy = bounds(&events, 5, 6).copy("a").expect("a copy");
    assert!(may_hold(&copy, 0, 1) && may_hold(&copy, 0, 2) && !may_hold(&copy, 0, 3));
    let under_way = bounds(&events, 3, 4).copy("a").expect("a copy");
    assert!(may_hold(&under_way, 0, 2), "it may be as new as what was begun");
}

#[test]
fn what_is_found_after_a_loss_of_power_stays() {
    let found = |first: Option<u64>| {
        let empty = |target: &Target| vec![None; target.ledger().units()];
        let mut units: Vec<Vec<Option<u64>>> = targets_of(0).iter().map(empty).collect();
        units[0][0] = first;
        Event::Found { container: 0, units, transaction: 4 }
    };
    let before = [units(false, 0, 1, 1), commit("a")];
    let known = Known::after(&[&before[..], &[found(None)]].concat()).expect("known");
    assert!(!may_hold(&known.containers[0], 0, 1), "it was lost, and nobody writes it again");
    assert_eq!(known.containers[0].transaction_acknowledged, 4);
    assert_eq!(known.copies["a"].made, Progress::Failed);
    assert!(may_hold(&known.copies["a"].content, 0, 1), "the copy was made before");
    let known = Known::after(&[&before[..], &[found(Some(1))]].concat()).expect("known");
    assert!(known.containers[0].ledgers[0].judge(0, Content::Erased).is_err());
    let lost = [units(false, 0, 1, 1), units(true, 0, 1, 1), found(None)];
    assert!(Known::after(&lost).is_err());
    assert!(Known::after(&[Event::Answered { done: true }]).is_err());
    assert!(Known::after(&[units(false, 1000, 1, 1)]).is_err());
}
