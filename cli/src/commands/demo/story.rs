//! What the demo does.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use thinstore_storage::Error;
use thinstore_store::size::format_size;
use thinstore_store::types::{
    CatRequest, ChangeKind, CommitRequest, CopyInRequest, DiffRequest, ImportOutcome,
    ImportRequest, MountOutcome, MountRequest, NameRequest, SnapshotRequest, UsageRequest,
};
use thinstore_store::{
    Access, Client, Connection, DaemonCommand, DriverName, InitOptions, Layout, NoProgress,
    Operations, Store, connect,
};

use super::Place;
use super::image::{self, LARGE_FILE};
use super::teller::{Teller, Told};
use crate::commands::local_copy::PackedItem;
use crate::failure::Failure;
use crate::text::{counted, printable};

/// The demo, half way through.
pub struct Story<'a, 'b> {
    place: &'a Place,
    teller: &'a mut Teller<'b>,
    connection: Option<Connection>,
    mounted: bool,
}

fn io(what: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure::Engine(Error::io(what.to_owned(), error))
}

/// The bytes of the pool in use, when all that was removed is free again.
fn used_bytes(store: &dyn Operations) -> Result<Option<u64>, Failure> {
    Ok(Some(store.usage(&UsageRequest { wait: true, ..UsageRequest::default() })?.pool_used_bytes))
}

fn named(name: &str) -> NameRequest {
    NameRequest { name: name.to_owned() }
}

impl<'a, 'b> Story<'a, 'b> {
    pub fn new(place: &'a Place, teller: &'a mut Teller<'b>) -> Result<Story<'a, 'b>, Failure> {
        Ok(Story { place, teller, connection: None, mounted: false })
    }

    /// Tells all of it; with `keep`, all but the removal.
    pub fn tell(&mut self, keep: bool) -> Result<(), Failure> {
        self.make_images()?;
        self.begin()?;
        let connection = self.connection.take();
        let Some(connection) = connection else { return Ok(()) };
        let told = self.tell_with(connection.operations(), keep);
        self.connection = Some(connection);
        told
    }

    fn tell_with(&mut self, store: &dyn Operations, keep: bool) -> Result<(), Failure> {
        self.teller.title("Images: a layer is stored once, whoever needs it")?;
        self.import(store, "one", "demo:1")?;
        let before = used_bytes(store)?.unwrap_or(0);
        self.import(store, "two", "demo:2")?;
        self.teller.title("Containers: a snapshot costs a record, whatever the size")?;
        self.snapshot(store, "demo:1", "web")?;
        self.snapshot(store, "demo:1", "worker")?;
        self.teller.title("Writing: only the blocks that change are copied")?;
        self.write(store)?;
        self.diff(store)?;
        self.teller.title("Committing: what the container has now is a new image")?;
        self.commit(store)?;
        self.look(store)?;
        if self.mounted {
            self.remount(store)?;
        }
        if !keep {
            self.teller.title("Removing: every block comes back")?;
            self.remove(store, before)?;
        }
        self.check(store)
    }

    fn make_images(&mut self) -> Result<(), Failure> {
        let folder = self.place.image();
        self.teller.title("An image, made on the spot")?;
        let command = "(write two OCI images that differ in their last layer)";
        self.teller.step(
            command,
            || {
                let one = image::write(&folder.join("one"), "demo:1", "first edition\n");
                let two = image::write(&folder.join("two"), "demo:2", "second edition\n");
                let failed = io("cannot write the demo's image");
                Ok((one.map_err(&failed)?, two.map_err(&failed)?))
            },
            |(one, two)| {
                let what = "with a whiteout, an opaque folder, hard and symbolic links, setuid";
                let line = format!("{} {what}", counted(one.layers, "layer"));
                let sizes = format!("{} and {}", format_size(one.bytes), format_size(two.bytes));
                Ok(Told { results: vec![line, sizes], used_bytes: None })
            },
        )?;
        Ok(())
    }

