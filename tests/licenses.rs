//! The licences of everything that is linked in, held against the list in deny.toml; this runs where
//! cargo-deny is not installed too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use thinstore_tests::command::{TIME_LIMIT, run_within};
use thinstore_tests::images::repository;

/// The words between the brackets of `allow = [ ... ]` below `[licenses]`.
fn allowed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository().join("deny.toml")).expect("deny.toml");
    let (_, licenses) = text.split_once("[licenses]").expect("a section [licenses]");
    let (_, list) = licenses.split_once("allow = [").expect("a list 'allow'");
    let (list, _) = list.split_once(']').expect("the end of the list");
    let words = list.split(',').map(|word| word.trim().trim_matches('"').to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

/// A licence expression, as far as packages use them: `A OR B`, `A AND B`, brackets, and the old `A/B`.
struct Expression<'a> {
    tokens: Vec<&'a str>,
    allowed: &'a BTreeSet<String>,
}

impl Expression<'_> {
    /// May a package with this expression be used?
    fn is_allowed(text: &str, allowed: &BTreeSet<String>) -> bool {
        let text = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        // An exception adds permissions: the licence itself decides.
        let mut tokens: Vec<&str> = Vec::new();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            if word == "WITH" {
                words.next();
            } else {
                tokens.push(word);
            }
        }
        tokens.reverse();
        let mut expression = Expression { tokens, allowed };
        expression.either() == Some(true) && expression.tokens.is_empty()
    }

    /// None if what follows is no expression.
    fn either(&mut self) -> Option<bool> {
        let mut value = self.both()?;
        while self.tokens.last() == Some(&"OR") {
            self.tokens.pop();
            value |= self.both()?;
        }
        Some(value)
    }

    fn both(&mut self) -> Option<bool> {
        let mut value = self.one()?;
        while self.tokens.last() == Some(&"AND") {
            self.tokens.pop();
            value &= self.one()?;
        }
        Some(value)
    }

    fn one(&mut self) -> Option<bool> {
        match self.tokens.pop()? {
            "(" => {
                let value = self.either()?;
                (self.tokens.pop()? == ")").then_some(value)
            }
            "OR" | "AND" | ")" => None,
            name => Some(self.allowed.contains(name)),
        }
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0"].map(str::to_owned).into();
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-2.0 OR (MIT AND Apache-2.0)",
        "MIT/GPL-2.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(Expression::is_allowed(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "(MIT OR GPL-3.0) AND LGPL-2.1", "MIT OR", "(MIT"]
    {
        assert!(!Expression::is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_dependency_has_an_allowed_licence_and_comes_from_the_registry() {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform"]);
    command.arg("x86_64-unknown-linux-gnu").current_dir(repository());
    let metadata = run_within(command, TIME_LIMIT).assert_success().json();
    let allowed = allowed();
    assert!(allowed.len() > 2);
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        if !used.contains(package["id"].as_str().unwrap()) {
            continue;
        }
        let name = format!("{} {}", package["name"].as_str().unwrap(), package["version"]);
        let license = package["license"].as_str().unwrap_or("");
        if !Expression::is_allowed(license, &allowed) {
            faults.push(format!("{name}: licence '{license}'"));
        }
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        let own = package["source"] == Value::Null;
        if !own && package["source"] != registry {
            faults.push(format!("{name}: from {}", package["source"]));
        }
    }
    assert!(faults.is_empty(), "not allowed by deny.toml:\n{}", faults.join("\n"));
}
