//! The requests of the kernel that no crate wraps: subvolumes of btrfs (linux/btrfs.h) and where a file's
//! extents are (linux/fiemap.h).
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

const SUBVOLUME_NAME_BYTES: usize = 4040;
const PATH_NAME_BYTES: usize = 4088;
/// BTRFS_SUBVOL_RDONLY
pub(crate) const READ_ONLY: u64 = 1 << 1;

/// `struct btrfs_ioctl_vol_args_v2`
#[repr(C)]
pub struct SubvolumeArguments {
    fd: i64,
    transaction_id: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; SUBVOLUME_NAME_BYTES],
}

/// `struct btrfs_ioctl_vol_args`
#[repr(C)]
pub struct PathArguments {
    fd: i64,
    name: [u8; PATH_NAME_BYTES],
}

const _: () = assert!(size_of::<SubvolumeArguments>() == 4096);
const _: () = assert!(size_of::<PathArguments>() == 4096);

nix::ioctl_write_ptr!(btrfs_snapshot_create, 0x94, 23, SubvolumeArguments);
nix::ioctl_write_ptr!(btrfs_subvolume_create, 0x94, 24, SubvolumeArguments);
nix::ioctl_write_ptr!(btrfs_snapshot_destroy, 0x94, 15, PathArguments);
nix::ioctl_write_ptr!(btrfs_subvolume_set_flags, 0x94, 26, u64);

/// The name with a NUL behind it; none if it is too long.
fn padded<const SIZE: usize>(name: &str) -> Result<[u8; SIZE], Errno> {
    let mut bytes = [0; SIZE];
    let place = bytes.get_mut(..name.len()).filter(|_| name.len() < SIZE);
    place.ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(name.as_bytes());
    Ok(bytes)
}

fn arguments(source: i64, flags: u64, name: &str) -> Result<SubvolumeArguments, Errno> {
    let name = padded(name)?;
    Ok(SubvolumeArguments { fd: source, transaction_id: 0, flags, unused: [0; 4], name })
}

/// Makes an empty subvolume in a folder.
pub(crate) fn create_subvolume(folder: &File, name: &str) -> Result<(), Errno> {
    let arguments = arguments(0, 0, name)?;
    // SAFETY: the kernel reads one structure of this layout (asserted above) and keeps no pointer to it;
    // the descriptor is open as long as `folder` is borrowed.
    unsafe { btrfs_subvolume_create(folder.as_raw_fd(), &raw const arguments) }.map(drop)
}

/// Makes a snapshot of the subvolume `source` in a folder.
pub(crate) fn snapshot_subvolume(
    source: &File,
    folder: &File,
    name: &str,
    flags: u64,
) -> Result<(), Errno> {
    let arguments = arguments(i64::from(source.as_raw_fd()), flags, name)?;
    // SAFETY: as in `create_subvolume`; `source` is open, too, while it is borrowed.
    unsafe { btrfs_snapshot_create(folder.as_raw_fd(), &raw const arguments) }.map(drop)
}

/// Removes a subvolume from a folder, with all that is in it.
pub(crate) fn destroy_subvolume(folder: &File, name: &str) -> Result<(), Errno> {
    let arguments = PathArguments { fd: 0, name: padded(name)? };
    // SAFETY: as in `create_subvolume`.
    unsafe { btrfs_snapshot_destroy(folder.as_raw_fd(), &raw const arguments) }.map(drop)
}

/// Makes a subvolume read-only, or writable.
pub(crate) fn set_subvolume_flags(subvolume: &File, flags: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads one number.
    unsafe { btrfs_subvolume_set_flags(subvolume.as_raw_fd(), &raw const flags) }.map(drop)
}

/// How many extents are asked for at a time.
const EXTENTS: usize = 128;
/// FIEMAP_EXTENT_LAST
const LAST: u32 = 1;
/// FIEMAP_EXTENT_DATA_INLINE
const INLINE: u32 = 0x200;
/// FIEMAP_EXTENT_SHARED
const SHARED: u32 = 0x2000;

/// `struct fiemap_extent`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

/// `struct fiemap`
#[repr(C)]
pub struct Header {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// The header and the room behind it.
#[repr(C)]
pub struct Fiemap {
    header: Header,
    extents: [Extent; EXTENTS],
}

const _: () = assert!(size_of::<Extent>() == 56 && size_of::<Header>() == 32);

// The request's number has the header's size alone; the extents follow it.
nix::ioctl_readwrite!(fiemap, b'f', 11, Header);

/// How much of a file nothing else shares.
pub(crate) fn unshared_bytes(file: &File) -> Result<u64, Errno> {
    let mut bytes: u64 = 0;
    let mut start = 0;
    loop {
        let extent_count = u32::try_from(EXTENTS).unwrap_or_default();
        let mut map = Fiemap {
            header: Header {
                start,
                length: u64::MAX - start,
                flags: 0,
                mapped_extents: 0,
                extent_count,
                reserved: 0,
            },
            extents: [Extent::default(); EXTENTS],
        };
        // SAFETY: behind the header there is room for as many extents as it says, and the pointer is to
        // the whole structure, of which the header is the first field.
        unsafe { fiemap(file.as_raw_fd(), (&raw mut map).cast::<Header>()) }?;
        let count = usize::try_from(map.header.mapped_extents).unwrap_or(0).min(EXTENTS);
        let found = map.extents.get(..count).unwrap_or_default();
        for extent in found {
            if extent.flags & (SHARED | INLINE) == 0 {
                bytes = bytes.saturating_add(extent.length);
            }
            start = extent.logical.saturating_add(extent.length);
        }
        if found.last().is_none_or(|extent| extent.flags & LAST != 0) {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert_eq!(padded::<4>("abc"), Ok(*b"abc\0"));
        assert_eq!(padded::<4>("abcd"), Err(Errno::ENAMETOOLONG));
    }
}
