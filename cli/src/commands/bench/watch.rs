//! How far a comparison is, on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use thinstore_compare::plan::Planned;
use thinstore_compare::run::{Fault, Watch};

const STYLE: &str = "{msg:<44} {bar:30} {pos:>5} / {len:<5} {prefix}";

/// A bar, with the time that is left.
pub struct Bar(ProgressBar);

impl Bar {
    /// `visible`: draw it on stderr.
    pub fn new(visible: bool) -> Bar {
        let bar = if visible { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Bar(bar)
    }

    /// Takes it away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn length(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Watch for Bar {
    fn begins(&mut self, planned: &Planned, number: usize, count: usize, left: Option<Duration>) {
        self.0.set_length(length(count));
        self.0.set_position(length(number.saturating_sub(1)));
        let what = format!("{} on {}", planned.trial.workload, planned.trial.driver);
        self.0.set_message(if planned.warm_up { format!("{what} (warm-up)") } else { what });
        let left = left.map(|left| format!("about {} min left", left.as_secs().div_ceil(60)));
        self.0.set_prefix(left.unwrap_or_default());
    }

    fn ended(&mut self, planned: &Planned, fault: Option<&Fault>) {
        if let Some(fault) = fault {
            let (workload, driver) = (&planned.trial.workload, &planned.trial.driver);
            self.0.println(format!("{workload} on {driver}: {}: {}", fault.step, fault.message));
        }
    }
}
