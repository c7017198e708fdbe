//! What a target takes from its input, byte by byte. At the end everything is zero: a shorter input means
//! a smaller one, never another one.

/// A reader of choices.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// At most so many bytes.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = tail;
        head
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.take(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// One of several things, by two bytes.
    pub(crate) fn choose<'b, T>(&mut self, among: &'b [T]) -> &'b T {
        &among[usize::from(self.u16()) % among.len()]
    }

    /// A number that is small, near an edge, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=191 => u64::from(small),
            192..=223 => u64::from(self.u16()),
            224..=239 => u64::from(self.u32()),
            240..=247 => self.u64(),
            248 => u64::MAX,
            249 => u64::MAX / 2,
            250 => u64::from(u32::MAX),
            edge => 1 << (8 * (edge - 250)),
        }
    }
}
