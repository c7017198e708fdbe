//! Results that look like those of a run, and are none: for tests alone.
#![allow(
    dead_code,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use thinstore_compare::environment::{Disk, Environment};
use thinstore_compare::random::Random;
use thinstore_compare::results::{
    Better, DriverInfo, Failure, Histogram, Measurement, Metric, Parameters, Results, Run,
    RunOptions, SCHEMA_VERSION, Skipped, Trial, TrialId, Unit, WorkloadInfo, resources,
};

/// The drivers, and roughly how good each is at things.
pub const DRIVERS: [(&str, f64); 8] = [
    ("thin", 1.0),
    ("overlay2", 1.15),
    ("btrfs", 0.75),
    ("reflink", 0.9),
    ("vfs", 1.1),
    ("fuse-overlayfs", 0.45),
    ("qcow2", 0.4),
    ("zfs", 0.6),
];

/// One kind of cell: workload, parameters, figure, and a typical value.
struct Kind {
    workload: &'static str,
    parameters: Parameters,
    metric: Metric,
    typical: f64,
    latency: bool,
}

fn workloads() -> Vec<WorkloadInfo> {
    let info = |name: &str, title: &str, group: &str, purpose: &str, source: &str| WorkloadInfo {
        name: name.into(),
        title: title.into(),
        purpose: purpose.into(),
        source: source.into(),
        group: group.into(),
    };
    vec![
        info(
            "life",
            "Create, start, remove",
            "Containers",
            "What a short-lived container costs before and after its work.",
            "Harter et al., Slacker, FAST 2016",
        ),
        info(
            "depth",
            "Look-ups over layers",
            "Containers",
            "What each layer more costs a file that lies in the lowest.",
            "Docker, storage drivers",
        ),
        info(
            "copy-up",
            "One byte changed",
            "Files",
            "Copying a whole file up for one byte of it, or not.",
            "Docker, how the overlay2 driver works",
        ),
        info(
            "chown",
            "chown -R of the image",
            "Files",
            "Metadata alone is changed, in every file.",
            "",
        ),
        info(
            "small-files",
            "Many small files",
            "Files",
            "A source tree is unpacked, searched and removed.",
            "Tarasov et al., In search of the ideal storage configuration for Docker containers, FAS*W 2017",
        ),
        info(
            "random-write",
            "Random writes",
            "Block I/O",
            "4 KiB writes to what an image already has.",
            "fio",
        ),
        info(
            "random-read",
            "Random reads",
            "Block I/O",
            "4 KiB reads of what an image has.",
            "fio",
        ),
        info("sqlite", "SQLite inserts", "Databases", "A commit each, on the writable layer.", ""),
    ]
}

fn kinds(scale: usize) -> Vec<Kind> {
    let none = Parameters::default;
    let seconds = |name: &str| Metric::result(name, Unit::Seconds, Better::Lower);
    let rate = |name: &str| Metric::result(name, Unit::OperationsPerSecond, Better::Higher);
    let mut kinds = Vec::new();
    for parallel in [1, 10, 100] {
        for (name, typical) in [("create", 0.004), ("start", 0.03), ("remove", 0.006)] {
            kinds.push(Kind {
                workload: "life",
                parameters: none().with("parallel", parallel),
                metric: seconds(name),
                typical: typical * (parallel as f64).powf(0.8),
                latency: false,
            });
        }
    }
    for depth in [1, 10, 100, 500] {
        kinds.push(Kind {
            workload: "depth",
            parameters: none().with("depth", depth),
            metric: seconds("lookup"),
            typical: 2e-5 * (1.0 + depth as f64 / 40.0),
            latency: false,
        });
    }
    for size in [1_u64 << 20, 100 << 20, 1 << 30] {
        kinds.push(Kind {
            workload: "copy-up",
            parameters: none().with("size_bytes", size),
            metric: seconds("change"),
            typical: 0.004,
            latency: false,
        });
    }
    kinds.push(Kind {
        workload: "chown",
        parameters: none(),
        metric: seconds("chown"),
        typical: 1.2,
        latency: false,
    });
    for (name, typical) in
        [("untar", 2.1), ("find_cold", 0.8), ("find_warm", 0.11), ("remove", 0.5)]
    {
        kinds.push(Kind {
            workload: "small-files",
            parameters: none(),
            metric: seconds(name),
            typical,
            latency: false,
        });
    }
    for copy in 0..scale {
        for (sync, typical) in [("none", 42_000.0), ("each", 900.0)] {
            let mut parameters = none().with("depth", 32).with("sync", sync);
            if copy > 0 {
                parameters = parameters.with("variant", format!("{copy}").as_str());
            }
            kinds.push(Kind {
                workload: "random-write",
                parameters,
                metric: rate("operations"),
                typical,
                latency: true,
            });
        }
    }
    for depth in [1, 32] {
        kinds.push(Kind {
            workload: "random-read",
            parameters: none().with("queue_depth", depth),
            metric: rate("operations"),
            typical: 8000.0 * (depth as f64).sqrt(),
            latency: true,
        });
    }
    kinds.push(Kind {
        workload: "sqlite",
        parameters: none(),
        metric: rate("inserts"),
        typical: 1500.0,
        latency: true,
    });
    kinds
}

