//! Builds in the commit that the program is made from, and whether there were changes that are in no commit.
//! Outside git both are left empty.

use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    // Whatever is compiled in must be looked at anew when it changes: a program that says it is of a commit is.
    for path in
        ["../../Cargo.lock", "../../Cargo.toml", "../../engine", "../../cli", "..", "build.rs"]
    {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["HEAD", "index", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    println!("cargo::rustc-env=THINSTORE_COMMIT={commit}");
    println!("cargo::rustc-env=THINSTORE_DIRTY={}", !changes.is_empty());
}
