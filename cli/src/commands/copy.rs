//! `cat` and `cp`

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::Args;
use thinstore_store::Access;
use thinstore_store::types::{CatRequest, CopyInRequest, CopyOutRequest};

use super::local_copy::{self, PackedItem};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::PipedStdout;

#[derive(Args, Debug)]
pub struct Cat {
    /// A container, image or layer
    name: String,
    /// The file's path in it
    path: PathBuf,
}

impl Cat {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let request = CatRequest { name: self.name, path: self.path };
        let mut stdout = PipedStdout::new();
        let result =
            context.with_store(Access::Read, |store| Ok(store.cat(&request, &mut stdout)?));
        stdout.finish(result)
    }
}

#[derive(Args, Debug)]
pub struct Cp {
    /// What to copy: a path of the host, or NAME:PATH
    source: OsString,
    /// Where to: the other of the two. An existing folder takes the copy into it
    destination: OsString,
    /// Keep the owners
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link points at, instead of the link
    #[arg(short = 'L', long)]
    follow_link: bool,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    /// A path of the host.
    Host(PathBuf),
    /// A path in a container, image or layer.
    Store(String, PathBuf),
}

/// `NAME:PATH`, or a path of the host: that is what begins with `/` or `.`, or has no colon. An image's
/// name may have colons itself, so that the one before a slash counts, if there is one.
fn side(text: &OsStr) -> Side {
    let bytes = text.as_bytes();
    let host = Side::Host(PathBuf::from(text));
    if matches!(bytes.first(), None | Some(b'/' | b'.')) {
        return host;
    }
    let before_slash = bytes.windows(2).position(|pair| pair == b":/");
    let Some(colon) = before_slash.or_else(|| bytes.iter().position(|byte| *byte == b':')) else {
        return host;
    };
    let (name, path) = (bytes.get(..colon), bytes.get(colon + 1..));
    match (name.and_then(|name| std::str::from_utf8(name).ok()), path) {
        (Some(name), Some(path)) if !path.is_empty() => {
            Side::Store(name.to_owned(), PathBuf::from(OsString::from_vec(path.to_vec())))
        }
        _ => host,
    }
}

/// Was the path written as `FOLDER/.`: its contents, not itself?
fn contents_only(path: &OsStr) -> bool {
    let bytes = path.as_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

impl Cp {
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        match (side(&self.source), side(&self.destination)) {
            (Side::Host(source), Side::Store(name, path)) => {
                self.copy_in(context, source, name, path)
            }
            (Side::Store(name, path), Side::Host(destination)) => {
                self.copy_out(context, name, path, destination)
            }
            (Side::Host(_), Side::Host(_)) => {
                Err(Failure::usage("neither side is in the store; write one of them as NAME:PATH"))
            }
            (Side::Store(..), Side::Store(..)) => Err(Failure::usage(
                "both sides are in the store; copy to a folder of the host first",
            )),
        }
    }

    fn copy_in(
        &self,
        context: &Context,
        source: PathBuf,
        name: String,
        path: PathBuf,
    ) -> Result<(), Failure> {
        let item = PackedItem::open(&source, self.follow_link)?;
        let request = CopyInRequest {
            name,
            path,
            item_name: item.name().to_owned(),
            item_is_directory: item.is_directory(),
            contents_only: item.is_directory() && contents_only(&self.source),
            keep_owners: self.archive,
        };
        let input = item.pack()?;
        context.with_store(Access::Write, |store| Ok(store.copy_in(&request, input)?))
    }

    fn copy_out(
        &self,
        context: &Context,
        name: String,
        path: PathBuf,
        destination: PathBuf,
    ) -> Result<(), Failure> {
        let contents_only = contents_only(path.as_os_str());
        let request = CopyOutRequest { name, path, follow: self.follow_link };
        let unpacking = local_copy::Unpacking {
            item_path: request.path.clone(),
            destination,
            contents_only,
            keep_owners: self.archive,
        };
        context.with_store(Access::Read, |store| {
            local_copy::through_pipe(
                |output| store.copy_out(&request, output).map_err(Failure::from),
                |input| unpacking.run(input),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let store = |name: &str, path: &str| Side::Store(name.to_owned(), PathBuf::from(path));
        assert_eq!(side(OsStr::new("web:/etc")), store("web", "/etc"));
        assert_eq!(side(OsStr::new("web:etc/x")), store("web", "etc/x"));
        assert_eq!(side(OsStr::new("debian:12:/etc")), store("debian:12", "/etc"));
        assert_eq!(side(OsStr::new("host:5000/a:/x")), store("host:5000/a", "/x"));
        for host in ["/a:b", "./a:b", "../x", "plain", "web:", ""] {
            assert_eq!(side(OsStr::new(host)), Side::Host(PathBuf::from(host)));
        }
    }

    #[test]
    fn a_dot_at_the_end_means_the_contents() {
        assert!(contents_only(OsStr::new("a/.")));
        assert!(contents_only(OsStr::new(".")));
        assert!(!contents_only(OsStr::new("a/")));
        assert!(!contents_only(OsStr::new("a.")));
    }
}
