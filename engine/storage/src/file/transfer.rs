//! Moving bytes between memory and an open file, at a stated offset, wholly or with an error.
//!
//! Direct I/O wants address, offset and length at multiples of [`DIRECT_ALIGNMENT_BYTES`]. Where all
//! three are, the caller's memory is used as it is. Else the bytes go through an aligned buffer that
//! each thread keeps; a range that begins or ends inside a block is widened to whole blocks, and for a
//! write the two blocks at its ends are read first.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::aligned::{AlignedBuffer, DIRECT_ALIGNMENT_BYTES, is_aligned};
use crate::range::length_bytes;

const BLOCK_BYTES: u64 = 4096;

/// The longest transfer through the bounce buffer in one system call.
const BOUNCE_BYTES: usize = 1 << 20;
const BOUNCE_BYTES_U64: u64 = 1 << 20;

thread_local! {
    /// Taken out while in use, so that nothing can find it borrowed.
    static BOUNCE: Cell<Option<AlignedBuffer>> = const { Cell::new(None) };
}

/// Calls `work` with this thread's bounce buffer of [`BOUNCE_BYTES`].
fn with_bounce<T>(work: impl FnOnce(&mut AlignedBuffer) -> T) -> T {
    // A thread that is ending may have lost its buffer already: then a new one serves.
    let kept = BOUNCE.try_with(Cell::take).ok().flatten();
    let mut buffer = kept.unwrap_or_else(|| AlignedBuffer::new(BOUNCE_BYTES));
    let result = work(&mut buffer);
    let _ = BOUNCE.try_with(|cell| cell.set(Some(buffer)));
    result
}

/// Whether a range begins and ends at block borders.
pub(super) fn is_whole_blocks(offset_bytes: u64, length_bytes: u64) -> bool {
    offset_bytes.is_multiple_of(BLOCK_BYTES) && length_bytes.is_multiple_of(BLOCK_BYTES)
}

/// How far a transfer that moved `count` bytes has come. A direct transfer goes on at a block border:
/// what lies behind the last one is moved again.
fn advance(count: usize, direct: bool) -> usize {
    if direct { count - count % DIRECT_ALIGNMENT_BYTES } else { count }
}

