//! Holds `docs/format.md` against the encoders: each row of its tables names the bytes of a field, and the
//! bytes of an example must be there, and nothing else anywhere.

use std::collections::HashMap;

use super::geometry::Geometry;
use super::layer::{LayerFlags, LayerRecord};
use super::pointer::{BlockPtr, PointerKind};
use super::superblock::{JournalPosition, Superblock};
use super::{batch, record::Record};
use crate::types::{Epoch, LayerId, LogicalBlock, Namespace, PoolBlock};

const TEXT: &str = include_str!("../../../../docs/format.md");

/// The rows `offset, bytes, field` of the first such table under a heading.
fn rows(heading: &str) -> Vec<(usize, usize, String)> {
    let start = TEXT.find(&format!("\n## {heading}\n")).expect("the heading is in docs/format.md");
    TEXT[start..]
        .lines()
        .skip_while(|line| !line.starts_with("| offset"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            Some((cells[1].parse().ok()?, cells[2].parse().ok()?, cells[3].to_owned()))
        })
        .collect()
}

/// Every field has its bytes, the fields follow each other without a gap, and reserved ones are zero.
fn hold(heading: &str, bytes: &[u8], expected: &[(&str, &[u8])]) {
    let expected: HashMap<&str, &[u8]> = expected.iter().copied().collect();
    let mut end = 0;
    let mut seen = 0;
    for (offset, length, field) in rows(heading) {
        assert_eq!(offset, end, "{heading}: {field} does not follow the field before");
        let found = &bytes[offset..offset + length];
        if field == "reserved" {
            assert!(found.iter().all(|byte| *byte == 0), "{heading}: reserved at {offset}");
        } else {
            assert_eq!(Some(&found), expected.get(field.as_str()), "{heading}: {field}");
            seen += 1;
        }
        end = offset + length;
    }
    assert_eq!(seen, expected.len(), "{heading}: fields that no row names");
    assert!(end == bytes.len() || heading == "Journal batch", "{heading} ends at {end}");
}

fn pointer_bytes(pointer: BlockPtr) -> [u8; 16] {
    let (address, check) = pointer.words();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..].copy_from_slice(&check.to_le_bytes());
    bytes
}

fn pointer(block: u64) -> BlockPtr {
    BlockPtr::new(PointerKind::Page, PoolBlock::new(block), Epoch::new(0x0102_0304), 0x0506_0708)
}

#[test]
fn pointers_lie_as_documented() {
    hold(
        "Pointer",
        &pointer_bytes(pointer(0x1112_1314_1516)),
        &[
            ("block", &[0x16, 0x15, 0x14, 0x13, 0x12, 0x11]),
            ("kind", &[2, 0]),
            ("birth", &[4, 3, 2, 1]),
            ("crc", &[8, 7, 6, 5]),
        ],
    );
}

#[test]
fn superblocks_lie_as_documented() {
    let superblock = Superblock {
        uuid: *b"uuid-of-the-pool",
        geometry: Geometry { pool_blocks: 0x000a_0b0c, journal_blocks: 0x0d0e },
        allocation_run_blocks: 16,
        default_device_blocks: 0x1011,
        checkpoint: 0x1213,
        epoch: Epoch::new(0x1415),
        next_serial: 0x1617,
        journal: JournalPosition { sequence: 0x1819, head_blocks: 0x1a1b, chain_crc: 0x1c1d },
        used_blocks: 0x1e1f,
        data_blocks: 0x2021,
        layer_table: pointer(0x2223),
        space_map: pointer(0x2425),
        created_unix_ns: -2,
    };
    let bytes = superblock.encode();
    let crc = crc32fast::hash(&bytes[..508]).to_le_bytes();
    hold(
        "Superblock",
        &bytes,
        &[
            ("magic", b"thinpool"),
            ("version", &1u32.to_le_bytes()),
            ("compatible_features", &[0; 4]),
            ("incompatible_features", &[0; 8]),
            ("read_only_features", &[0; 8]),
            ("uuid", b"uuid-of-the-pool"),
            ("pool_blocks", &0x000a_0b0cu64.to_le_bytes()),
            ("journal_blocks", &0x0d0eu64.to_le_bytes()),
            ("allocation_run_blocks", &16u32.to_le_bytes()),
            ("default_device_blocks", &0x1011u64.to_le_bytes()),
            ("checkpoint", &0x1213u64.to_le_bytes()),
            ("epoch", &0x1415u32.to_le_bytes()),
            ("next_serial", &0x1617u64.to_le_bytes()),
            ("journal_sequence", &0x1819u64.to_le_bytes()),
            ("journal_head_blocks", &0x1a1bu64.to_le_bytes()),
            ("journal_chain_crc", &0x1c1du32.to_le_bytes()),
            ("used_blocks", &0x1e1fu64.to_le_bytes()),
            ("data_blocks", &0x2021u64.to_le_bytes()),
            ("layer_table", &pointer_bytes(pointer(0x2223))),
            ("space_map", &pointer_bytes(pointer(0x2425))),
            ("created_unix_ns", &(-2i64).to_le_bytes()),
            ("crc", &crc),
        ],
    );
}

