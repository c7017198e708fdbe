//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use thinstore_storage::Error;
use thinstore_store::DriverName;

use crate::commands::{
    bench, check, commit, control, copy, demo, diff, export, grow, import, init, inspect, manual,
    mount, remove, repair, run, scrub, serve, snapshot, trace, tree, usage, volume,
};
use crate::output::Format;
use crate::template::Template;

/// Block-level snapshot storage for containers.
///
/// Images become layers of thin devices in one pool; a container is a writable snapshot of a layer,
/// made in a moment whatever its size, and costs only what it changes.
#[derive(Debug, Parser)]
#[command(name = "thinstore", version, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The store [default: /var/lib/thinstore for root, else $XDG_DATA_HOME/thinstore]
    #[arg(long, global = true, value_name = "DIR", env = "THINSTORE_ROOT")]
    pub root: Option<PathBuf>,
    /// How images and containers are kept [default: $THINSTORE_DRIVER, else thin]; 'thinstore drivers' shows
    /// those there are. Of a volume to create: local (a folder of the host, the default) or thin (a device
    /// of the pool, limited in size)
    #[arg(long, global = true, value_name = "NAME", value_parser = DriverArgument::parse)]
    pub driver: Option<DriverArgument>,
    /// How to print: human (tables and sentences) or json (with stable fields); inspect takes a Go template
    /// too, such as '{{ json .Mounts }}'
    #[arg(
        long,
        global = true,
        value_parser = FormatArgument::parse,
        default_value = "human",
        hide_default_value = true,
        value_name = "human|json|TEMPLATE"
    )]
    pub format: FormatArgument,
    /// Print less: of lists only the names, of changes nothing
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// What `--driver` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverArgument {
    /// Of images and containers; of volumes too, if it is thin.
    Driver(DriverName),
    /// Of volumes only.
    Local,
}

impl DriverArgument {
    pub fn parse(text: &str) -> Result<DriverArgument, Error> {
        match text {
            "local" => Ok(DriverArgument::Local),
            _ => text.parse().map(DriverArgument::Driver),
        }
    }
}

/// What `--format` says.
#[derive(Clone, Debug)]
pub enum FormatArgument {
    Plain(Format),
    Template(Template),
}

impl FormatArgument {
    pub fn parse(text: &str) -> Result<FormatArgument, String> {
        match text {
            "human" => Ok(FormatArgument::Plain(Format::Human)),
            "json" => Ok(FormatArgument::Plain(Format::Json)),
            text if text.contains("{{") => Template::parse(text).map(FormatArgument::Template),
            _ => Err("there are human, json, and templates such as '{{ .Id }}'".to_owned()),
        }
    }

    /// How everything but what a template prints is printed.
    pub fn plain(&self) -> Format {
        match self {
            FormatArgument::Plain(format) => *format,
            FormatArgument::Template(_) => Format::Human,
        }
    }

    pub fn template(&self) -> Option<&Template> {
        match self {
            FormatArgument::Plain(_) => None,
            FormatArgument::Template(template) => Some(template),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a store (sparse: it takes from the disk what is used)
    Init(init::Init),
    /// Bring an image in
    Import(import::Import),
    /// List images
    Images,
    /// List the layers that images stand on
    Layers,
    /// Show who stands on whom, and what each one owns
    Tree(tree::Tree),
    /// Make a container of an image, a layer or another container
    Snapshot(snapshot::Snapshot),
    /// List containers
    Ls,
    /// Mount a container on a folder
    Mount(mount::Mount),
    /// Unmount a container
    Umount(mount::Named),
    /// Give a container a block device, and print it
    Attach(mount::Attach),
    /// Take a container's block device away
    Detach(mount::Named),
    /// Run a command in a container
    Run(run::RunContainer),
    /// Run a container again that has ended
    Start(control::Start),
    /// End the process of a container
    Stop(control::Stop),
    /// Run one more command in a running container
    Exec(control::Exec),
    /// List the containers that run
    Ps(control::Ps),
    /// Print what a container has printed
    Logs(control::Logs),
    /// Make an image of what a container has now, also while it is mounted
    Commit(commit::Commit),
    /// Show what differs: A added, C changed, D deleted
    Diff(diff::Diff),
    /// Print a file of a container, image or layer
    Cat(copy::Cat),
    /// Copy files and folders out of a container or into it
    Cp(copy::Cp),
    /// Write a file system as a tar, or an image as an OCI archive
    Export(export::Export),
    /// Remove containers
    Rm(remove::RemoveContainers),
    /// Remove images, and the layers that nothing else needs
    Rmi(remove::RemoveImages),
    /// Describe containers, images or layers as JSON in Docker's shape
    Inspect(inspect::Inspect),
    /// Keep data that outlives containers
    Volume(volume::Volume),
    /// Show which drivers there are, which of them work here, and their limits
    Drivers,
    /// Show who takes how much
    Df(usage::Df),
    /// Make the pool larger, also while containers are mounted
    Grow(grow::Grow),
    /// Look at every structure of the pool; changes nothing
    Check(check::Check),
    /// Read everything that has a checksum from the disk, and say what is damaged; changes nothing
    Scrub(scrub::Scrub),
    /// Give back all that is still reachable in a damaged pool
    Repair(repair::Repair),
    /// Record what a container's device is asked, while it is used
    Trace(trace::Record),
    /// Compare the drivers on the same work: a table, files of results, and a page with plots
    Bench(bench::Bench),
    /// Run the daemon
    Serve(serve::Serve),
    /// Go through the main job on a small image made on the spot
    Demo(demo::Demo),
    /// Print a script that completes commands in a shell
    Completions(manual::Completions),
    /// Write the manual pages
    #[command(hide = true)]
    Man(manual::Man),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        let arguments = Arguments::try_parse_from(["thinstore", "ls", "--root", "/x", "-q"]);
        let global = arguments.expect("good").global;
        assert_eq!(global.root.as_deref(), Some(std::path::Path::new("/x")));
        assert!(global.quiet && global.format.plain() == Format::Human);
        let arguments = Arguments::try_parse_from(["thinstore", "--format", "json", "df", "-v"]);
        assert!(arguments.expect("good").global.format.plain() == Format::Json);
    }

    #[test]
    fn wrong_usage_is_told_from_good() {
        for bad in [
            &["thinstore"][..],
            &["thinstore", "no-such-command"],
            &["thinstore", "ls", "--no-such-option"],
            &["thinstore", "init", "--size", "0.5G"],
            &["thinstore", "snapshot", "a"],
            &["thinstore", "rm"],
            &["thinstore", "--format", "xml", "ls"],
        ] {
            assert!(Arguments::try_parse_from(bad).is_err(), "{bad:?}");
        }
        for good in [
            &["thinstore", "init", "--size", "1G", "--allocation-run", "4K", "--device-size", "1G"]
                [..],
            &["thinstore", "import", "-", "--name", "x"],
            &["thinstore", "mount", "c", "/m", "-v", "a:/b:ro", "--tmpfs", "/t", "--read-only"],
            &["thinstore", "diff", "a", "b", "--blocks"],
            &["thinstore", "export", "c", "-o", "f", "--oci"],
            &["thinstore", "cp", "c:/a", "."],
        ] {
            assert!(Arguments::try_parse_from(good).is_ok(), "{good:?}");
        }
    }
}
