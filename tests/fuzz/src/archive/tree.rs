//! Ext4 in memory: a fresh one for each input.

use std::sync::{Arc, OnceLock};

use thinstore_archive::{Layer, TarWriter, WhiteoutNames, apply_layer, write_tree};
use thinstore_filesystem::template::{SIZE_MIN_BYTES, TemplateIdentity, make_ext4};
use thinstore_filesystem::{Ext4Reader, Ext4Writer, TreePath, TreeWriter, manifest};
use thinstore_storage::{BlockDevice, Error, ErrorKind, Result, Storage};

use crate::overlay::{Blocks, Overlay};

/// A device in memory.
struct Device(Overlay);

fn failed(error: std::io::Error) -> Error {
    Error::io("the device in memory failed", error)
}

impl BlockDevice for Device {
    fn size_bytes(&self) -> u64 {
        Storage::size_bytes(&self.0)
    }

    fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset_bytes, buffer).map_err(failed)
    }

    fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.0.write_at(offset_bytes, data).map_err(failed)
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.0.punch_hole(offset_bytes, length_bytes).map_err(failed)
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        self.write_zeroes(offset_bytes, length_bytes)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

fn template() -> Arc<Blocks> {
    static TEMPLATE: OnceLock<Arc<Blocks>> = OnceLock::new();
    Arc::clone(TEMPLATE.get_or_init(|| {
        let device = Device(Overlay::new(SIZE_MIN_BYTES, Arc::default()));
        let identity = TemplateIdentity { uuid: [1; 16], hash_seed: [2; 16] };
        make_ext4(&device, &identity).expect("mke2fs of e2fsprogs makes a file system");
        Arc::new(device.0.flattened())
    }))
}

/// A file system that layers are applied to.
pub(super) struct Tree(Arc<Device>);

impl Tree {
    pub(super) fn new() -> Tree {
        Tree(Arc::new(Device(Overlay::new(SIZE_MIN_BYTES, template()))))
    }

    fn device(&self) -> Arc<dyn BlockDevice> {
        Arc::clone(&self.0) as Arc<dyn BlockDevice>
    }

    /// Applies a layer, whole or not at all.
    pub(super) fn apply(&self, layer: &Layer) -> Result<()> {
        let mut writer = Ext4Writer::open(self.device())?;
        apply_layer(&mut layer.open(None)?, &mut writer)?;
        writer.finish()
    }

    fn reader(&self) -> Ext4Reader {
        Ext4Reader::open(self.device()).expect("what was written can be read")
    }

    /// All that is in it, as text.
    pub(super) fn manifest(&self) -> String {
        let mut text = Vec::new();
        manifest(&self.reader(), &mut text).expect("what was written can be read");
        String::from_utf8(text).expect("a manifest is ASCII")
    }

    /// All that is in it, as a tar. None where it has names that would be marks.
    pub(super) fn tar(&self) -> Option<Vec<u8>> {
        let mut writer = TarWriter::new(Vec::new(), WhiteoutNames::Refused);
        match write_tree(&self.reader(), &TreePath::root(), &mut writer) {
            Ok(()) => Some(writer.finish().expect("memory can be written")),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                None
            }
        }
    }
}
