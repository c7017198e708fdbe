//! Little-endian fields at fixed offsets of on-disk structures, and the number conversions that go
//! with them. All are total: a field that would lie outside its structure reads as zero and is not
//! written, so that no input can make them panic; the callers' offsets are constants inside
//! structures whose sizes were checked.

/// Reads a 16-bit field.
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>());
    field.map_or(0, |field| u16::from_le_bytes(*field))
}

/// Reads a 32-bit field.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

/// Reads one byte.
pub(crate) fn get_u8(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// Writes a byte string.
pub(crate) fn put_bytes(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at.saturating_add(value.len())) {
        field.copy_from_slice(value);
    }
}

/// Writes a 16-bit field.
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    put_bytes(bytes, at, &value.to_le_bytes());
}

/// Writes a 32-bit field.
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put_bytes(bytes, at, &value.to_le_bytes());
}

/// Two 16-bit halves as ext4 splits them over a structure.
pub(crate) fn join_u16(low: u16, high: u16) -> u32 {
    (u32::from(high) << 16) | u32::from(low)
}

/// The 16-bit halves, low first.
pub(crate) fn split_u32(value: u32) -> (u16, u16) {
    let [a, b, c, d] = value.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

/// The 32-bit halves, low first.
pub(crate) fn split_u64(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// A length or index in memory as a 64-bit number.
pub(crate) fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// A 64-bit number as a length or index in memory. Saturates where the machine's words are shorter,
/// which the bounds checks that follow refuse.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A 32-bit number as a length or index in memory.
pub(crate) fn index_u32(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_outside_a_structure_read_as_zero_and_are_not_written() {
        let mut bytes = [0xff; 4];
        assert_eq!(get_u32(&bytes, 1), 0);
        assert_eq!(get_u16(&bytes, usize::MAX), 0);
        put_u32(&mut bytes, 2, 0);
        put_u16(&mut bytes, usize::MAX, 0);
        assert_eq!(bytes, [0xff; 4]);
    }

    #[test]
    fn halves_join_to_what_was_split() {
        let (low, high) = split_u32(0x1234_5678);
        assert_eq!((low, high), (0x5678, 0x1234));
        assert_eq!(join_u16(low, high), 0x1234_5678);
        assert_eq!(split_u64(0x1_0000_0002), (2, 1));
    }
}
