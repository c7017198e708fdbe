//! Is what was found something that may be found?

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use thinstore_pool::{BLOCK_BYTES, LayerId, Namespace, Pool};
use thinstore_storage::BlockDevice;

use crate::content::{SECTOR_BYTES, SECTORS, WriteId, read_sector};
use crate::model::{Model, ModelLayer, Presence, Version};

/// The namespace of the layers of a story.
pub const NAMES: Namespace = Namespace(1);

const BLOCK_LENGTH: usize = BLOCK_BYTES as usize;

/// What each sector of each written block came from.
pub type Found = BTreeMap<u64, [WriteId; SECTORS]>;

/// Says what is wrong with a pool, if anything is.
pub type Verdict = Result<(), String>;

fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Looks at a pool that was opened after power had failed at the moment of `model`.
pub fn verify(pool: &Pool, model: &Model) -> Verdict {
    let report = pool.check().map_err(say)?;
    if let Some(finding) = report.findings.first() {
        let more = report.findings.len() - 1;
        let whose = finding.layer.map_or(String::new(), |layer| format!(" of {layer}"));
        return Err(format!(
            "check: {}{whose}: {} (and {more} more)",
            finding.structure, finding.message
        ));
    }
    verify_checksums(pool)?;
    let mut found = layers(pool);
    let mut groups: BTreeMap<u64, bool> = BTreeMap::new();
    for (name, layer) in &model.layers {
        let id = found.remove(name);
        match (layer.presence, id) {
            (Presence::Sure, None) => return Err(format!("{name} is gone")),
            (Presence::Uncertain(group), id) if group > 0 => {
                let there = id.is_some();
                if *groups.entry(group).or_insert(there) != there {
                    return Err(format!("{name} was to come or go together with others"));
                }
            }
            _ => {}
        }
        if let Some(id) = id {
            verify_layer(pool, id, name, layer)?;
        }
    }
    match found.into_keys().next() {
        Some(name) => Err(format!("{name} should not be there")),
        None => Ok(()),
    }
}

/// Nothing on the disk has another checksum than is recorded.
fn verify_checksums(pool: &Pool) -> Verdict {
    let report = pool.scrub(&[], &mut |_| ControlFlow::Continue(()));
    match report.findings.first() {
        Some(finding) => {
            let whose = finding.layer.map_or(String::new(), |layer| format!(" of {layer}"));
            Err(format!("scrub: {}{whose}: {}", finding.structure, finding.message()))
        }
        None => Ok(()),
    }
}

/// The named layers of a pool.
pub fn layers(pool: &Pool) -> BTreeMap<String, LayerId> {
    let mine = pool.layers().into_iter().filter(|info| info.namespace == NAMES);
    mine.map(|info| (info.name, info.id)).collect()
}

/// Reads all of a layer; only written blocks are given.
pub fn read_layer(pool: &Pool, id: LayerId, name: &str) -> Result<Found, String> {
    let device = pool.device(id).map_err(say)?;
    let mut found = Found::new();
    let mut bytes = Vec::new();
    let mut at = 0;
    // What is not mapped has no bytes that could be wrong.
    while let Some(range) = device.next_mapped(at).map_err(say)? {
        at = range.end.min(range.start + 64 * BLOCK_BYTES);
        bytes.resize((at - range.start) as usize, 0);
        device.read(range.start, &mut bytes).map_err(say)?;
        for (block, content) in (range.start / BLOCK_BYTES..).zip(bytes.chunks(BLOCK_LENGTH)) {
            let mut sectors = [WriteId::ZEROES; SECTORS];
            for (index, sector) in content.chunks(SECTOR_BYTES).enumerate() {
                let place = block * SECTORS as u64 + index as u64;
                sectors[index] = read_sector(place, sector)
                    .ok_or_else(|| format!("{name} block {block} sector {index} is no write's"))?;
            }
            if sectors != [WriteId::ZEROES; SECTORS] {
                found.insert(block, sectors);
            }
        }
    }
    Ok(found)
}

