//! The commands: each parses nothing but its own options, calls one operation, and prints the answer.

pub mod bench;
pub mod check;
pub mod commit;
pub mod control;
pub mod copy;
pub mod demo;
pub mod diff;
pub mod drivers;
pub mod export;
pub mod grow;
pub mod import;
pub mod init;
pub mod inspect;
mod listing;
mod local_copy;
pub mod manual;
pub mod mount;
pub mod remove;
pub mod repair;
pub mod run;
pub mod scrub;
pub mod serve;
pub mod snapshot;
pub mod trace;
pub mod tree;
pub mod usage;
pub mod volume;

use std::process::ExitCode;

use crate::arguments::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Runs a command.
pub fn run(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    let takes_template = match &command {
        Command::Inspect(_) => true,
        Command::Volume(volume) => volume.takes_template(),
        _ => false,
    };
    if context.template.is_some() && !takes_template {
        return Err(Failure::usage("only 'thinstore inspect' takes a template as its --format"));
    }
    if !matches!(command, Command::Volume(_)) {
        context.refuse_volume_driver()?;
    }
    match command {
        Command::Init(command) => command.run(context),
        Command::Import(command) => command.run(context),
        Command::Images => listing::images(context),
        Command::Layers => listing::layers(context),
        Command::Tree(options) => tree::run(context, &options),
        Command::Snapshot(command) => command.run(context),
        Command::Ls => listing::containers(context),
        Command::Mount(command) => command.run(context),
        Command::Umount(command) => command.unmount(context),
        Command::Attach(command) => command.run(context),
        Command::Detach(command) => command.detach(context),
        Command::Commit(command) => command.run(context),
        Command::Diff(command) => command.run(context),
        Command::Cat(command) => command.run(context),
        Command::Cp(command) => command.run(context),
        Command::Export(command) => command.run(context),
        Command::Rm(command) => command.run(context),
        Command::Rmi(command) => command.run(context),
        Command::Inspect(command) => command.run(context),
        Command::Volume(command) => command.run(context),
        Command::Drivers => drivers::run(context),
        Command::Df(command) => command.run(context),
        Command::Grow(command) => command.run(context),
        Command::Run(command) => return command.run(context),
        Command::Start(command) => return command.run(context),
        Command::Stop(command) => command.run(context),
        Command::Exec(command) => return command.run(context),
        Command::Ps(command) => command.run(context),
        Command::Logs(command) => command.run(context),
        Command::Check(command) => return command.run(context),
        Command::Repair(command) => return command.run(context),
        Command::Scrub(command) => return command.run(context),
        Command::Trace(command) => return command.run(context),
        Command::Bench(command) => command.run(context),
        Command::Serve(command) => command.run(context),
        Command::Demo(command) => command.run(context),
        Command::Completions(command) => command.run(context),
        Command::Man(command) => command.run(context),
    }?;
    Ok(ExitCode::SUCCESS)
}
