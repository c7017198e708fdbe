//! Byte ranges, and whether they lie within a storage.

use std::io;

/// A length as an offset counts it. No slice of this program is longer than an offset can say.
pub(crate) fn length_bytes(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Whether `length_bytes` at `offset_bytes` lie within `size_bytes`.
pub(crate) fn lies_within(offset_bytes: u64, length_bytes: u64, size_bytes: u64) -> bool {
    offset_bytes.checked_add(length_bytes).is_some_and(|end| end <= size_bytes)
}

/// Refuses a range that does not lie within the `size_bytes` of the storage that `name` names.
pub(crate) fn check_within(
    name: impl FnOnce() -> String,
    offset_bytes: u64,
    length_bytes: u64,
    size_bytes: u64,
) -> io::Result<()> {
    if lies_within(offset_bytes, length_bytes, size_bytes) {
        return Ok(());
    }
    let name = name();
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{length_bytes} bytes at {offset_bytes} lie past the end of {name}, which has \
             {size_bytes} bytes"
        ),
    ))
}
