//! Writing file systems out: as one tar, or as an OCI archive with a layer for each layer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};

use thinstore_archive::{
    Change, ChangeKind, Compression, OciArchiveWriter, TarWriter, WhiteoutNames, write_changes,
    write_tree,
};
use thinstore_filesystem::{
    Change as TreeChange, ChangeKind as TreeChangeKind, Ext4Reader, TreePath, TreeReader,
};
use thinstore_pool::LayerId;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::catalog::{Catalog, Target};
use crate::document::{HistoryEntry, plain_config};
use crate::layout::make_private_directory;
use crate::listing::{image_document, readable_document};
use crate::names::ImageName;
use crate::store::Store;
use crate::time::{now_unix_ns, rfc3339};
use crate::types::{ExportFormat, ExportRequest};

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 256 << 10;

impl Store {
    pub(crate) fn write_export(
        &self,
        request: &ExportRequest,
        output: &mut dyn Write,
    ) -> Result<()> {
        let target = self.catalog().resolve(&request.name, None)?;
        self.with_still_devices(&[target], |catalog, devices| {
            let device = match devices.first() {
                Some(device) => *device,
                None => catalog.device_of(target)?,
            };
            match request.format {
                ExportFormat::Tar => self.write_tar(device, output),
                ExportFormat::Oci | ExportFormat::Layers => {
                    self.write_oci(catalog, target, device, request.format, output)
                }
            }
        })
    }

    fn write_tar(&self, device: LayerId, output: &mut dyn Write) -> Result<()> {
        let tree = self.ext4(device)?;
        let output = BufWriter::with_capacity(BUFFER_BYTES, output);
        let mut writer = TarWriter::new(output, WhiteoutNames::Plain);
        write_tree(&tree, &TreePath::root(), &mut writer)?;
        writer.finish()?.flush().map_err(crate::output_failed)
    }

    /// A container gets one more layer than its image: what it has changed.
    fn write_oci(
        &self,
        catalog: &Catalog,
        target: Target,
        device: LayerId,
        format: ExportFormat,
        output: &mut dyn Write,
    ) -> Result<()> {
        make_private_directory(&self.layout().run())?;
        let for_overlay = format == ExportFormat::Layers;
        let compression = if for_overlay { Compression::None } else { Compression::Gzip };
        let mut archive = OciArchiveWriter::new(&self.layout().run(), compression);
        let mut chain: Vec<LayerId> = catalog
            .visible_ancestry(catalog.device_of(target)?)
            .into_iter()
            .rev()
            .map(|layer| layer.id)
            .collect();
        if let Target::Container(_) = target {
            chain.push(device);
        }
        let bottom = chain.first().copied().unwrap_or(device);
        let mut below = empty_base(catalog, bottom)?;
        for layer in chain {
            archive.add_layer(|output| self.write_layer(below, layer, for_overlay, output))?;
            below = layer;
        }
        let (config, name) = self.exported_config(catalog, target)?;
        let output = BufWriter::with_capacity(BUFFER_BYTES, output);
        let (mut output, _) = archive.finish(config.as_bytes(), name.as_deref(), output)?;
        output.flush().map_err(crate::output_failed)
    }

    fn write_layer(
        &self,
        below: LayerId,
        layer: LayerId,
        for_overlay: bool,
        output: &mut dyn Write,
    ) -> Result<()> {
        let mut changes = self.tree_changes(below, layer)?;
        let mut emptied = Vec::new();
        if for_overlay {
            emptied = take_emptied(&self.ext4(below)?, &mut changes)?;
            // an overlay shows the root of its uppermost folder
            let root = TreePath::root();
            changes.push(TreeChange { kind: TreeChangeKind::Changed, path: root });
        }
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|change| Change {
                kind: match change.kind {
                    TreeChangeKind::Added => ChangeKind::Added,
                    TreeChangeKind::Changed => ChangeKind::Modified,
                    TreeChangeKind::Deleted => ChangeKind::Deleted,
                },
                path: change.path,
            })
            .chain(emptied.into_iter().map(|path| Change { kind: ChangeKind::Emptied, path }))
            .collect();
        let mut writer = TarWriter::new(output, WhiteoutNames::Refused);
        write_changes(&self.ext4(layer)?, &changes, &mut writer)?;
        writer.finish().map(drop)
    }

    /// The configuration to start from, and the image's name.
    fn exported_config(
        &self,
        catalog: &Catalog,
        target: Target,
    ) -> Result<(String, Option<String>)> {
        let plain = || plain_config(&rfc3339(now_unix_ns()), &[], &HistoryEntry::default());
        match target {
            Target::Image(id) => {
                let image = catalog.layer(id)?;
                Ok((image_document(self.pool(), image)?.config, Some(image.name.clone())))
            }
            Target::Container(id) => {
                let container = catalog.layer(id)?;
                let document = match catalog.image_of(container) {
                    Some(image) => readable_document(self.pool(), image)?,
                    None => None,
                };
                let config = document.map_or_else(plain, |document| document.config);
                Ok((config, Some(ImageName::from_text(&container.name).to_string())))
            }
            Target::Layer(_) => Ok((plain(), None)),
        }
    }
}

/// Takes the deletions out of the changes that leave nothing of what a folder had; those folders.
fn take_emptied(old: &Ext4Reader, changes: &mut Vec<TreeChange>) -> Result<Vec<TreePath>> {
    let mut deletions: BTreeMap<TreePath, usize> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.kind == TreeChangeKind::Deleted) {
        *deletions.entry(change.path.parent()).or_default() += 1;
    }
    // the root of an overlay cannot hide what is below it
    deletions.remove(&TreePath::root());
    let mut emptied = BTreeSet::new();
    for (folder, count) in deletions {
        if old.names(&folder)?.len() == count {
            emptied.insert(folder);
        }
    }
    changes.retain(|change| {
        change.kind != TreeChangeKind::Deleted || !emptied.contains(&change.path.parent())
    });
    Ok(emptied.into_iter().collect())
}

/// The empty file system that a chain of layers begins with.
fn empty_base(catalog: &Catalog, bottom: LayerId) -> Result<LayerId> {
    let base = catalog.ancestry(bottom).into_iter().last().filter(|base| base.id != bottom);
    base.map(|base| base.id).ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            "the lowest layer stands on no empty file system; run 'thinstore check'",
        )
    })
}
