//! The program under test, and who runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user and group that stand for somebody without privileges.
pub const NOBODY: u32 = 65534;

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Whoever runs the tests.
    Current,
    /// Somebody without privileges: the user `nobody` when root runs the tests, else the same user.
    Unprivileged,
}

/// Does root run the tests?
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The file of the program: `THINSTORE_BINARY`, or the one in the build folder that these tests were
/// built in.
#[track_caller]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("THINSTORE_BINARY") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "THINSTORE_BINARY names no file: {}", path.display());
        return path;
    }
    // target/PROFILE/deps/TEST-HASH, or target/PROFILE/TEST where cargo copied it.
    let test = std::env::current_exe().expect("the path of this test");
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("thinstore"))
        .find(|candidate| candidate.is_file());
    match found {
        Some(path) => path,
        None => panic!(
            "no program 'thinstore' beside {}; build it first (cargo build -p thinstore) or set \
             THINSTORE_BINARY",
            test.display()
        ),
    }
}

/// A copy of the program in `folder` that every user can run: the build folder may be closed to them.
pub fn copy_for_everyone(folder: &Path) -> PathBuf {
    let copy = folder.join("thinstore");
    fs::copy(binary(), &copy).expect("copy the program");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
        .expect("make the copy executable");
    copy
}

/// A command that `identity` runs, with nothing of the tester's settings and a home in `home`.
pub fn command_of(program: &Path, identity: Identity, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", home)
        .env_remove("THINSTORE_ROOT")
        .env_remove("THINSTORE_ON_FULL")
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE");
    if identity == Identity::Unprivileged && is_root() {
        // The scratch folder of the tests is root's: temporary files go where the user may write.
        command.uid(NOBODY).gid(NOBODY).current_dir(home).env("TMPDIR", home);
    }
    command
}