/// A machine that is not there.
pub fn environment() -> Environment {
    let programs =
        [("fio", "3.33"), ("qemu-img", "7.2.22"), ("runc", "1.1.5"), ("mkfs.btrfs", "6.2")];
    Environment {
        host: "example".into(),
        date: "2030-01-01T00:00:00Z".into(),
        kernel: "Linux 6.18.0 #1 SMP PREEMPT_DYNAMIC".into(),
        system: "Debian GNU/Linux 12".into(),
        processor: "Example Processor 9000 at 2.10 GHz".into(),
        processors: 2,
        governor: Some("performance".into()),
        virtualization: Some("kvm".into()),
        guest: None,
        memory_bytes: 24 << 30,
        load: String::new(),
        disk: Disk {
            file_system: "ext4".into(),
            mount_options: "rw,relatime,discard".into(),
            source: "/dev/vda1".into(),
            device: "vda".into(),
            model: "Example Disk".into(),
            size_bytes: 256 << 30,
            scheduler: "none".into(),
            rotational: Some(false),
            write_cache: "write back".into(),
        },
        fuse_uring: Some(false),
        thinstore: "0.1.0".into(),
        commit: "0123456789abcdef0123456789abcdef01234567".into(),
        dirty: false,
        programs: programs.map(|(name, version)| (name.into(), version.into())).into(),
    }
}

/// Around 1, mostly by a few percent.
fn noise(random: &mut Random, width: f64) -> f64 {
    let sum: f64 = (0..4).map(|_| random.unit()).sum();
    ((sum - 2.0) * width).exp()
}

fn latencies(random: &mut Random, typical: f64, operations: u64) -> Histogram {
    let mut histogram = Histogram::default();
    for _ in 0..operations {
        let tail = if random.unit() < 0.02 { 8.0 * random.unit() + 1.0 } else { 1.0 };
        let seconds = typical * noise(random, 0.8) * tail;
        histogram.add((seconds * 1e9) as u64, 1);
    }
    histogram
}

/// What a driver comes to: some are much worse at some things.
fn value_of(kind: &Kind, driver: &str, strength: f64, random: &mut Random) -> f64 {
    let mut factor = strength * noise(random, 0.06);
    if kind.workload == "copy-up" && matches!(driver, "overlay2" | "fuse-overlayfs") {
        let size = kind.parameters.0.get("size_bytes").and_then(|value| value.number()).unwrap();
        factor /= 1.0 + size / 2e6;
    }
    if driver == "vfs" && kind.workload == "life" && kind.metric.name == "create" {
        factor /= 3000.0;
    }
    if kind.workload == "depth" && matches!(driver, "thin" | "vfs" | "reflink") {
        let depth = kind.parameters.0.get("depth").and_then(|value| value.number()).unwrap();
        factor *= 1.0 + depth / 40.0;
    }
    match kind.metric.better {
        Better::Higher => kind.typical * factor,
        Better::Lower => kind.typical / factor,
    }
}

