//! Numbers of as many bytes as they need: LEB128, as in the DWARF standard, section 7.6; signed ones folded to unsigned
//! ones ("zigzag", as in Protocol Buffers, Encoding), so that small ones of either sign are short.

/// Appends an unsigned number.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends how far `value` lies from `base`, modulo 2^64.
pub(crate) fn put_difference(out: &mut Vec<u8>, value: u64, base: u64) {
    let difference = value.wrapping_sub(base).cast_signed();
    put(out, ((difference << 1) ^ (difference >> 63)).cast_unsigned());
}

/// Takes an unsigned number from the front; `None` if there is none.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has one bit left.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes what [`put_difference`] has written.
pub(crate) fn take_difference(input: &mut &[u8], base: u64) -> Option<u64> {
    let folded = take(input)?;
    let difference = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
    Some(base.wrapping_add(difference.cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back_and_a_cut_one_is_none() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(take(&mut bytes.as_slice()), Some(value));
            assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None);
            for base in [0, 5, u64::MAX] {
                let mut bytes = Vec::new();
                put_difference(&mut bytes, value, base);
                assert_eq!(take_difference(&mut bytes.as_slice(), base), Some(value));
            }
        }
        assert_eq!(take(&mut [0xff; 10].as_slice()), None);
        assert_eq!(take(&mut [0x80; 20].as_slice()), None);
    }
}