    /// Makes the store and connects to it: as root to a daemon, which mounting needs.
    fn begin(&mut self) -> Result<(), Failure> {
        let root = self.place.store.clone();
        let options = InitOptions {
            size_bytes: 10 << 30,
            device_size_bytes: 1 << 30,
            ..InitOptions::default()
        };
        self.teller.title("A store")?;
        let is_root = nix::unistd::geteuid().is_root();
        let access = if is_root { Access::Stay } else { Access::Write };
        let connection = self.teller.step(
            "thinstore init --size 10G --device-size 1G",
            || {
                Store::init(&root, &options)?;
                Ok(connect(&root, DriverName::Thin, access, &DaemonCommand::this_program())?)
            },
            |connection| {
                let usage = connection.operations().usage(&UsageRequest::default())?;
                let sparse = format!(
                    "a pool of {}, of which the host stores {}",
                    format_size(usage.pool_size_bytes),
                    format_size(usage.host_bytes)
                );
                Ok(Told { results: vec![sparse], used_bytes: Some(usage.pool_used_bytes) })
            },
        )?;
        self.connection = Some(connection);
        Ok(())
    }

    fn import(
        &mut self,
        store: &dyn Operations,
        folder: &str,
        name: &str,
    ) -> Result<ImportOutcome, Failure> {
        let request = ImportRequest {
            source: self.place.image().join(folder),
            name: None,
            user_space: false,
        };
        self.teller.step(
            &format!("thinstore import image/{folder}"),
            || Ok(store.import(&request, None, Arc::new(NoProgress))?),
            |outcome| {
                let how = match outcome.method.as_str() {
                    "kernel" => "through a mounted file system",
                    _ => "in user space, without mounting",
                };
                let line = format!(
                    "{name}: {}, {} of them new, written {how}",
                    counted(outcome.layers, "layer"),
                    outcome.layers.saturating_sub(outcome.reused_layers),
                );
                Ok(Told { results: vec![line], used_bytes: used_bytes(store)? })
            },
        )
    }

    fn snapshot(&mut self, store: &dyn Operations, image: &str, name: &str) -> Result<(), Failure> {
        let request =
            SnapshotRequest { source: image.to_owned(), name: name.to_owned(), size_bytes: None };
        self.teller.step(
            &format!("thinstore snapshot {image} {name}"),
            || Ok(store.snapshot(&request)?),
            |container| {
                let line = format!(
                    "a writable device of {}, {} of its own",
                    format_size(container.size_bytes),
                    format_size(container.own_bytes)
                );
                Ok(Told { results: vec![line], used_bytes: used_bytes(store)? })
            },
        )?;
        Ok(())
    }

    /// As root on the mounted container, else with `cp` and `cat`.
    fn write(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        if nix::unistd::geteuid().is_root() {
            match self.mount(store) {
                Ok(()) => return self.write_mounted(store),
                Err(Failure::Engine(error)) => {
                    self.teller.say(&format!("      not here: {error}"))?;
                }
                Err(other) => return Err(other),
            }
        } else {
            self.teller.say("      (mounting needs root; cp and cat do not)")?;
        }
        self.write_by_copying(store)
    }

    fn mount_request(&self) -> Result<MountRequest, Failure> {
        let directory = self.place.mount_point();
        std::fs::create_dir_all(&directory).map_err(io("cannot make the mount point"))?;
        Ok(MountRequest { name: "web".to_owned(), directory, ..MountRequest::default() })
    }

    fn mount(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        let request = self.mount_request()?;
        self.teller.step(
            "thinstore mount web mounted",
            || Ok(store.mount(&request)?),
            |outcome: &MountOutcome| {
                let line = format!("ext4 on {}", outcome.device);
                Ok(Told { results: vec![line], used_bytes: used_bytes(store)? })
            },
        )?;
        self.mounted = true;
        Ok(())
    }