/// A run with `repeats` of everything; `scale` times as many cells of random writes.
pub fn results(seed: u64, repeats: u32, scale: usize) -> Results {
    let mut random = Random::new(seed);
    let run = Run {
        schema_version: SCHEMA_VERSION,
        run_id: format!("sample-{seed}"),
        started: "2030-01-01T00:00:00Z".into(),
        seed,
        options: RunOptions { repeats, warm_ups: 1, ..RunOptions::default() },
        workloads: workloads(),
        drivers: DRIVERS
            .iter()
            .map(|(name, _)| DriverInfo {
                name: (*name).into(),
                description: format!("{name} as its authors set it up"),
            })
            .collect(),
        environment: environment(),
    };
    let mut results = Results { run, ..Results::default() };
    let mut position = 0;
    // One trial has all figures of its workload and parameters.
    let mut trials: Vec<Vec<Kind>> = Vec::new();
    for kind in kinds(scale) {
        match trials.last_mut() {
            Some(last)
                if last[0].workload == kind.workload && last[0].parameters == kind.parameters =>
            {
                last.push(kind)
            }
            _ => trials.push(vec![kind]),
        }
    }
    for repeat in 0..repeats {
        for kinds in &trials {
            let mut order = DRIVERS;
            random.shuffle(&mut order);
            for (driver, strength) in order {
                add_trial(&mut results, kinds, driver, strength, repeat, position, &mut random);
                position += 1;
            }
        }
    }
    let skipped = |driver: &str, reason: &str| Skipped {
        workload: None,
        parameters: None,
        driver: Some(driver.into()),
        reason: reason.into(),
        emulated: false,
    };
    results
        .skipped
        .push(skipped("devicemapper", "the kernel has no device-mapper (no module dm-thin-pool)"));
    results
}

fn add_trial(
    results: &mut Results,
    kinds: &[Kind],
    driver: &str,
    strength: f64,
    repeat: u32,
    position: u64,
    random: &mut Random,
) {
    let first = &kinds[0];
    let trial = TrialId {
        workload: first.workload.into(),
        parameters: first.parameters.clone(),
        driver: driver.into(),
        repeat,
        emulated: false,
    };
    let started = String::from("2030-01-01T00:00:00Z");
    let depth = first.parameters.0.get("depth").and_then(|value| value.number());
    if driver == "overlay2" && first.workload == "depth" && depth == Some(500.0) {
        let message = "mount: <merged>: too many levels of symbolic links & \"layers\"".into();
        results.failures.push(Failure { trial, position, started, step: "mount".into(), message });
        return;
    }
    let mut lines = Vec::new();
    let mut add = |metric: Metric, value: f64, latency: Option<Histogram>| {
        lines.push(Measurement { trial: trial.clone(), position, metric, value, latency });
    };
    for kind in kinds {
        let value = value_of(kind, driver, strength, random);
        let latency = kind.latency.then(|| latencies(random, 16.0 / value, 600));
        add(kind.metric.clone(), value, latency);
    }
    if !matches!(first.workload, "depth" | "random-read") {
        let written = match driver {
            "overlay2" | "vfs" => 1.1,
            "btrfs" => 9.0,
            "qcow2" => 24.0,
            _ => 2.2,
        };
        let amplification = written * noise(random, 0.1);
        add(resources::bytes_written_per_byte(), amplification, None);
        add(resources::space(), 3e6 * amplification, None);
    }
    add(resources::cpu_kernel(), 0.4 / strength * noise(random, 0.2), None);
    let measurements = u32::try_from(lines.len()).unwrap();
    results.measurements.extend(lines);
    results.trials.push(Trial { trial, position, started, duration_seconds: 2.0, measurements });
}
