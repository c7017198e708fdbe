//! Writing file systems out: as one tar, or as an OCI archive with a layer for each layer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};

use thinstore_archive::{
    Change, ChangeKind, Compression, OciArchiveWriter, TarWriter, WhiteoutNames, write_changes,
    write_tree,
};
use thinstore_filesystem::{
    Change as TreeChange, ChangeKind as TreeChangeKind, TreePath, TreeReader,
};
use thinstore_pool::LayerId;
use thinstore_storage::{Error, ErrorKind, Result};

use crate::catalog::{Catalog, Target};
use crate::document::{HistoryEntry, plain_config};
use crate::layout::{Layout, make_private_directory};
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
        write_whole_tree(&self.ext4(device)?, output)
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
        let mut archive = archive_for(self.layout(), format);
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
        finish_archive(archive, &config, name.as_deref(), output)
    }

    fn write_layer(
        &self,
        below: LayerId,
        layer: LayerId,
        for_overlay: bool,
        output: &mut dyn Write,
    ) -> Result<()> {
        let changes = self.tree_changes(below, layer)?;
        write_layer_tree(&self.ext4(below)?, &self.ext4(layer)?, changes, for_overlay, output)
    }

    /// The configuration to start from, and the image's name.
    fn exported_config(
        &self,
        catalog: &Catalog,
        target: Target,
    ) -> Result<(String, Option<String>)> {
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
                let config = document.map_or_else(config_of_no_image, |document| document.config);
                Ok((config, Some(ImageName::from_text(&container.name).to_string())))
            }
            Target::Layer(_) => Ok((config_of_no_image(), None)),
        }
    }
}

/// An archive of layers as a format has them.
pub(crate) fn archive_for(layout: &Layout, format: ExportFormat) -> OciArchiveWriter {
    let compression = match format {
        ExportFormat::Layers => Compression::None,
        ExportFormat::Tar | ExportFormat::Oci => Compression::Gzip,
    };
    OciArchiveWriter::new(&layout.run(), compression)
}

pub(crate) fn finish_archive(
    archive: OciArchiveWriter,
    config: &str,
    name: Option<&str>,
    output: &mut dyn Write,
) -> Result<()> {
    let output = BufWriter::with_capacity(BUFFER_BYTES, output);
    let (mut output, _) = archive.finish(config.as_bytes(), name, output)?;
    output.flush().map_err(crate::output_failed)
}

/// Writes all of a tree as one tar.
pub(crate) fn write_whole_tree(tree: &dyn TreeReader, output: &mut dyn Write) -> Result<()> {
    let output = BufWriter::with_capacity(BUFFER_BYTES, output);
    let mut writer = TarWriter::new(output, WhiteoutNames::Plain);
    write_tree(tree, &TreePath::root(), &mut writer)?;
    writer.finish()?.flush().map_err(crate::output_failed)
}

/// Writes what a layer changes of the tree below it as the layer's tar.
pub(crate) fn write_layer_tree(
    below: &dyn TreeReader,
    layer: &dyn TreeReader,
    mut changes: Vec<TreeChange>,
    for_overlay: bool,
    output: &mut dyn Write,
) -> Result<()> {
    let mut emptied = Vec::new();
    if for_overlay {
        emptied = take_emptied(below, &mut changes)?;
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
    write_changes(layer, &changes, &mut writer)?;
    writer.finish().map(drop)
}

/// The configuration of something that is no image.
pub(crate) fn config_of_no_image() -> String {
    plain_config(&rfc3339(now_unix_ns()), &[], &HistoryEntry::default())
}

/// Takes the deletions out of the changes that leave nothing of what a folder had; those folders.
fn take_emptied(old: &dyn TreeReader, changes: &mut Vec<TreeChange>) -> Result<Vec<TreePath>> {
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
