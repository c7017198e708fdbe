//! Folders laid over each other: how they are kept, and how the kernel shows them.

pub(crate) mod folders;
pub(crate) mod kernel;

/// The prefix of the overlay's own attributes.
const OVERLAY_ATTRIBUTES: &[u8] = b"trusted.overlay.";
/// The attribute of a folder that hides what lies below it.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What a copy of an upper folder takes along: what the layer says, not where the kernel copied it from.
pub(crate) fn says_something(attribute: &[u8]) -> bool {
    attribute == OPAQUE || !attribute.starts_with(OVERLAY_ATTRIBUTES)
}

/// What the root of a layer's folder takes over from that of the layer below.
pub(crate) fn is_plain(attribute: &[u8]) -> bool {
    !attribute.starts_with(OVERLAY_ATTRIBUTES)
}