fn verify_layer(pool: &Pool, id: LayerId, name: &str, layer: &ModelLayer) -> Verdict {
    let info = pool.layer(id).map_err(say)?;
    if !layer.sizes_blocks.contains(&(info.size_bytes / BLOCK_BYTES)) {
        return Err(format!("{name} has {} bytes", info.size_bytes));
    }
    if !layer.sealing && info.sealed != layer.sealed {
        return Err(format!("{name} is sealed: {}", info.sealed));
    }
    if let Some(document) = &layer.document {
        let found = pool.document(id).map_err(say)?;
        if found.as_ref() != Some(document) {
            return Err(format!("{name} has another document"));
        }
    }
    let found = read_layer(pool, id, name)?;
    compare(name, layer, &found).map(drop)
}

/// Which version each block has; an error where it has none that it may have.
pub fn compare(
    name: &str,
    layer: &ModelLayer,
    found: &Found,
) -> Result<BTreeMap<u64, usize>, String> {
    let zeroes = [WriteId::ZEROES; SECTORS];
    if let Some(block) = found.keys().find(|block| !layer.blocks.contains_key(block)) {
        return Err(format!("{name} block {block} was never written, and has {:x?}", found[block]));
    }
    let mut whole = BTreeMap::new();
    for (block, versions) in &layer.blocks {
        let sectors = found.get(block).unwrap_or(&zeroes);
        match versions.iter().rposition(|version| version.sectors == *sectors) {
            Some(index) => {
                whole.insert(*block, index);
            }
            None if is_torn(versions, sectors) => {}
            None => return Err(describe(name, *block, sectors, versions)),
        }
    }
    if layer.untouched {
        in_order(name, layer, &whole)?;
    }
    Ok(whole)
}

/// Is every sector that of a version of one and the same home?
fn is_torn(versions: &[Version], sectors: &[WriteId; SECTORS]) -> bool {
    versions.iter().any(|one| {
        sectors.iter().enumerate().all(|(index, sector)| {
            versions
                .iter()
                .any(|version| version.home == one.home && version.sectors[index] == *sector)
        })
    })
}

fn describe(name: &str, block: u64, sectors: &[WriteId; SECTORS], versions: &[Version]) -> String {
    let versions: Vec<String> = versions
        .iter()
        .map(|version| {
            format!("{:x?} home {:x}", version.sectors.map(|write| write.0), version.home)
        })
        .collect();
    let sectors = sectors.map(|write| write.0);
    format!("{name} block {block} has {sectors:x?}, and may have one of {versions:#?}")
}

/// A snapshot is a state that its origin had: who sees a write sees all that its thread had done before.
fn in_order(name: &str, layer: &ModelLayer, whole: &BTreeMap<u64, usize>) -> Verdict {
    let mut newest: BTreeMap<u8, WriteId> = BTreeMap::new();
    for (block, index) in whole {
        let author = layer.blocks[block][*index].author;
        let seen = newest.entry(author.thread()).or_insert(author);
        *seen = (*seen).max(author);
    }
    for (block, index) in whole {
        for later in layer.blocks[block].iter().skip(index + 1).filter(|later| later.is_complete())
        {
            let seen = newest.get(&later.author.thread()).copied().unwrap_or_default();
            if later.author < seen {
                return Err(format!(
                    "{name} has the write {:x}, and in block {block} not {:x} that came before",
                    seen.0, later.author.0
                ));
            }
        }
    }
    Ok(())
}

/// Everything is removed: is every block of the pool free again?
pub fn verify_space(pool: &Pool, empty_used_bytes: u64) -> Verdict {
    for id in layers(pool).into_values() {
        pool.remove(id).map_err(say)?;
    }
    // What images referenced, and nothing needs any more.
    for info in pool.layers().into_iter().filter(|info| !info.hidden) {
        pool.remove(info.id).map_err(say)?;
    }
    pool.wait_for_frees().map_err(say)?;
    let report = pool.check().map_err(say)?;
    if let Some(finding) = report.findings.first() {
        return Err(format!("check after removing all: {}", finding.message));
    }
    let usage = pool.usage();
    let rest = pool.layers().len();
    if usage.used_bytes != empty_used_bytes || usage.pending_free_bytes > 0 || rest > 0 {
        return Err(format!(
            "{rest} layers and {} bytes are left of an empty pool of {empty_used_bytes}, {} pending",
            usage.used_bytes, usage.pending_free_bytes
        ));
    }
    Ok(())
}