    fn write_mounted(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        let root = self.place.mount_point();
        let large = root.join(LARGE_FILE);
        self.teller.step(
            &format!("printf x >> mounted/{LARGE_FILE}; sync mounted/{LARGE_FILE}"),
            || {
                let failed = io("cannot write to the mounted container");
                let file =
                    std::fs::OpenOptions::new().append(true).open(&large).map_err(&failed)?;
                (&file).write_all(b"x").map_err(&failed)?;
                file.sync_all().map_err(&failed)
            },
            |()| {
                let line = format!(
                    "one byte appended to a file of {} in a lower layer",
                    format_size(image::LARGE_FILE_BYTES)
                );
                Ok(Told { results: vec![line], used_bytes: used_bytes(store)? })
            },
        )?;
        self.teller.step(
            "echo red > mounted/app/colour; rm mounted/var/cache/fresh",
            || {
                let failed = io("cannot write to the mounted container");
                std::fs::write(root.join("app/colour"), "red\n").map_err(&failed)?;
                std::fs::remove_file(root.join("var/cache/fresh")).map_err(&failed)
            },
            |()| Ok(Told { results: Vec::new(), used_bytes: used_bytes(store)? }),
        )
    }

    fn write_by_copying(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        let file = self.place.image().join("colour");
        std::fs::write(&file, "red\n").map_err(io("cannot write a file to copy"))?;
        let request = CopyInRequest {
            name: "web".to_owned(),
            path: PathBuf::from("/app"),
            item_name: "colour".to_owned(),
            ..CopyInRequest::default()
        };
        self.teller.step(
            "thinstore cp colour web:/app",
            || Ok(store.copy_in(&request, PackedItem::open(&file, false)?.pack()?)?),
            |()| Ok(Told { results: Vec::new(), used_bytes: used_bytes(store)? }),
        )?;
        self.cat(store, "web", "/app/colour")?;
        self.cat(store, "worker", "/etc/edition")
    }

    fn cat(&mut self, store: &dyn Operations, name: &str, path: &str) -> Result<(), Failure> {
        let request = CatRequest { name: name.to_owned(), path: PathBuf::from(path) };
        self.teller.step(
            &format!("thinstore cat {name} {path}"),
            || {
                let mut text = Vec::new();
                store.cat(&request, &mut text)?;
                Ok(text)
            },
            |text| {
                let line = printable(String::from_utf8_lossy(text).trim_end());
                Ok(Told { results: vec![line], used_bytes: None })
            },
        )?;
        Ok(())
    }

    fn diff(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        let request = DiffRequest { from: "web".to_owned(), to: None };
        self.teller.step(
            "thinstore diff web",
            || Ok(store.differences(&request)?),
            |changes| {
                let line =
                    |kind: ChangeKind, path: &str| format!("{} {}", kind.letter(), printable(path));
                let results =
                    changes.iter().map(|change| line(change.kind, &change.path)).collect();
                Ok(Told { results, used_bytes: used_bytes(store)? })
            },
        )?;
        Ok(())
    }

    fn commit(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        let request = CommitRequest {
            name: "web".to_owned(),
            image: "demo:red".to_owned(),
            message: Some("painted red".to_owned()),
            author: None,
        };
        self.teller.step(
            "thinstore commit web demo:red",
            || Ok(store.commit(&request)?),
            |outcome| {
                let live = if outcome.live { ", while the container is mounted" } else { "" };
                let line = format!("a new layer of {}{live}", format_size(outcome.own_bytes));
                Ok(Told { results: vec![line], used_bytes: used_bytes(store)? })
            },
        )?;
        Ok(())
    }