fn layer_record() -> LayerRecord {
    LayerRecord {
        id: LayerId::new(0x0102).expect("not 0"),
        flags: LayerFlags {
            sealed: true,
            transient: true,
            hidden: true,
            deleting: true,
            absorbing: true,
            trimmed: true,
        },
        namespace: Namespace(3),
        height: 4,
        name: "n".repeat(255),
        origin: LayerId::new(0x0506),
        reference: LayerId::new(0x0708),
        document: LayerId::new(0x090a),
        base_epoch: Epoch::new(0x0b0c),
        seal_epoch: Epoch::new(0x0d0e),
        size_blocks: 0x0f10,
        root: pointer(0x1112),
        own_data_blocks: 0x1314,
        own_page_blocks: 0x1516,
        cursor: LogicalBlock::new(0x1718),
        serial: 0x191a,
        created_unix_ns: -3,
        content_bytes: 0x1b1c,
        tag: [0x1d; 32],
        summed_blocks: LogicalBlock::new(0x1e1f),
    }
}

#[test]
fn layer_records_lie_as_documented() {
    hold(
        "Layer record",
        &layer_record().encode(),
        &[
            ("id", &0x0102u32.to_le_bytes()),
            ("flags", &63u32.to_le_bytes()),
            ("namespace", &[3]),
            ("height", &[4]),
            ("name_length", &[255]),
            ("origin", &0x0506u32.to_le_bytes()),
            ("reference", &0x0708u32.to_le_bytes()),
            ("document", &0x090au32.to_le_bytes()),
            ("base_epoch", &0x0b0cu32.to_le_bytes()),
            ("seal_epoch", &0x0d0eu32.to_le_bytes()),
            ("size_blocks", &0x0f10u64.to_le_bytes()),
            ("root", &pointer_bytes(pointer(0x1112))),
            ("own_data_blocks", &0x1314u64.to_le_bytes()),
            ("own_page_blocks", &0x1516u64.to_le_bytes()),
            ("cursor", &0x1718u64.to_le_bytes()),
            ("serial", &0x191au64.to_le_bytes()),
            ("created_unix_ns", &(-3i64).to_le_bytes()),
            ("content_bytes", &0x1b1cu64.to_le_bytes()),
            ("tag", &[0x1d; 32]),
            ("summed_blocks", &0x1e1fu64.to_le_bytes()),
            ("name", "n".repeat(255).as_bytes()),
        ],
    );
}

#[test]
fn batches_lie_as_documented() {
    let (bytes, crc) =
        batch::encode(0x0102_0304_0506_0708, 0x1718, 0x1112, 0x1314, 0x1516, b"records!");
    hold(
        "Journal batch",
        &bytes,
        &[
            ("magic", b"tbat"),
            ("length_bytes", &8u32.to_le_bytes()),
            ("pool_tag", &0x0102_0304_0506_0708u64.to_le_bytes()),
            ("sequence", &0x1112u64.to_le_bytes()),
            ("settled", &0x1314u64.to_le_bytes()),
            ("previous_crc", &0x1516u32.to_le_bytes()),
            ("life", &0x1718u64.to_le_bytes()),
            ("crc", &crc.to_le_bytes()),
        ],
    );
    assert_eq!(&bytes[48..56], b"records!");
}

#[test]
fn records_have_the_documented_kinds_and_lengths() {
    let layer = LayerId::new(1).expect("not 0");
    let cursor = LogicalBlock::new(2);
    let boxed = || Box::new(layer_record());
    let map = Record::Map {
        layer,
        logical: cursor,
        block: PoolBlock::new(3),
        birth: Epoch::FIRST,
        crcs: vec![4, 5],
    };
    let examples = [
        ("map", map, 4 + 4 + 8 + 8 + 4 + 8),
        ("unmap", Record::Unmap { layer, logical: cursor, count: 1 }, 4 + 4 + 8 + 8),
        ("create", Record::Create(boxed()), 4 + 512),
        ("fork", Record::Fork { source: layer, sealed: boxed() }, 4 + 4 + 512),
        ("seal", Record::Seal { layer }, 4 + 4),
        ("describe", Record::Describe(boxed()), 4 + 512),
        ("resize", Record::Resize { layer, size_blocks: 1 }, 4 + 4 + 8),
        ("remove", Record::Remove { layer }, 4 + 4),
        ("delete walk", Record::DeleteWalk { layer, cursor }, 4 + 4 + 8),
        ("absorb walk", Record::AbsorbWalk { layer, cursor }, 4 + 4 + 8),
        ("trimmed", Record::Trimmed { layer }, 4 + 4),
        ("grow", Record::Grow { pool_blocks: 1 }, 4 + 8),
        ("summed", Record::Summed { layer, cursor }, 4 + 4 + 8),
    ];
    for (name, record, length) in examples {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        assert_eq!(bytes.len(), length, "{name}");
        let row = format!("\n| {} | {name} |", bytes[0]);
        assert!(TEXT.contains(&row), "docs/format.md has no row of kind {} {name}", bytes[0]);
    }
}
