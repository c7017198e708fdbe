//! How people write what is mounted over a container: `-v`, `--tmpfs` and `--mount`, as for Docker.

use std::path::{Component, Path, PathBuf};

use thinstore_storage::{Error, ErrorKind, Result};

use crate::names::VolumeName;
use crate::size::parse_size;
use crate::types::{MountKind, MountSpecification, Propagation};

fn refuse<T>(option: &str, text: &str, why: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Usage, format!("{option} '{}': {why}", text.escape_debug())))
}

impl MountSpecification {
    fn new(kind: MountKind, destination: &str) -> MountSpecification {
        MountSpecification {
            kind,
            source: None,
            destination: PathBuf::from(destination),
            read_only: false,
            create_source: false,
            no_copy: false,
            propagation: Propagation::default(),
            non_recursive: false,
            tmpfs_size_bytes: None,
            tmpfs_mode: None,
        }
    }

    /// Takes `VOLUME:PATH[:OPTIONS]` or `HOSTDIR:PATH[:OPTIONS]`. A source with a slash, `.` or `..` is a
    /// folder, relative to `current_directory`; it is made if it is missing. The options are Docker's: of each
    /// kind one at most, `nocopy` of volumes, a propagation of folders.
    pub fn from_volume_option(text: &str, current_directory: &Path) -> Result<MountSpecification> {
        const OPTION: &str = "-v";
        let mut parts = text.split(':');
        let (Some(source), Some(destination)) = (parts.next(), parts.next()) else {
            return refuse(
                OPTION,
                text,
                "write VOLUME:PATH or HOSTDIR:PATH, with :ro or :rw if wanted",
            );
        };
        let mut specification = if source.contains('/') || source == "." || source == ".." {
            let mut bind = MountSpecification::new(MountKind::Bind, destination);
            bind.source = Some(absolute(source, current_directory, OPTION, text)?);
            bind.create_source = true;
            bind
        } else {
            VolumeName::parse(source)?;
            let mut volume = MountSpecification::new(MountKind::Volume, destination);
            volume.source = Some(source.to_owned());
            volume
        };
        if let Some(options) = parts.next()
            && let Err(why) = specification.set_modes(options)
        {
            return refuse(OPTION, text, &why);
        }
        if parts.next().is_some() {
            return refuse(OPTION, text, "it has more than three parts");
        }
        specification.checked(OPTION, text)
    }

    /// The third part of a `-v`. The error says what is wrong with it.
    fn set_modes(&mut self, options: &str) -> std::result::Result<(), String> {
        let is_volume = self.kind == MountKind::Volume;
        let mut kinds_given: Vec<&str> = Vec::new();
        for option in options.split(',') {
            let kind = match option {
                "ro" | "rw" => {
                    self.read_only = option == "ro";
                    "ro and rw"
                }
                // labels of SELinux, which is not looked after
                "z" | "Z" => "z and Z",
                "nocopy" if is_volume => {
                    self.no_copy = true;
                    "nocopy"
                }
                "nocopy" => return Err("nocopy is for volumes".to_owned()),
                _ => match Propagation::parse(option) {
                    Some(_) if is_volume => {
                        return Err(format!(
                            "{option} is for folders of the host, not for volumes"
                        ));
                    }
                    Some(propagation) => {
                        self.propagation = propagation;
                        "the propagations"
                    }
                    None => {
                        return Err(format!(
                            "'{}' is not an option of it; ro, rw, z and Z are, nocopy of volumes, and [r]private, [r]shared and [r]slave of folders",
                            option.escape_debug()
                        ));
                    }
                },
            };
            if kinds_given.contains(&kind) {
                return Err(format!("of {kind} only one can be said, once"));
            }
            kinds_given.push(kind);
        }
        Ok(())
    }

