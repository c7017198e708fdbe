//! Runs inputs through a target, and says how long each took: `fuzz-replay TARGET FILE...`.

#![allow(clippy::expect_used, reason = "a tool of the tests reports by panicking")]

use std::time::Instant;

fn main() {
    let name = std::env::args().nth(1).expect("usage: fuzz-replay TARGET FILE...");
    for path in std::env::args_os().skip(2) {
        let input = std::fs::read(&path).expect("an input");
        let started = Instant::now();
        thinstore_fuzz_targets::run(&name, &input);
        println!("{:>6} ms {}", started.elapsed().as_millis(), path.display());
    }
}
