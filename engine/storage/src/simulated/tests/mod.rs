//! What a simulated disk may forget, and what it must not.

mod against_a_plain_model;
mod counting_and_threads;
mod crashing;
mod failing;
mod losing_power;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::{Error, ErrorKind};

const SECTOR: usize = 512;

fn read(disk: &SimulatedDisk, offset_bytes: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0xee; length];
    disk.read_at(offset_bytes, &mut buffer).unwrap();
    buffer
}

/// The first byte of each of the disk's first `count` sectors, whose bytes are all the same.
fn sectors(disk: &SimulatedDisk, count: usize) -> Vec<u8> {
    let bytes = read(disk, 0, count * SECTOR);
    let sector_values = bytes.chunks(SECTOR).map(|sector| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
        sector[0]
    });
    sector_values.collect()
}

fn write_sector(disk: &SimulatedDisk, sector: u64, value: u8) {
    disk.write_at(sector * SECTOR_BYTES, &[value; SECTOR]).unwrap();
}

#[track_caller]
fn assert_power_is_off(result: io::Result<()>) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::Other, "power is off"));
}
