//! The server's monitor: QMP, a line of JSON for each command and each answer.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use thinstore_storage::{Error, ErrorKind, Result};

use super::server::{EXPORT, SERVER_PROGRAM, SOCKET, block_device};

/// How long an answer may take: a snapshot waits for what is being written.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

fn failed(error: std::io::Error) -> Error {
    Error::io(format!("{} does not answer", SERVER_PROGRAM.name), error)
}

impl Monitor {
    /// Of the server whose folder this is.
    pub(super) fn open(folder: &Path) -> Result<Monitor> {
        // a socket's path has a length that a folder may exceed: unix(7)
        let folder = File::open(folder).map_err(failed)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
        let mut monitor = Monitor { stream: BufReader::new(stream) };
        monitor.line()?;
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).map_err(failed)? == 0 {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&line).map_err(|error| failed(error.into()))
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
        loop {
            let answer = self.line()?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                let said = error.get("desc").and_then(Value::as_str).unwrap_or_default();
                let name = SERVER_PROGRAM.name;
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("{command} of {name} failed: {said}"),
                ));
            }
            // events come between the answers
        }
    }

    /// Which block device is shown.
    fn shown(&mut self) -> Result<String> {
        let exports = self.ask("query-block-exports", &json!({}))?;
        let mut exports = exports.as_array().into_iter().flatten();
        let ours = exports.find(|export| export.get("id").and_then(Value::as_str) == Some(EXPORT));
        let node = ours.and_then(|export| export.get("node-name")).and_then(Value::as_str);
        node.map(str::to_owned).ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
    }

    /// Has the server write what it holds, and end.
    pub(super) fn quit(mut self) -> Result<()> {
        self.ask("quit", &json!({})).map(drop)
    }

    /// From now on what is written goes to this file, which stands on the one that took it until now. Nothing
    /// happens if it is so already.
    pub(super) fn write_to(&mut self, image: &Path) -> Result<()> {
        let mut device = block_device(image)?;
        let name = device.get("node-name").cloned().unwrap_or_default();
        let shown = self.shown()?;
        if name == shown {
            return Ok(());
        }
        if let Some(fields) = device.as_object_mut() {
            // what it stands on is there
            fields.insert("backing".to_owned(), Value::Null);
        }
        let added = self.ask("blockdev-add", &device);
        let moved = self.ask("blockdev-snapshot", &json!({"node": shown, "overlay": name}));
        // it may have been added by somebody who was killed then
        match moved {
            Ok(_) => Ok(()),
            Err(error) => Err(added.err().unwrap_or(error)),
        }
    }
}