    /// Takes `PATH[:size=SIZE,mode=OCTAL,ro]`.
    pub fn from_tmpfs_option(text: &str) -> Result<MountSpecification> {
        const OPTION: &str = "--tmpfs";
        let (destination, options) = match text.split_once(':') {
            Some((destination, options)) => (destination, options),
            None => (text, ""),
        };
        let mut specification = MountSpecification::new(MountKind::Tmpfs, destination);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => specification.tmpfs_size_bytes = Some(tmpfs_size(size)?),
                Some(("mode", mode)) => {
                    specification.tmpfs_mode = Some(tmpfs_mode(mode, OPTION, text)?);
                }
                None if option == "ro" => specification.read_only = true,
                None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
                _ => {
                    return refuse(
                        OPTION,
                        text,
                        &format!(
                            "'{}' is not an option of it; size=, mode= and ro are",
                            option.escape_debug()
                        ),
                    );
                }
            }
        }
        specification.checked(OPTION, text)
    }

    /// Takes `type=volume|bind|tmpfs,source=..,target=..` and, if wanted, `readonly`, `volume-nocopy`,
    /// `bind-propagation=..`, `bind-nonrecursive`, `tmpfs-size=..`, `tmpfs-mode=..`.
    pub fn from_mount_option(text: &str, current_directory: &Path) -> Result<MountSpecification> {
        const OPTION: &str = "--mount";
        let (mut kind, mut source, mut destination) = (MountKind::Volume, None, None);
        let mut rest = MountSpecification::new(MountKind::Volume, "");
        let mut bind_only = false;
        for field in text.split(',') {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field, None),
            };
            match (key, value) {
                ("type", Some("volume")) => kind = MountKind::Volume,
                ("type", Some("bind")) => kind = MountKind::Bind,
                ("type", Some("tmpfs")) => kind = MountKind::Tmpfs,
                ("source" | "src", Some(value)) => source = Some(value),
                ("target" | "destination" | "dst", Some(value)) => destination = Some(value),
                ("readonly" | "ro", None | Some("true" | "1")) => rest.read_only = true,
                ("readonly" | "ro", Some("false" | "0")) => rest.read_only = false,
                ("volume-nocopy", None | Some("true" | "1")) => rest.no_copy = true,
                ("bind-propagation", Some(word)) => {
                    let Some(propagation) = Propagation::parse(word) else {
                        return refuse(
                            OPTION,
                            text,
                            &format!(
                                "'{}' is not a propagation; rprivate, private, rshared, shared, rslave and slave are",
                                word.escape_debug()
                            ),
                        );
                    };
                    bind_only = true;
                    rest.propagation = propagation;
                }
                ("bind-nonrecursive", None | Some("true" | "1")) => {
                    bind_only = true;
                    rest.non_recursive = true;
                }
                ("bind-nonrecursive", Some("false" | "0")) => rest.non_recursive = false,
                ("tmpfs-size", Some(size)) => rest.tmpfs_size_bytes = Some(tmpfs_size(size)?),
                ("tmpfs-mode", Some(mode)) => {
                    rest.tmpfs_mode = Some(tmpfs_mode(mode, OPTION, text)?);
                }
                _ => {
                    return refuse(
                        OPTION,
                        text,
                        &format!(
                            "'{}' is not understood; type=volume|bind|tmpfs, source=, target=, readonly, volume-nocopy, bind-propagation=, bind-nonrecursive, tmpfs-size= and tmpfs-mode= are",
                            field.escape_debug()
                        ),
                    );
                }
            }
        }
        let Some(destination) = destination else {
            return refuse(OPTION, text, "it has no target=");
        };
        rest.kind = kind;
        rest.destination = PathBuf::from(destination);
        rest.source = match (kind, source) {
            (MountKind::Tmpfs, None) => None,
            (MountKind::Tmpfs, Some(_)) => return refuse(OPTION, text, "a tmpfs has no source="),
            (_, None) => return refuse(OPTION, text, "it has no source="),
            (MountKind::Bind, Some(path)) => Some(absolute(path, current_directory, OPTION, text)?),
            (MountKind::Volume, Some(name)) => Some(VolumeName::parse(name)?.as_str().to_owned()),
        };
        if kind != MountKind::Volume && rest.no_copy {
            return refuse(OPTION, text, "volume-nocopy goes with type=volume");
        }
        if kind != MountKind::Bind && bind_only {
            return refuse(
                OPTION,
                text,
                "bind-propagation= and bind-nonrecursive go with type=bind",
            );
        }
        if kind != MountKind::Tmpfs
            && (rest.tmpfs_size_bytes.is_some() || rest.tmpfs_mode.is_some())
        {
            return refuse(OPTION, text, "tmpfs-size= and tmpfs-mode= go with type=tmpfs");
        }
        rest.checked(OPTION, text)
    }

    /// The destination must be absolute, without `..`, and not the root.
    fn checked(mut self, option: &str, text: &str) -> Result<MountSpecification> {
        if !self.destination.is_absolute() {
            return refuse(option, text, "the path in the container is not absolute");
        }
        if self.destination.components().any(|part| part == Component::ParentDir) {
            return refuse(option, text, "the path in the container contains '..'");
        }
        self.destination = self.destination.components().collect();
        if self.destination == Path::new("/") {
            return refuse(option, text, "the container's root itself cannot be covered");
        }
        if text.contains('\0') {
            return refuse(option, text, "it contains a NUL");
        }
        Ok(self)
    }
}

fn absolute(path: &str, current_directory: &Path, option: &str, text: &str) -> Result<String> {
    let joined: PathBuf = current_directory.join(path).components().collect();
    match joined.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => refuse(option, text, "the path on the host is not UTF-8"),
    }
}

fn tmpfs_size(text: &str) -> Result<u64> {
    match parse_size(text)? {
        0 => refuse("tmpfs size", text, "it is 0; leave it out for half of the memory"),
        size => Ok(size),
    }
}

