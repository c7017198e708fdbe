//! `trace`: what a container's device is asked, as it happens.

use std::io::Write;
use std::time::{Duration, Instant};

use thinstore_storage::{Error, ErrorKind, Result};
use thinstore_trace::{Header, TraceWriter, recorder};

use crate::store::Store;
use crate::time::now_unix_ns;

/// Requests are handed on this soon, and a reader that has gone away is noticed.
const INTERVAL: Duration = Duration::from_millis(100);

/// So many requests are taken from the recorder at once.
const BATCH: usize = 1 << 12;

/// Ends the trace also when its reader has gone away.
struct Tracing<'a> {
    store: &'a Store,
    name: &'a str,
}

impl Drop for Tracing<'_> {
    fn drop(&mut self) {
        self.store.attachments().end_trace(self.name);
    }
}

impl Store {
    /// Writes a trace to `output` until [`Store::end_trace_of`] or until the container's device is taken away.
    pub(crate) fn trace_container(&self, name: &str, output: &mut dyn Write) -> Result<()> {
        let name = self.catalog().container(name)?.name.clone();
        let (notes, recording) = recorder();
        let device_size_bytes = self.attachments().trace(&name, notes)?;
        let _tracing = Tracing { store: self, name: &name };
        let header =
            Header { name: name.clone(), device_size_bytes, started_unix_ns: now_unix_ns() };
        let failed = |error| Error::io("cannot write the trace", error);
        let mut writer = TraceWriter::new(output, &header).map_err(failed)?;
        writer.flush().map_err(failed)?;
        let mut flushed = Instant::now();
        while let Some(requests) = recording.next(BATCH, INTERVAL) {
            for request in &requests {
                writer.put(request).map_err(failed)?;
            }
            if flushed.elapsed() >= INTERVAL {
                writer.flush().map_err(failed)?;
                flushed = Instant::now();
            }
        }
        writer.finish(recording.lost()).map_err(failed)?;
        Ok(())
    }

    /// Ends the trace of a container; what was noted until now is in it.
    pub(crate) fn end_trace_of(&self, name: &str) -> Result<()> {
        let name = self.catalog().container(name)?.name.clone();
        if self.attachments().end_trace(&name) {
            return Ok(());
        }
        let message = format!("the container '{}' is not being traced", name.escape_debug());
        Err(Error::new(ErrorKind::NotFound, message))
    }
}
