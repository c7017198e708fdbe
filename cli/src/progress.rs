//! The bar of an operation that takes a while.

use std::io::{self, Read};
use std::os::fd::AsFd;

use indicatif::{ProgressBar, ProgressStyle};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thinstore_store::{Progress, ProgressEvent};

use crate::interrupt::Interrupt;
use crate::text::{counted, short_id};

/// How long a read of the input waits before it looks whether it shall end.
const INPUT_WAIT_MS: u8 = 200;

const WITH_TOTAL: &str =
    "{msg:<34} {bar:30} {bytes:>10} / {total_bytes:<10} {binary_bytes_per_sec:>12} {eta:>5}";
const WITHOUT_TOTAL: &str = "{msg:<34} {spinner} {bytes:>10} {binary_bytes_per_sec:>12}";

/// Shows how far an operation is, and ends it on a signal.
pub struct OperationProgress {
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl OperationProgress {
    /// `visible`: draw a bar on stderr.
    pub fn new(visible: bool, interrupt: Interrupt) -> OperationProgress {
        let bar = if visible { ProgressBar::no_length() } else { ProgressBar::hidden() };
        set_style(&bar, WITHOUT_TOTAL);
        OperationProgress { bar, interrupt }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

impl Progress for OperationProgress {
    fn report(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Start { name, layers, total_bytes } => {
                self.bar.set_message(format!("{name}: {}", counted(*layers, "layer")));
                if let Some(total) = total_bytes {
                    self.bar.set_length(*total);
                    set_style(&self.bar, WITH_TOTAL);
                }
            }
            ProgressEvent::Layer { layer, digest, .. } => {
                self.bar.set_message(format!("layer {layer} {}", short_id(digest)));
            }
            ProgressEvent::Reused { layer, digest } => {
                self.bar.println(format!("layer {layer} {} is there already", short_id(digest)));
            }
            ProgressEvent::Advanced { bytes } => self.bar.inc(*bytes),
            ProgressEvent::Sealed { .. } => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
    }
}

/// Standard input whose reads end when there is a signal.
pub struct InterruptibleInput {
    pub interrupt: Interrupt,
}

impl Read for InterruptibleInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        loop {
            if self.interrupt.is_set() {
                // not `Interrupted`, which readers try again
                return Err(io::Error::other("interrupted"));
            }
            let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::from(INPUT_WAIT_MS)) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                // past the buffer of the standard library, which poll does not see
                Ok(_) => return nix::unistd::read(&stdin, buffer).map_err(Into::into),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
