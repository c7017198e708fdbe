//! From a store's path and a driver to someone who answers: of the thin driver the daemon if one runs, else
//! the pool itself; of the others a shelf.

use std::path::Path;
use std::time::{Duration, Instant};

use thinstore_drivers::DriverName;
use thinstore_storage::{ErrorKind, Result};

use crate::daemon::{Client, DaemonCommand, start_daemon};
use crate::layout::Layout;
use crate::operations::Operations;
use crate::shelf::Shelf;
use crate::store::{OpenMode, Store};

/// How long a command waits for another one that owns the pool for a moment, or for a daemon that is
/// just starting or ending.
const OWNER_PATIENCE: Duration = Duration::from_secs(2);

/// What a command is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only look.
    Read,
    /// Change something.
    Write,
    /// Something that has to stay when the command has ended: this needs the daemon.
    Stay,
}

/// Someone who answers.
pub enum Connection {
    /// This process owns the pool.
    Local(Box<Store>),
    /// The daemon owns it.
    Daemon(Client),
    /// Another driver than the thin one, which has no owner.
    Shelf(Box<Shelf>),
}

impl Connection {
    /// The operations.
    pub fn operations(&self) -> &dyn Operations {
        match self {
            Connection::Local(store) => store.as_ref(),
            Connection::Daemon(client) => client,
            Connection::Shelf(shelf) => shelf.as_ref(),
        }
    }

    /// Ends it. A pool that this process owns is closed: everything is durable, nothing has to be
    /// recovered at the next open.
    pub fn close(self) -> Result<()> {
        match self {
            Connection::Local(store) => store.close(),
            Connection::Daemon(_) | Connection::Shelf(_) => Ok(()),
        }
    }
}

/// Finds who answers for a driver's images and containers in the store at `root`.
///
/// A daemon that runs is asked. Otherwise the pool is opened here, or, for [`Access::Stay`], a daemon
/// is started with `daemon`. A pool that someone else owns is waited for a little, then the error, of
/// kind `InUse`, names who has it.
pub fn connect(
    root: &Path,
    driver: DriverName,
    access: Access,
    daemon: &DaemonCommand,
) -> Result<Connection> {
    let layout = Layout::new(root);
    Store::require(&layout)?;
    if driver != DriverName::Thin {
        let shelf = Shelf::open(root, driver, access != Access::Read)?;
        return Ok(Connection::Shelf(Box::new(shelf)));
    }
    let deadline = Instant::now() + OWNER_PATIENCE;
    loop {
        if let Some(client) = Client::connect(&layout)? {
            return Ok(Connection::Daemon(client));
        }
        let attempt = match access {
            Access::Stay => start_daemon(&layout, daemon).map(Connection::Daemon),
            Access::Write => local(root, OpenMode::Write),
            Access::Read => local(root, OpenMode::Read),
        };
        match attempt {
            Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

fn local(root: &Path, mode: OpenMode) -> Result<Connection> {
    Ok(Connection::Local(Box::new(Store::open(root, mode)?)))
}