    /// Who takes how much, and what is shared.
    fn look(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        self.teller.step(
            "thinstore df -v",
            || Ok(store.usage(&UsageRequest { wait: true, ..UsageRequest::default() })?),
            |usage| {
                let line = |name: &str, size: u64, shared: u64, unique: u64| {
                    format!(
                        "{name:<9} {:>9}: {:>9} shared, {:>9} its own alone",
                        format_size(size),
                        format_size(shared),
                        format_size(unique)
                    )
                };
                let mut results = Vec::new();
                for image in &usage.images {
                    let (shared, unique) = (image.shared_bytes, image.unique_bytes);
                    results.push(line(&image.name, image.size_bytes, shared, unique));
                }
                for container in &usage.containers {
                    let (shared, unique) = (container.shared_bytes, container.unique_bytes);
                    results.push(line(&container.name, container.size_bytes, shared, unique));
                }
                let together: u64 = usage.images.iter().map(|image| image.size_bytes).sum::<u64>()
                    + usage.containers.iter().map(|one| one.size_bytes).sum::<u64>();
                results.push(format!(
                    "together {} if nothing were shared; the pool uses {}",
                    format_size(together),
                    format_size(usage.pool_used_bytes)
                ));
                Ok(Told { results, used_bytes: Some(usage.pool_used_bytes) })
            },
        )?;
        Ok(())
    }

    fn remount(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        let request = self.mount_request()?;
        let large = self.place.mount_point().join(LARGE_FILE);
        self.teller.title("Unmounting and mounting again: it is all still there")?;
        self.teller.step(
            "thinstore umount web; thinstore mount web mounted; tail -c 1 mounted/srv/data.bin",
            || {
                store.unmount(&named("web"))?;
                store.mount(&request)?;
                let mut last = [0];
                let file = std::fs::File::open(&large).map_err(io("cannot read it again"))?;
                file.read_exact_at(&mut last, image::LARGE_FILE_BYTES)
                    .map_err(io("cannot read it again"))?;
                Ok(last)
            },
            |last| {
                let line = printable(&String::from_utf8_lossy(last));
                Ok(Told { results: vec![line], used_bytes: used_bytes(store)? })
            },
        )?;
        self.unmount(store)
    }

    fn unmount(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        self.teller.step(
            "thinstore umount web",
            || Ok(store.unmount(&named("web"))?),
            |_| Ok(Told { results: Vec::new(), used_bytes: used_bytes(store)? }),
        )?;
        self.mounted = false;
        Ok(())
    }

    fn remove(&mut self, store: &dyn Operations, before: u64) -> Result<(), Failure> {
        self.teller.step(
            "thinstore rm web worker; thinstore rmi demo:red demo:2; thinstore df --wait",
            || {
                for container in ["web", "worker"] {
                    store.remove_container(&named(container))?;
                }
                for image in ["demo:red", "demo:2"] {
                    store.remove_image(&named(image))?;
                }
                Ok(used_bytes(store)?.unwrap_or(0))
            },
            |used| {
                let line = match used.cmp(&before) {
                    std::cmp::Ordering::Equal => {
                        format!("the pool uses {} again, to the byte", format_size(before))
                    }
                    _ => format!("the pool used {before} bytes then, and {used} now"),
                };
                Ok(Told { results: vec![line], used_bytes: Some(*used) })
            },
        )?;
        Ok(())
    }

    fn check(&mut self, store: &dyn Operations) -> Result<(), Failure> {
        self.teller.step(
            "thinstore check",
            || Ok(store.check()?),
            |summary| {
                let verdict = if summary.clean { "clean" } else { "NOT CLEAN" };
                let blocks = counted(summary.data_blocks, "data block");
                let line = format!("{verdict}: {}, {blocks}", counted(summary.layers, "device"));
                Ok(Told { results: vec![line], used_bytes: None })
            },
        )?;
        Ok(())
    }

    /// Unmounts what is mounted and ends the daemon, also when the story broke off.
    pub fn end(self) -> Result<(), Failure> {
        let Some(connection) = self.connection else { return Ok(()) };
        if self.mounted {
            connection.operations().unmount(&named("web"))?;
        }
        let daemon = matches!(connection, Connection::Daemon(_));
        connection.close()?;
        if !daemon {
            return Ok(());
        }
        let layout = Layout::new(&self.place.store);
        match Client::connect(&layout)? {
            Some(client) => crate::commands::serve::stop_and_wait(&layout, client).map(drop),
            None => Ok(()),
        }
    }
}