/// Fills `buffer` by as many calls of `read` as it takes.
fn read_fully(
    mut offset_bytes: u64,
    mut buffer: &mut [u8],
    direct: bool,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match read(buffer, offset_bytes) {
            Ok(count) if count >= buffer.len() => return Ok(()),
            Ok(count) if advance(count, direct) == 0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the file ends before offset {offset_bytes}: it was cut off"),
                ));
            }
            Ok(count) => {
                let done = advance(count, direct);
                buffer = &mut buffer[done..];
                offset_bytes += u64::try_from(done).unwrap_or(0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `data` by as many calls of `write` as it takes.
fn write_fully(
    mut offset_bytes: u64,
    mut data: &[u8],
    direct: bool,
    mut write: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !data.is_empty() {
        match write(data, offset_bytes) {
            Ok(count) if count >= data.len() => return Ok(()),
            Ok(count) if advance(count, direct) == 0 => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    format!("the host takes no more bytes at offset {offset_bytes}"),
                ));
            }
            Ok(count) => {
                let done = advance(count, direct);
                data = &data[done..];
                offset_bytes += u64::try_from(done).unwrap_or(0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buffer` from a file that goes through the page cache.
pub(super) fn read_buffered(file: &File, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    read_fully(offset_bytes, buffer, false, |part, at| file.read_at(part, at))
}

/// Writes `data` to a file that goes through the page cache.
pub(super) fn write_buffered(file: &File, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
    write_fully(offset_bytes, data, false, |part, at| file.write_at(part, at))
}

fn read_aligned(file: &File, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    read_fully(offset_bytes, buffer, true, |part, at| file.read_at(part, at))
}

fn write_aligned(file: &File, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
    write_fully(offset_bytes, data, true, |part, at| file.write_at(part, at))
}

/// One piece of a range, of at most [`BOUNCE_BYTES`] with whole blocks around it.
struct Piece {
    /// Where the whole blocks begin in the file.
    start_bytes: u64,
    /// How long the whole blocks are.
    blocks_length: usize,
    /// Where the wanted bytes stand in the whole blocks.
    inside: Range<usize>,
    /// Where the wanted bytes stand in the caller's memory.
    outside: Range<usize>,
}

/// Cuts a range into pieces. The range ends at or below the file's size, a multiple of the block
/// size, so rounding up cannot overflow.
fn pieces(offset_bytes: u64, length_bytes: u64) -> impl Iterator<Item = Piece> {
    let end = offset_bytes + length_bytes;
    let mut at = offset_bytes;
    let mut done = 0;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let start_bytes = at - at % BLOCK_BYTES;
        let stop = end.min(start_bytes + BOUNCE_BYTES_U64);
        let blocks_length = stop.next_multiple_of(BLOCK_BYTES) - start_bytes;
        let from = usize::try_from(at - start_bytes).ok()?;
        let to = usize::try_from(stop - start_bytes).ok()?;
        let outside = done..done + (to - from);
        done = outside.end;
        at = stop;
        let blocks_length = usize::try_from(blocks_length).ok()?;
        Some(Piece { start_bytes, blocks_length, inside: from..to, outside })
    })
}

/// Fills `buffer` from a file that was opened for direct I/O.
pub(super) fn read_direct(file: &File, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    if is_aligned(buffer) && offset_bytes.is_multiple_of(BLOCK_BYTES) {
        return read_aligned(file, offset_bytes, buffer);
    }
    with_bounce(|bounce| {
        for piece in pieces(offset_bytes, length_bytes(buffer)) {
            read_aligned(file, piece.start_bytes, &mut bounce[..piece.blocks_length])?;
            buffer[piece.outside].copy_from_slice(&bounce[piece.inside]);
        }
        Ok(())
    })
}

/// Writes `data` to a file that was opened for direct I/O.
///
/// If the range is not whole blocks, the blocks at its ends are read and written back: the caller
/// must let no other write to them happen meanwhile.
pub(super) fn write_direct(file: &File, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
    if is_aligned(data) && offset_bytes.is_multiple_of(BLOCK_BYTES) {
        return write_aligned(file, offset_bytes, data);
    }
    with_bounce(|bounce| {
        for piece in pieces(offset_bytes, length_bytes(data)) {
            let last_block = piece.blocks_length - DIRECT_ALIGNMENT_BYTES;
            let head_is_partial = piece.inside.start != 0;
            if head_is_partial {
                read_aligned(file, piece.start_bytes, &mut bounce[..DIRECT_ALIGNMENT_BYTES])?;
            }
            let tail_is_partial = piece.inside.end != piece.blocks_length;
            if tail_is_partial && !(head_is_partial && last_block == 0) {
                let tail_bytes = piece.start_bytes + u64::try_from(last_block).unwrap_or(0);
                read_aligned(file, tail_bytes, &mut bounce[last_block..piece.blocks_length])?;
            }
            bounce[piece.inside].copy_from_slice(&data[piece.outside]);
            write_aligned(file, piece.start_bytes, &bounce[..piece.blocks_length])?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of the bytes 0, 1, 2, ... that gives at most `most` bytes a call.
    fn stingy(most: usize, size: usize) -> impl FnMut(&mut [u8], u64) -> io::Result<usize> {
        let mut calls = 0;
        move |part, at| {
            calls += 1;
            if calls % 3 == 2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let at = usize::try_from(at).unwrap();
            let count = part.len().min(most).min(size.saturating_sub(at));
            for (index, byte) in part[..count].iter_mut().enumerate() {
                *byte = u8::try_from((at + index) % 256).unwrap();
            }
            Ok(count)
        }
    }

    #[test]
    fn short_and_interrupted_reads_are_carried_on() {
        for (most, direct) in [(1000, false), (4096, true), (5000, true), (1 << 20, true)] {
            let mut buffer = vec![0; 12288];
            read_fully(4096, &mut buffer, direct, stingy(most, 65536)).unwrap();
            let expected = (4096..16384).map(|at| u8::try_from(at % 256).unwrap());
            assert!(buffer.into_iter().eq(expected), "{most} {direct}");
        }
    }

    #[test]
    fn a_file_that_was_cut_off_is_an_error_and_no_endless_loop() {
        for (size, direct) in [(8192, false), (8192, true), (8200, true)] {
            let mut buffer = vec![0; 8192];
            let error = read_fully(4096, &mut buffer, direct, stingy(4096, size)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn short_and_interrupted_writes_are_carried_on_at_block_borders_when_direct() {
        for (most, direct) in [(1000, false), (5000, true)] {
            let data: Vec<u8> = (0..12288).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut written = vec![0; 16384];
            let mut calls = 0;
            write_fully(4096, &data, direct, |part, at| {
                calls += 1;
                if calls % 3 == 2 {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                assert!(!direct || at % 4096 == 0);
                let count = part.len().min(most);
                let at = usize::try_from(at).unwrap();
                written[at..at + count].copy_from_slice(&part[..count]);
                Ok(count)
            })
            .unwrap();
            assert_eq!(written[4096..], data);
        }
    }

    #[test]
    fn a_write_that_makes_no_headway_is_an_error() {
        for (count, direct) in [(0, false), (0, true), (100, true)] {
            let error = write_fully(0, &[1; 8192], direct, |_, _| Ok(count)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        }
    }

    #[test]
    fn pieces_cover_a_range_once_and_in_order() {
        for (offset_bytes, length) in [(0, 1), (4095, 2), (100, 3 << 20), (1 << 20, 1 << 20)] {
            let mut at = offset_bytes;
            let mut done = 0;
            for piece in pieces(offset_bytes, length) {
                assert!(is_whole_blocks(
                    piece.start_bytes,
                    u64::try_from(piece.blocks_length).unwrap()
                ));
                assert!(piece.blocks_length <= BOUNCE_BYTES);
                assert_eq!(piece.start_bytes + u64::try_from(piece.inside.start).unwrap(), at);
                assert_eq!(piece.outside.start, done);
                assert_eq!(piece.inside.len(), piece.outside.len());
                done = piece.outside.end;
                at += u64::try_from(piece.inside.len()).unwrap();
            }
            assert_eq!(at, offset_bytes + length);
        }
    }
}
