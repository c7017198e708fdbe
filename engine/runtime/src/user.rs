//! The user of a container's process: a name is looked up in the container's own `/etc/passwd` and
//! `/etc/group`, never in the host's.

use thinstore_storage::{Error, ErrorKind, Result};

/// Whom a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
    /// The other groups that it is in.
    pub more_groups: Vec<u32>,
}

/// Takes `user`, `user:group`, each a name or a number; empty is root. `passwd` and `group` are the text
/// of the container's files, empty where it has none.
pub fn resolve_user(text: &str, passwd: &str, group: &str) -> Result<User> {
    let (user, asked_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let unknown = |what: &str, name: &str, file: &str| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no {what} '{}' in the container's {file}", name.escape_debug()),
        )
    };
    let is_named = |fields: &[&str]| match fields {
        [name, _, uid, ..] => *name == user || *uid == user,
        _ => false,
    };
    let number = |fields: &[&str], at: usize| fields.get(at).and_then(|id| id.parse::<u32>().ok());
    let entry = entries(passwd).find(|fields| is_named(fields));
    let (name, uid, own_group) = match (&entry, user.parse::<u32>()) {
        (_, _) if user.is_empty() => ("root", 0, Some(0)),
        (Some(fields), _) => {
            let uid = number(fields, 2).ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            (fields.first().copied().unwrap_or_default(), uid, number(fields, 3))
        }
        (None, Ok(uid)) => ("", uid, None),
        (None, Err(_)) => return Err(unknown("user", user, "/etc/passwd")),
    };
    let gid = match asked_group {
        None => own_group.unwrap_or(0),
        Some(asked) => {
            let is_asked = |fields: &Vec<&str>| fields.first() == Some(&asked);
            let found = entries(group).find(is_asked).and_then(|fields| number(&fields, 2));
            found
                .or_else(|| asked.parse().ok())
                .ok_or_else(|| unknown("group", asked, "/etc/group"))?
        }
    };
    // Whoever names a group wants that and no other, as with Docker.
    let more_groups = if asked_group.is_some() || name.is_empty() {
        Vec::new()
    } else {
        let is_in = |fields: &Vec<&str>| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
        };
        let groups = entries(group).filter(is_in).filter_map(|fields| number(&fields, 2));
        groups.filter(|group| *group != gid).collect()
    };
    Ok(User { uid, gid, more_groups })
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:w:/:/bin/sh\nbroken\nbad:x:y:z::\n";
    const GROUP: &str = "root:x:0:\nwww:x:44:\ndisk:x:6:web,root\naudio:x:29:web\n";

    fn user(uid: u32, gid: u32, more_groups: &[u32]) -> User {
        User { uid, gid, more_groups: more_groups.to_vec() }
    }

    #[test]
    fn names_and_numbers_are_looked_up_in_the_container() {
        for (text, expected) in [
            ("", user(0, 0, &[6])),
            ("root", user(0, 0, &[6])),
            ("web", user(33, 44, &[6, 29])),
            ("33", user(33, 44, &[6, 29])),
            ("web:disk", user(33, 6, &[])),
            ("web:77", user(33, 77, &[])),
            ("5000", user(5000, 0, &[])),
            ("5000:5001", user(5000, 5001, &[])),
        ] {
            assert_eq!(resolve_user(text, PASSWD, GROUP).unwrap(), expected, "{text}");
        }
        assert_eq!(resolve_user("7:8", "", "").unwrap(), user(7, 8, &[]));
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (text, named) in
            [("nobody", "'nobody'"), ("web:nogroup", "'nogroup'"), ("bad", "'bad'"), ("-1", "'-1'")]
        {
            let error = resolve_user(text, PASSWD, GROUP).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
