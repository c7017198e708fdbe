//! What is said in words of a run, the same in every form of the report.

use crate::analysis::Analysis;
use crate::environment::Environment;
use crate::results::{Failure, Results, Unit};
use crate::statistics::attained_confidence;

/// How it was measured, in sentences.
pub fn method_sentences(results: &Results, analysis: &Analysis) -> Vec<String> {
    let options = &results.run.options;
    let confidence = analysis.bootstrap.confidence * 100.0;
    let mut sentences = vec![
        format!(
            "Every trial starts from a fresh state. Drivers take turns in an order drawn anew for every repeat (seed {}), \
             on the same file system and disk; {} before the first measured repeat.",
            results.run.seed,
            match options.warm_ups {
                0 => "nothing is warmed up".to_owned(),
                1 => "each cell is run once unmeasured".to_owned(),
                count => format!("each cell is run {count} times unmeasured"),
            }
        ),
        format!(
            "Figures are medians. Intervals hold {confidence:.0} % of {} bootstrap samples (percentile method: Efron and \
             Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).",
            analysis.bootstrap.resamples
        ),
    ];
    for emulated in [false, true] {
        let Some((least, most)) = analysis.repeats_of(|row| row.emulated == emulated) else {
            continue;
        };
        let counts = if least == most { least.to_string() } else { format!("{least} to {most}") };
        // How a merged run in a guest was asked for is not known.
        let asked_here = emulated == results.is_of_guest();
        let fewer = asked_here && usize::try_from(options.repeats).is_ok_and(|asked| least < asked);
        let cells = if emulated { "In the guest, cells" } else { "Cells" };
        let asked = if fewer {
            format!(
                ", of {} that were asked for: the time that the run may take was over, it was stopped, or drivers failed",
                options.repeats
            )
        } else {
            String::new()
        };
        let repeats = if most == 1 { "repeat" } else { "repeats" };
        let interval = if least == 1 {
            "One value has no interval.".to_owned()
        } else {
            let attained = attained_confidence(least, analysis.bootstrap.confidence) * 100.0;
            format!(
                "An interval of {least} values holds the true median in {attained:.0} % of all cases at best."
            )
        };
        sentences.push(format!("{cells} have {counts} {repeats}{asked}. {interval}"));
    }
    sentences.push(format!(
        "A ratio is the median of the ratios to {} in the same repeat, with a bootstrap interval over the pairs; above 1 is \
         better, whichever way the figure goes. Where the interval spans 1, no difference was shown, and none is claimed.",
        analysis.reference_name()
    ));
    sentences.push(
        "Bytes written are what the disk itself counted (diskstats) over the whole trial and a final sync; processor time is \
         that of the whole machine; both have in them whatever else the machine did."
            .to_owned(),
    );
    if results.measurements.iter().any(|line| line.trial.emulated) {
        sentences.push(
            "Figures marked as emulated were taken in a guest, whose hardware is emulated. They are compared with each other \
             alone: their absolute values say nothing about hardware."
                .to_owned(),
        );
    }
    if options.quick {
        sentences.push("This is the quick set: fewer and shorter workloads, and as many repeats as there was time for.".to_owned());
    }
    sentences
}

/// `commit 0189633, with changes`.
pub fn commit_words(environment: &Environment) -> String {
    if environment.commit.is_empty() {
        return "no commit known".to_owned();
    }
    let short: String = environment.commit.chars().take(12).collect();
    let changes = if environment.dirty { ", with changes" } else { "" };
    format!("commit {short}{changes}")
}

/// The machine, fact by fact; what is not known is left out.
pub fn environment_facts(environment: &Environment) -> Vec<(String, String)> {
    let disk = &environment.disk;
    let bytes = |bytes: u64| {
        if bytes == 0 { String::new() } else { Unit::Bytes.format(crate::number::float(bytes)) }
    };
    let yes_no = |value: Option<bool>, yes: &str, no: &str| match value {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => String::new(),
    };
    let processors = match environment.processors {
        0 => environment.processor.clone(),
        count => format!("{} × {count}", environment.processor),
    };
    let device = [disk.device.as_str(), disk.model.as_str()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ");
    let pairs = [
        ("Host", environment.host.clone()),
        ("Date", environment.date.clone()),
        ("thinstore", format!("{}, {}", environment.thinstore, commit_words(environment))),
        ("Kernel", environment.kernel.clone()),
        ("System", environment.system.clone()),
        ("Processors", processors),
        ("Governor", environment.governor.clone().unwrap_or_default()),
        ("Virtualization", environment.virtualization.clone().unwrap_or_default()),
        ("Guest", environment.guest.clone().unwrap_or_default()),
        ("Memory", bytes(environment.memory_bytes)),
        ("Load at the start", environment.load.clone()),
        ("Disk", device),
        ("Disk size", bytes(disk.size_bytes)),
        ("Kind of disk", yes_no(disk.rotational, "rotating", "not rotating")),
        ("Write cache", disk.write_cache.clone()),
        ("I/O scheduler", disk.scheduler.clone()),
        ("File system", format!("{} on {}", disk.file_system, disk.source)),
        ("Mount options", disk.mount_options.replace(',', ", ")),
        ("FUSE io_uring", yes_no(environment.fuse_uring, "on", "off")),
    ];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.trim().is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The failures; those that are the same in several repeats once, with their repeats as people count: `1, 2, 3`.
pub fn grouped_failures(results: &Results) -> Vec<(&Failure, String)> {
    let mut groups: Vec<(&Failure, String)> = Vec::new();
    for failure in &results.failures {
        let repeat = failure.trial.repeat.saturating_add(1);
        let same = groups.iter_mut().find(|(known, _)| {
            known.step == failure.step
                && known.message == failure.message
                && known.trial.driver == failure.trial.driver
                && known.trial.workload == failure.trial.workload
                && known.trial.parameters == failure.trial.parameters
                && known.trial.emulated == failure.trial.emulated
        });
        match same {
            Some((_, repeats)) => repeats.push_str(&format!(", {repeat}")),
            None => groups.push((failure, repeat.to_string())),
        }
    }
    groups
}