fn tmpfs_mode(mode: &str, option: &str, text: &str) -> Result<u32> {
    match u32::from_str_radix(mode, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => refuse(option, text, "the mode is not octal, as 1777"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> Result<MountSpecification> {
        MountSpecification::from_volume_option(text, Path::new("/work/dir"))
    }

    fn mount(text: &str) -> Result<MountSpecification> {
        MountSpecification::from_mount_option(text, Path::new("/work/dir"))
    }

    #[test]
    fn dash_v_tells_volumes_from_folders() {
        let data = volume("data:/var/lib").expect("a volume");
        assert_eq!((data.kind, data.source.as_deref()), (MountKind::Volume, Some("data")));
        assert!(!data.read_only && !data.create_source);
        let host = volume("/srv/x:/data/:ro").expect("a folder");
        assert_eq!((host.kind, host.source.as_deref()), (MountKind::Bind, Some("/srv/x")));
        assert_eq!(host.destination, Path::new("/data"));
        assert!(host.read_only && host.create_source);
        assert_eq!(volume("./x:/d").expect("relative").source.as_deref(), Some("/work/dir/x"));
        assert_eq!(volume(".:/d").expect("here").source.as_deref(), Some("/work/dir"));
    }

    #[test]
    fn dash_v_refuses_what_makes_no_sense() {
        for bad in ["data", "data:rel", "data:/", "data:/a/../b", "a b:/x", ":/x", "d:/x:what", ""]
        {
            assert_eq!(volume(bad).expect_err(bad).kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn dash_v_takes_dockers_modes_and_each_once() {
        for one in Propagation::ALL {
            let bind = volume(&format!("/srv:/d:ro,{}", one.name())).expect("a folder");
            assert!(bind.read_only && bind.propagation == one);
            assert!(volume(&format!("data:/d:{}", one.name())).is_err(), "of a volume");
        }
        assert!(volume("data:/d:z,nocopy,ro").expect("a volume").no_copy);
        assert!(volume("/srv:/d:Z,rw").is_ok());
        for bad in [
            "/srv:/d:nocopy",
            "/srv:/d:rslave,rshared",
            "/srv:/d:ro,rw",
            "data:/d:ro,ro",
            "/srv:/d:z,Z",
            "/srv:/d:ro:rw",
            "/srv:/d:unbindable",
            "/srv:/d:RO",
            "/srv:/d:",
        ] {
            assert_eq!(volume(bad).expect_err(bad).kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn dash_dash_mount_takes_propagation_and_recursion_of_folders_only() {
        let bind = mount("type=bind,src=/s,dst=/x,bind-propagation=rslave,bind-nonrecursive");
        let bind = bind.expect("a folder");
        assert!(bind.propagation == Propagation::RSlave && bind.non_recursive);
        for bad in [
            "type=bind,src=/s,dst=/x,bind-propagation=up",
            "type=bind,src=/s,dst=/x,bind-propagation",
            "type=bind,src=/s,dst=/x,bind-nonrecursive=maybe",
            "src=v,dst=/x,bind-propagation=rprivate",
            "src=v,dst=/x,bind-nonrecursive",
            "type=tmpfs,dst=/x,bind-propagation=shared",
        ] {
            assert_eq!(mount(bad).expect_err(bad).kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn what_is_not_understood_is_shown_without_its_control_characters() {
        let here = Path::new("/");
        for refused in [
            MountSpecification::from_volume_option("data:/d:\u{1b}[31m", here),
            MountSpecification::from_tmpfs_option("/t:\u{1b}[31m"),
            MountSpecification::from_mount_option("\u{1b}[31m", here),
        ] {
            let message = refused.expect_err("refused").to_string();
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }

    #[test]
    fn tmpfs_takes_size_and_mode() {
        let tmpfs = MountSpecification::from_tmpfs_option("/tmp:size=64M,mode=700").expect("good");
        assert_eq!((tmpfs.tmpfs_size_bytes, tmpfs.tmpfs_mode), (Some(64 << 20), Some(0o700)));
        assert!(MountSpecification::from_tmpfs_option("/tmp").is_ok());
        for bad in ["tmp", "/", "/t:size=0", "/t:mode=9", "/t:mode=77777", "/t:x"] {
            assert!(MountSpecification::from_tmpfs_option(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dash_dash_mount_takes_dockers_fields() {
        let bind = mount("type=bind,src=sub,dst=/x,readonly").expect("good");
        assert_eq!(bind.source.as_deref(), Some("/work/dir/sub"));
        assert!(bind.read_only && !bind.create_source);
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1M").expect("good");
        assert_eq!(tmpfs.tmpfs_size_bytes, Some(1 << 20));
        let data = mount("source=data,target=/d").expect("a volume");
        assert_eq!((data.kind, data.source.as_deref()), (MountKind::Volume, Some("data")));
        for bad in [
            "",
            "type=bind,target=/x",
            "type=tmpfs,source=a,target=/x",
            "type=what,target=/x",
            "source=data",
            "source=data,target=/d,tmpfs-size=1M",
            "type=bind,source=/a,target=b",
        ] {
            assert_eq!(mount(bad).expect_err(bad).kind(), ErrorKind::Usage);
        }
    }
}
