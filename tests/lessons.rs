//! docs/lessons.md as it is written: each of its commands is run, and must print what stands there.
//!
//! Numbers, sizes, ids and times may be others. After a change the document is written anew from what the
//! commands print, with its picture:
//!
//!     THINSTORE_LESSONS=write cargo test -p thinstore-tests --test lessons -- --include-ignored
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;

use thinstore_tests::command::{TIME_LIMIT, run_within};
use thinstore_tests::{Identity, Outcome, TempStore, images, program};

/// Where the document says that the store is.
const SHOWN_ROOT: &str = "/var/lib/thinstore";

/// A line of the document.
enum Line<'a> {
    Text(&'a str),
    Command(&'a str),
    Output(&'a str),
}

/// Blocks are indented by four; in those with commands, what follows a command is what it prints. That can have
/// empty lines.
fn lines_of(document: &str) -> Vec<Line<'_>> {
    let mut follows_command = false;
    let mut lines = Vec::new();
    let all: Vec<&str> = document.lines().collect();
    for (index, line) in all.iter().enumerate() {
        let mut later = all[index..].iter();
        let next = later.find(|line| !line.is_empty()).and_then(|line| line.strip_prefix("    "));
        let block = match line.is_empty() {
            true => next.filter(|line| !line.starts_with("$ ")).map(|_| ""),
            false => next,
        };
        let command = block.and_then(|line| line.strip_prefix("$ "));
        follows_command = command.is_some() || (follows_command && block.is_some());
        lines.push(match (command, block) {
            (Some(command), _) => Line::Command(command),
            (None, Some(output)) if follows_command => Line::Output(output),
            _ => Line::Text(line),
        });
    }
    lines
}

/// What a command printed, and how it ended.
struct Said {
    lines: Vec<String>,
    code: i32,
}

/// A shell that runs all commands one after the other, and says between them how they ended.
fn run_all(store: &TempStore, commands: &[&str]) -> Vec<Said> {
    const MARK: &str = "lesson ended with ";
    let place = store.new_folder("place");
    symlink(images::busybox().parent().unwrap(), format!("{place}/images")).unwrap();
    let mut script = String::from("exec 2>&1\n");
    for command in commands {
        let _ = writeln!(script, "{command}\nprintf '\\n{MARK}%s\\n' $?");
    }
    let programs = store.new_folder("programs");
    symlink(program::binary(), format!("{programs}/thinstore")).unwrap();
    let mut shell = program::command_of("bash".as_ref(), Identity::Current, store.folder());
    let path = std::env::var("PATH").unwrap();
    shell.args(["-c", &script]).env("PATH", format!("{programs}:{path}")).current_dir(&place);
    shell.env("THINSTORE_ROOT", store.root());
    let outcome: Outcome = run_within(shell, TIME_LIMIT);
    let root = store.root().display().to_string();
    let mut said = Vec::new();
    let mut lines = Vec::new();
    for line in outcome.stdout_text().replace(&root, SHOWN_ROOT).lines() {
        let Some(code) = line.strip_prefix(MARK) else {
            lines.push(line.trim_end().to_owned());
            continue;
        };
        // the mark's own empty line, or the end of one that a command left open
        if lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        said.push(Said { lines: std::mem::take(&mut lines), code: code.parse().unwrap() });
    }
    assert_eq!(said.len(), commands.len(), "the shell ended early\n{outcome}");
    said
}

/// A line without what differs from one run to the next.
fn masked(line: &str) -> String {
    let mut masked = String::new();
    for word in line.split_whitespace() {
        let word: String = word
            .split_inclusive(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.')
            .map(|part| {
                let end = part.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
                let (core, rest) = part.split_at(end.len());
                let is_hex = core.len() >= 8 && core.bytes().all(|byte| byte.is_ascii_hexdigit());
                let is_number = core.starts_with(|first: char| first.is_ascii_digit());
                let is_unit = ["B", "KiB", "MiB", "GiB", "ms", "s"].contains(&core);
                let core = match () {
                    () if is_hex || is_number => "#",
                    () if is_unit => "unit",
                    () => core,
                };
                format!("{core}{rest}")
            })
            .collect();
        let _ = write!(masked, "{word} ");
    }
    for ago in ["just now", "# second ago", "# seconds ago", "# minutes ago"] {
        masked = masked.replace(ago, "then");
    }
    // a table's columns are as wide as what is in them
    masked.replace('-', "").trim_end().to_owned()
}

fn assert_said(command: &str, written: &[&str], said: &Said) {
    let is_refusal = written.iter().any(|line| line.starts_with("thinstore: "));
    let found = said.lines.join("\n");
    assert_eq!(said.code != 0, is_refusal, "'{command}' ended with {}:\n{found}", said.code);
    let expected: Vec<String> = written.iter().map(|line| masked(line)).collect();
    let found: Vec<String> = said.lines.iter().map(|line| masked(line)).collect();
    assert_eq!(found, expected, "'{command}' printed:\n{}", said.lines.join("\n"));
}

#[test]
#[ignore = "needs root: runs containers"]
fn every_command_of_the_lessons_prints_what_stands_there() {
    let docs = images::repository().join("docs");
    let document = fs::read_to_string(docs.join("lessons.md")).unwrap();
    let lines = lines_of(&document);
    let commands: Vec<&str> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Command(command) => Some(*command),
            _ => None,
        })
        .collect();
    assert!(commands.len() > 20, "the document has no commands");
    let store = TempStore::without_init(Identity::Current);
    let said = run_all(&store, &commands);
    let drawn = fs::read_to_string(store.folder().join("place/layers.svg")).unwrap();

    if std::env::var_os("THINSTORE_LESSONS").is_some() {
        let mut said = said.iter();
        let mut written = String::new();
        for line in &lines {
            match line {
                Line::Text(text) => written.push_str(&format!("{text}\n")),
                Line::Command(command) => {
                    let _ = writeln!(written, "    $ {command}");
                    for line in &said.next().unwrap().lines {
                        written.push_str(format!("    {line}").trim_end());
                        written.push('\n');
                    }
                }
                Line::Output(_) => {}
            }
        }
        fs::write(docs.join("lessons.md"), written).unwrap();
        fs::write(docs.join("layers.svg"), drawn).unwrap();
    } else {
        let mut rest = lines.as_slice();
        for (command, said) in commands.iter().zip(&said) {
            let at = rest.iter().position(|line| matches!(line, Line::Command(_))).unwrap();
            rest = &rest[at + 1..];
            let written = rest.iter().map_while(|line| match line {
                Line::Output(output) => Some(*output),
                _ => None,
            });
            assert_said(command, &written.collect::<Vec<_>>(), said);
        }
        let words = |svg: &str| -> Vec<String> {
            svg.lines().filter(|line| line.starts_with("<text")).map(masked).collect()
        };
        let shown = fs::read_to_string(docs.join("layers.svg")).unwrap();
        assert_eq!(words(&drawn), words(&shown), "docs/layers.svg is another picture");
    }
    store.finish();
}

#[test]
fn what_differs_between_two_runs_is_masked_and_nothing_else() {
    let same = |one: &str, other: &str| masked(one) == masked(other);
    assert!(same("web1   124 KiB  1 second ago", "web1  1.2 MiB   just now"));
    assert!(same("sha256:f19728d311cf", "sha256:00112233aabb"));
    assert!(!same("web1 is running", "web1 is stopped"));
    assert!(!same("A /home/new", "C /home/new"));
}
