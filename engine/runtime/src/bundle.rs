//! What a container's process gets: namespaces, capabilities and file systems as Docker gives them, but for
//! the network, which is the host's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceType, MountBuilder,
    ProcessBuilder, RootBuilder, Spec, UserBuilder, get_default_maskedpaths, get_default_mounts,
    get_default_namespaces, get_default_readonly_paths,
};
use thinstore_storage::{Error, ErrorKind, Result};

use crate::user::User;

/// Docker's capabilities.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// A file that the process sees in place of what the container has there, and cannot change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMount {
    /// On the host.
    pub source: PathBuf,
    /// In the container, where a file must be.
    pub target: PathBuf,
}

/// The process of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// The command line.
    pub line: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Where it starts, in the container.
    pub working_directory: PathBuf,
    /// Whom it runs as.
    pub user: User,
    /// Does it get a terminal?
    pub terminal: bool,
    /// The container's host name.
    pub hostname: String,
    /// May it not write to its root file system?
    pub read_only: bool,
    /// What lies over the container's own files.
    pub files: Vec<FileMount>,
    /// How mounts of the host and of the container reach each other (`rslave`, `rshared`); none keeps the
    /// runtime's own way.
    pub root_propagation: Option<String>,
}

/// Writes `config.json` to `bundle`, for the root file system at `root`.
pub fn write_bundle(bundle: &Path, root: &Path, options: &ProcessOptions) -> Result<()> {
    let spec = specification(root, options).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("the container cannot be described: {error}"))
    })?;
    let path = bundle.join("config.json");
    let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
    let text = serde_json::to_vec_pretty(&spec).map_err(|error| failed(error.into()))?;
    std::fs::write(&path, text).map_err(failed)
}

fn specification(root: &Path, options: &ProcessOptions) -> std::result::Result<Spec, OciSpecError> {
    let capabilities: HashSet<Capability> = CAPABILITIES.into_iter().collect();
    // Who is not root has what the files that it runs give it.
    let effective = if options.user.uid == 0 { capabilities.clone() } else { HashSet::new() };
    let process = ProcessBuilder::default()
        .terminal(options.terminal)
        .user(
            UserBuilder::default()
                .uid(options.user.uid)
                .gid(options.user.gid)
                .additional_gids(options.user.more_groups.clone())
                .build()?,
        )
        .args(options.line.clone())
        .env(options.environment.clone())
        .cwd(options.working_directory.clone())
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(capabilities)
                .effective(effective.clone())
                .permitted(effective)
                .inheritable(HashSet::new())
                .ambient(HashSet::new())
                .build()?,
        )
        // Those of whoever runs it.
        .rlimits(Vec::new())
        .no_new_privileges(false)
        .build()?;
    let is_kept = |kind: LinuxNamespaceType| {
        !matches!(kind, LinuxNamespaceType::Network | LinuxNamespaceType::Cgroup)
    };
    let namespaces = get_default_namespaces();
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces.into_iter().filter(|one| is_kept(one.typ())).collect::<Vec<_>>())
        .masked_paths(get_default_maskedpaths())
        .readonly_paths(get_default_readonly_paths())
        .build()?;
    linux.set_rootfs_propagation(options.root_propagation.clone());
    let mut spec = Spec::default();
    spec.set_process(Some(process));
    spec.set_root(Some(RootBuilder::default().path(root).readonly(options.read_only).build()?));
    spec.set_hostname(Some(options.hostname.clone()));
    let mut mounts = get_default_mounts();
    for file in &options.files {
        let options = ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        let mount = MountBuilder::default()
            .typ("bind")
            .source(&file.source)
            .destination(&file.target)
            .options(options);
        mounts.push(mount.build()?);
    }
    spec.set_mounts(Some(mounts));
    spec.set_linux(Some(linux));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_says_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let options = ProcessOptions {
            line: vec!["sh".to_owned(), "-c".to_owned(), "echo \"hi\"".to_owned()],
            environment: vec!["A=b".to_owned()],
            working_directory: PathBuf::from("/srv"),
            user: User { uid: 5, gid: 6, more_groups: vec![7] },
            terminal: true,
            hostname: "web".to_owned(),
            read_only: true,
            files: vec![FileMount { source: "/some/hosts".into(), target: "/etc/hosts".into() }],
            root_propagation: Some("rslave".to_owned()),
        };
        write_bundle(folder.path(), Path::new("/some/root"), &options).unwrap();
        let text = std::fs::read(folder.path().join("config.json")).unwrap();
        let spec: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(spec["process"]["args"], serde_json::json!(["sh", "-c", "echo \"hi\""]));
        assert_eq!(spec["process"]["user"]["additionalGids"], serde_json::json!([7]));
        assert_eq!((&spec["process"]["cwd"], &spec["hostname"]), (&"/srv".into(), &"web".into()));
        assert_eq!(spec["root"], serde_json::json!({"path": "/some/root", "readonly": true}));
        assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
        let hosts = spec["mounts"].as_array().unwrap().last().unwrap();
        assert_eq!((&hosts["source"], &hosts["type"]), (&"/some/hosts".into(), &"bind".into()));
        assert!(hosts["options"].to_string().contains("\"ro\""), "{hosts}");
        let namespaces = spec["linux"]["namespaces"].to_string();
        assert!(namespaces.contains("mount") && !namespaces.contains("network"), "{namespaces}");
        assert!(!spec["process"]["capabilities"].to_string().contains("SYS_ADMIN"));
        assert_eq!(spec["process"]["capabilities"]["effective"], serde_json::json!([]));
    }
}
