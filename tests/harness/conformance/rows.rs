//! What came of the checks: a row for each driver, as JSON in `target/conformance`, and the table of all.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As on one plain file system.
    Yes,
    /// In a way that is known and documented.
    Differs(String),
    /// Neither.
    Fails(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Yes => formatter.write_str("yes"),
            Verdict::Differs(reason) => write!(formatter, "differs: {reason}"),
            Verdict::Fails(why) => write!(formatter, "fails: {why}"),
        }
    }
}

/// A check's part of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRow {
    /// The check.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

/// What came of all checks on one driver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The driver.
    pub driver: String,
    /// Why it cannot run here.
    pub obstacle: Option<String>,
    /// Of the image that all drivers are given.
    pub tree_hash: String,
    /// In the order of the table.
    pub checks: Vec<CheckRow>,
}

/// Where the rows are: in the build folder that the tests lie in.
pub fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    // target/PROFILE/deps/TEST-HASH, or target/PROFILE/PROGRAM
    let profile = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let target = profile.and_then(Path::parent).expect("a build folder");
    target.join("conformance")
}

impl Row {
    /// A row without checks.
    pub fn new(driver: &str) -> Row {
        Row { driver: driver.to_owned(), ..Row::default() }
    }

    /// Writes it to its place.
    pub fn write(&self) {
        let folder = folder();
        fs::create_dir_all(&folder).expect("make the folder of the rows");
        let text = serde_json::to_vec_pretty(&self.to_json()).expect("JSON of a row");
        fs::write(folder.join(format!("{}.json", self.driver)), text).expect("write a row");
    }

    fn to_json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            let (word, reason) = match &check.verdict {
                Verdict::Yes => ("yes", None),
                Verdict::Differs(reason) => ("differs", Some(reason)),
                Verdict::Fails(why) => ("fails", Some(why)),
            };
            json!({"check": check.name, "verdict": word, "reason": reason, "seconds": check.seconds})
        });
        json!({
            "driver": self.driver,
            "obstacle": self.obstacle,
            "tree_hash": self.tree_hash,
            "checks": checks.collect::<Vec<Value>>(),
        })
    }

    fn from_json(value: &Value) -> Option<Row> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let check = |value: &Value| -> Option<CheckRow> {
            let reason = text(&value["reason"]).unwrap_or_default();
            let verdict = match value["verdict"].as_str()? {
                "yes" => Verdict::Yes,
                "differs" => Verdict::Differs(reason),
                _ => Verdict::Fails(reason),
            };
            let seconds = value["seconds"].as_f64()?;
            Some(CheckRow { name: text(&value["check"])?, verdict, seconds })
        };
        Some(Row {
            driver: text(&value["driver"])?,
            obstacle: text(&value["obstacle"]),
            tree_hash: text(&value["tree_hash"])?,
            checks: value["checks"].as_array()?.iter().map(check).collect::<Option<_>>()?,
        })
    }
}

/// The rows that a folder has, those of the drivers named first in their order, then the others.
pub fn read(folder: &Path, order: &[String]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = fs::read(entry.path()).unwrap_or_default();
        let value = serde_json::from_slice::<Value>(&text).unwrap_or_default();
        rows.extend(Row::from_json(&value));
    }
    let place = |row: &Row| order.iter().position(|name| *name == row.driver);
    rows.sort_by_key(|row| (place(row).unwrap_or(order.len()), row.driver.clone()));
    rows
}

/// The table of checks by drivers as Markdown, and below it each reason once, with the drivers that it is of.
pub fn table(rows: &[Row], checks: &[&str]) -> String {
    let able: Vec<&Row> = rows.iter().filter(|row| row.obstacle.is_none()).collect();
    let width = checks.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut text = format!("| {:width$} |", "");
    for row in &able {
        text.push_str(&format!(" {} |", row.driver));
    }
    text.push_str(&format!("\n|{}|", "-".repeat(width + 2)));
    for row in &able {
        text.push_str(&format!("{}|", "-".repeat(row.driver.len() + 2)));
    }
    text.push('\n');
    let mut notes: Vec<(String, Vec<&str>)> = Vec::new();
    for check in checks {
        text.push_str(&format!("| {check:width$} |"));
        for row in &able {
            let found = row.checks.iter().find(|one| one.name == *check);
            let (word, reason) = match found.map(|one| &one.verdict) {
                None => ("-", None),
                Some(Verdict::Yes) => ("yes", None),
                Some(Verdict::Differs(reason)) => ("differs", Some(reason)),
                Some(Verdict::Fails(why)) => ("FAILS", Some(why)),
            };
            text.push_str(&format!(" {word:0$} |", row.driver.len()));
            let Some(reason) = reason else { continue };
            let note = format!("{check}: {}", reason.lines().next().unwrap_or_default());
            match notes.iter_mut().find(|(there, _)| *there == note) {
                Some((_, drivers)) => drivers.push(&row.driver),
                None => notes.push((note, vec![&row.driver])),
            }
        }
        text.push('\n');
    }
    text.push('\n');
    for (note, drivers) in notes {
        text.push_str(&format!("- {} - {note}\n", drivers.join(", ")));
    }
    for row in rows {
        if let Some(obstacle) = &row.obstacle {
            text.push_str(&format!("- {} - cannot run here: {obstacle}\n", row.driver));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(driver: &str, verdict: Verdict) -> Row {
        let checks = vec![CheckRow { name: "mount".to_owned(), verdict, seconds: 0.5 }];
        Row { checks, tree_hash: "abc".to_owned(), ..Row::new(driver) }
    }

    #[test]
    fn a_row_is_read_back_as_it_was_written() {
        let mut lacking = Row::new("zfs");
        lacking.obstacle = Some("no module".to_owned());
        for row in
            [row("thin", Verdict::Yes), row("vfs", Verdict::Differs("slow".to_owned())), lacking]
        {
            assert_eq!(Row::from_json(&row.to_json()), Some(row));
        }
        assert_eq!(Row::from_json(&json!({"driver": "x"})), None);
    }

    #[test]
    fn the_table_says_each_reason_once() {
        let mut lacking = Row::new("zfs");
        lacking.obstacle = Some("no module".to_owned());
        let differs = || Verdict::Differs("a folder".to_owned());
        let rows = [row("thin", Verdict::Yes), row("a", differs()), row("b", differs()), lacking];
        assert_eq!(
            table(&rows, &["mount", "other"]),
            "|       | thin | a | b |\n|-------|------|---|---|\n\
             | mount | yes  | differs | differs |\n| other | -    | - | - |\n\n\
             - a, b - mount: a folder\n- zfs - cannot run here: no module\n"
        );
    }
}
