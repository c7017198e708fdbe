//! Programs of the host, with all they need to run in a container.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the host, and where it is in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    pub source: PathBuf,
    pub path: String,
}

/// Where Debian has PostgreSQL's programs: a folder for each version, none of them on anybody's path.
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// Where a program of this name is.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    let folders = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(versions.map(|version| version.path().join("bin")));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A program as `bin/NAME`, and its libraries where it looks for them.
pub fn with_libraries(name: &str) -> io::Result<Vec<HostFile>> {
    // A script of this name stands for what this cannot copy (pyenv has such); the real one is further on.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let source = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| is_elf(file))
        .ok_or_else(|| io::Error::other(format!("there is no program '{name}' to copy")))?;
    // What has no libraries makes it fail, and has no lines either.
    let said = Command::new("ldd").arg(&source).env("LC_ALL", "C").output()?;
    let mut files = vec![HostFile { source, path: format!("bin/{name}") }];
    for library in String::from_utf8_lossy(&said.stdout).lines().filter_map(library) {
        let path = library.trim_start_matches('/').to_owned();
        files.push(HostFile { source: library.into(), path });
    }
    Ok(files)
}

/// `libc.so.6 => /lib/libc.so.6 (0x...)`, or `/lib64/ld-linux-x86-64.so.2 (0x...)`; the kernel's own one has no path.
fn library(line: &str) -> Option<&str> {
    let file = line.split_once("=>").map_or(line, |(_, file)| file);
    file.split_whitespace().next().filter(|word| word.starts_with('/'))
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = |mut file: File| file.read_exact(&mut magic);
    path.is_file() && File::open(path).and_then(read).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_ldd_name_libraries() {
        for (line, found) in [
            ("\tlinux-vdso.so.1 (0x00007ffd)", None),
            (
                "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)",
                Some("/lib/x86_64-linux-gnu/libc.so.6"),
            ),
            ("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)", Some("/lib64/ld-linux-x86-64.so.2")),
            ("\tnot a dynamic executable", None),
            ("\tlibgone.so => not found", None),
        ] {
            assert_eq!(library(line), found, "{line}");
        }
    }

    #[test]
    fn a_program_comes_as_a_file_of_bin() {
        let files = with_libraries("sh").expect("every host has a shell");
        assert_eq!(files.first().map(|file| file.path.as_str()), Some("bin/sh"));
        assert!(files.iter().all(|file| file.source.is_file() && !file.path.starts_with('/')));
        assert!(with_libraries("no-such-program").is_err());
        assert!(find("sh").is_some() && find("no-such-program").is_none());
    }
}
