//! SQLite as a load: numbered transactions, each acknowledged by itself.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The database's file in its container.
pub const FILE: &str = "rows.db";

/// So many of the newest rows are kept.
const KEPT_ROWS: u64 = 200;

/// What row `id` holds: it follows from the number, and is up to 7 KiB long.
const PAYLOAD: &str = "replace(hex(zeroblob(id * 37 % 900 + 20)), '00', printf('%08x', id))";

/// How a database keeps its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// A write-ahead log.
    WriteAhead,
    /// A rollback journal, whose removal is the commit.
    Rollback,
}

impl Journal {
    /// The containers take turns.
    pub fn of(container: usize) -> Journal {
        if container.is_multiple_of(2) { Journal::WriteAhead } else { Journal::Rollback }
    }

    fn pragma(self) -> &'static str {
        match self {
            Journal::WriteAhead => {
                "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=100; PRAGMA synchronous=FULL;"
            }
            // With FULL the journal's folder is not synced after the journal's removal.
            Journal::Rollback => "PRAGMA journal_mode=DELETE; PRAGMA synchronous=EXTRA;",
        }
    }
}

/// A connection, held by a process of `sqlite3`.
pub struct Database {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Database {
    /// Opens the database in `folder`, or makes it.
    ///
    /// # Errors
    /// When `sqlite3` cannot be run, or fails.
    pub fn open(folder: &Path, journal: Journal) -> std::io::Result<Database> {
        let mut child = Command::new("stdbuf")
            .args(["--output=L", "sqlite3", "-batch", "-bail"])
            .arg(folder.join(FILE))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| std::io::Error::other("no pipes"))?;
        let mut database = Database { child, input, output: BufReader::new(output) };
        let schema = "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, payload TEXT);
             CREATE TABLE IF NOT EXISTS newest (id INTEGER);
             INSERT INTO newest SELECT 0 WHERE NOT EXISTS (SELECT * FROM newest);";
        database.run(&format!("{} {schema}", journal.pragma()), "open")?;
        Ok(database)
    }

    /// Commits transaction `number`; it is durable on return.
    ///
    /// # Errors
    /// When SQLite refuses it.
    pub fn commit(&mut self, number: u64) -> std::io::Result<()> {
        let oldest = (number + 1).saturating_sub(KEPT_ROWS);
        self.run(
            &format!(
                "BEGIN IMMEDIATE; INSERT INTO rows SELECT id, {PAYLOAD} FROM (SELECT {number} AS id); \
                 DELETE FROM rows WHERE id < {oldest}; UPDATE newest SET id = {number}; COMMIT;"
            ),
            &number.to_string(),
        )
    }

    fn run(&mut self, statements: &str, word: &str) -> std::io::Result<()> {
        writeln!(self.input, "{statements}\nSELECT 'done {word}';")?;
        self.input.flush()?;
        let mut line = String::new();
        let wanted = format!("done {word}");
        while line.trim_end() != wanted {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                return Err(std::io::Error::other("sqlite3 has ended"));
            }
        }
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks at the database in `folder` (which is changed by that); the number of its newest transaction, 0 if it has no
/// tables yet.
///
/// # Errors
/// What is wrong with it.
pub fn newest_transaction(folder: &Path) -> Result<u64, String> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(0);
    }
    let ask = |question: &str| -> Result<String, String> {
        let output = Command::new("sqlite3")
            .args(["-batch", "-bail"])
            .arg(&path)
            .arg(question)
            .output()
            .map_err(|error| format!("sqlite3: {error}"))?;
        if !output.status.success() {
            return Err(format!("sqlite3: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let whole = ask("PRAGMA integrity_check")?;
    if whole != "ok" {
        return Err(format!("the database is damaged: {whole}"));
    }
    if ask("SELECT count(*) FROM sqlite_master WHERE name = 'newest'")? == "0" {
        return Ok(0);
    }
    let found = ask(&format!(
        "SELECT (SELECT ifnull(max(id), 0) FROM newest), count(*), ifnull(min(id), 0), ifnull(max(id), 0), \
         count(CASE WHEN payload IS NOT {PAYLOAD} THEN 1 END) FROM rows"
    ))?;
    let numbers: Vec<u64> = found.split('|').filter_map(|word| word.parse().ok()).collect();
    let [newest, count, first, last, wrong] = numbers[..] else {
        return Err(format!("sqlite3 says '{found}'"));
    };
    let oldest = if newest == 0 { 0 } else { (newest + 1).saturating_sub(KEPT_ROWS).max(1) };
    let expected = if newest == 0 { 0 } else { newest - oldest + 1 };
    if (count, first, last, wrong) != (expected, oldest, newest, 0) {
        return Err(format!(
            "of transaction {newest} there are {count} rows from {first} to {last}, {wrong} of them wrong"
        ));
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root: sqlite3 is installed for the tests that root runs"]
    fn a_database_has_all_of_each_transaction() {
        for journal in [Journal::WriteAhead, Journal::Rollback] {
            let folder = tempfile::tempdir().expect("a folder");
            assert_eq!(newest_transaction(folder.path()), Ok(0));
            let mut database = Database::open(folder.path(), journal).expect("open");
            assert_eq!(newest_transaction(folder.path()), Ok(0));
            for number in 1..=KEPT_ROWS + 3 {
                database.commit(number).expect("commit");
            }
            assert_eq!(newest_transaction(folder.path()), Ok(KEPT_ROWS + 3));
            drop(database);
            assert_eq!(newest_transaction(folder.path()), Ok(KEPT_ROWS + 3));
            let mut database = Database::open(folder.path(), journal).expect("open");
            let update = "UPDATE rows SET payload = payload || 'x' WHERE id = 7;";
            database.run(update, "update").expect("update");
            assert!(newest_transaction(folder.path()).is_err(), "a row that nobody wrote");
        }
    }
}
