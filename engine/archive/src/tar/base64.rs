//! Base64, as libarchive writes extended attributes: the standard alphabet, padding optional.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes of a base64 text; `None` if it is none. Newlines are passed over.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count, mut padding) = (0_u32, 0_u32, false);
    for byte in text {
        let value = match byte {
            b'\r' | b'\n' => continue,
            b'=' => {
                padding = true;
                continue;
            }
            _ if padding => return None,
            byte => ALPHABET.iter().position(|letter| letter == byte)?,
        };
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0x00ff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    // What is left must be less than a letter's worth, or a letter stands alone.
    (count < 6).then_some(bytes)
}

/// The base64 text of bytes, with padding.
pub(crate) fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            let shift = 18 - 6 * letter;
            let used = usize::try_from(letter).is_ok_and(|letter| letter <= group.len());
            let index = usize::try_from(bits >> shift & 63).unwrap_or(0);
            text.push(if used { ALPHABET.get(index).copied().unwrap_or(b'=') } else { b'=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_with_and_without_padding() {
        assert_eq!(encode(b"Man"), b"TWFu");
        assert_eq!(encode(b"Ma"), b"TWE=");
        for length in 0..300_u16 {
            let bytes: Vec<u8> =
                (0..length).map(|value| u8::try_from(value * 7 % 256).unwrap()).collect();
            let text = encode(&bytes);
            assert_eq!(decode(&text).unwrap(), bytes);
            let bare: Vec<u8> = text.into_iter().filter(|byte| *byte != b'=').collect();
            assert_eq!(decode(&bare).unwrap(), bytes);
        }
    }

    #[test]
    fn what_is_no_base64_is_none() {
        for text in [&b"A"[..], b"AAA=A", b"A!AA", b"\xff\xff\xff\xff"] {
            assert_eq!(decode(text), None);
        }
    }
}
