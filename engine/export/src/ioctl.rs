//! Every call into the kernel that needs `unsafe`: ioctls of loop devices and file systems, and the
//! process attributes that std and nix do not offer.
//!
//! The numbers and structures are those of `linux/loop.h`, `linux/fs.h` and `linux/prctl.h`. Each
//! wrapper takes a borrowed descriptor and plain values, so nothing above this file is unsafe.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

const LOOP_CONFIGURE: libc::c_int = 0x4C0A;
const LOOP_CLR_FD: libc::c_int = 0x4C01;
const LOOP_GET_STATUS64: libc::c_int = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_int = 0x4C07;
const LOOP_CTL_GET_FREE: libc::c_int = 0x4C82;

/// The loop device refuses writes.
pub(crate) const LO_FLAGS_READ_ONLY: u32 = 1;
/// The loop device is unbound when its last opener closes it.
pub(crate) const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// The loop device reads and writes its file past the page cache.
pub(crate) const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Bytes of the name fields of [`LoopInformation`].
pub(crate) const LOOP_NAME_BYTES: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LoopInformation {
    pub(crate) backing_device: u64,
    pub(crate) backing_inode: u64,
    pub(crate) backing_special_device: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) size_limit_bytes: u64,
    pub(crate) number: u32,
    pub(crate) encryption_type: u32,
    pub(crate) encryption_key_size: u32,
    pub(crate) flags: u32,
    pub(crate) file_name: [u8; LOOP_NAME_BYTES],
    pub(crate) encryption_name: [u8; LOOP_NAME_BYTES],
    pub(crate) encryption_key: [u8; 32],
    pub(crate) initial: [u64; 2],
}

impl LoopInformation {
    /// All fields zero: the whole file, no name, no flags.
    pub(crate) const fn zeroed() -> LoopInformation {
        LoopInformation {
            backing_device: 0,
            backing_inode: 0,
            backing_special_device: 0,
            offset_bytes: 0,
            size_limit_bytes: 0,
            number: 0,
            encryption_type: 0,
            encryption_key_size: 0,
            flags: 0,
            file_name: [0; LOOP_NAME_BYTES],
            encryption_name: [0; LOOP_NAME_BYTES],
            encryption_key: [0; 32],
            initial: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfiguration {
    file: u32,
    block_size_bytes: u32,
    information: LoopInformation,
    reserved: [u64; 8],
}

/// `struct fstrim_range`.
#[repr(C)]
struct TrimRange {
    start_bytes: u64,
    length_bytes: u64,
    minimum_length_bytes: u64,
}

// The kernel copies exactly these many bytes in and out.
const _: () = assert!(size_of::<LoopInformation>() == 232);
const _: () = assert!(size_of::<LoopConfiguration>() == 304);
const _: () = assert!(size_of::<TrimRange>() == 24);

mod raw {
    use super::{LoopConfiguration, LoopInformation, TrimRange, libc};

    nix::ioctl_write_ptr_bad!(loop_configure, super::LOOP_CONFIGURE, LoopConfiguration);
    nix::ioctl_none_bad!(loop_clear, super::LOOP_CLR_FD);
    nix::ioctl_read_bad!(loop_status, super::LOOP_GET_STATUS64, LoopInformation);
    nix::ioctl_none_bad!(loop_set_capacity, super::LOOP_SET_CAPACITY);
    nix::ioctl_none_bad!(loop_get_free, super::LOOP_CTL_GET_FREE);
    nix::ioctl_readwrite!(freeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, libc::c_int);
    nix::ioctl_readwrite!(trim, b'X', 121, TrimRange);
}

/// Binds a file to an unbound loop device and configures it in one step.
pub(crate) fn loop_configure(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    block_size_bytes: u32,
    information: LoopInformation,
) -> Result<(), Errno> {
    let file = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let configuration = LoopConfiguration { file, block_size_bytes, information, reserved: [0; 8] };
    // SAFETY: both descriptors are open for the whole call, and the kernel only reads the structure,
    // whose size is asserted above.
    unsafe { raw::loop_configure(device.as_raw_fd(), &configuration) }.map(drop)
}

/// Unbinds a loop device, or has the kernel do so when its last opener closes it.
pub(crate) fn loop_clear(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the descriptor is open; the call has no argument.
    unsafe { raw::loop_clear(device.as_raw_fd()) }.map(drop)
}

/// How a bound loop device is configured.
pub(crate) fn loop_status(device: BorrowedFd<'_>) -> Result<LoopInformation, Errno> {
    let mut information = LoopInformation::zeroed();
    // SAFETY: the descriptor is open, and the kernel writes at most the structure, whose size is
    // asserted above; every bit pattern is valid for its fields.
    unsafe { raw::loop_status(device.as_raw_fd(), &mut information) }?;
    Ok(information)
}

/// Makes a loop device take the present size of its file.
pub(crate) fn loop_set_capacity(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the descriptor is open; the call has no argument.
    unsafe { raw::loop_set_capacity(device.as_raw_fd()) }.map(drop)
}

/// The number of an unbound loop device; the kernel makes one where there is none.
pub(crate) fn loop_get_free(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: the descriptor is open; the call has no argument.
    let number = unsafe { raw::loop_get_free(control.as_raw_fd()) }?;
    u32::try_from(number).map_err(|_| Errno::ENODEV)
}

/// Stops writes to the file system of a directory once what is dirty has been written.
pub(crate) fn freeze(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut unused = 0;
    // SAFETY: the descriptor is open; the kernel does not use the argument.
    unsafe { raw::freeze(directory.as_raw_fd(), &mut unused) }.map(drop)
}

/// Lets writes to a frozen file system go on.
pub(crate) fn thaw(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut unused = 0;
    // SAFETY: the descriptor is open; the kernel does not use the argument.
    unsafe { raw::thaw(directory.as_raw_fd(), &mut unused) }.map(drop)
}

/// Discards what a mounted file system does not use; the answer is how many bytes it discarded.
pub(crate) fn trim(directory: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut range = TrimRange { start_bytes: 0, length_bytes: u64::MAX, minimum_length_bytes: 0 };
    // SAFETY: the descriptor is open, and the kernel reads and writes only the structure, whose size
    // is asserted above.
    unsafe { raw::trim(directory.as_raw_fd(), &mut range) }?;
    Ok(range.length_bytes)
}

/// Tells the kernel that the calling thread serves a block device: its allocations must not wait for
/// I/O, which may be its own. Threads started afterwards inherit this. Needs CAP_SYS_RESOURCE.
pub(crate) fn set_io_flusher() -> Result<(), Errno> {
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option reads only its integer arguments, and changes a flag of the calling thread.
    Errno::result(unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, unused, unused, unused) }).map(drop)
}

/// Keeps every page of the process in memory once it has been touched.
pub(crate) fn lock_memory() -> Result<(), Errno> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: the call takes flags only, and changes no mapping's contents.
    Errno::result(unsafe { libc::mlockall(flags) }).map(drop)
}

/// Gives the calling thread a descriptor table of its own with nothing but the three standard ones.
pub(crate) fn leave_descriptors() -> Result<(), Errno> {
    let first: libc::c_uint = 3;
    // SAFETY: the call takes integers only. It closes descriptors in a table that, by the flag, no other
    // thread shares; the caller's thread is a fresh one that uses none of them.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
    };
    Errno::result(result).map(drop)
}
