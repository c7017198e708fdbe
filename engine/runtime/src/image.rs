//! What an image says of the process that is to be run.

use serde::Deserialize;
use serde_json::Value;

/// The `config` of an OCI image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The user, as a name or a number, and a group after a colon.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// What stands before the command.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// The command if none is given.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
}

/// Many images have `null` where they say nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// Takes what is there of it; what is of the wrong kind is as if it were missing.
    pub fn from_value(value: &Value) -> ImageConfig {
        serde_json::from_value(value.clone()).unwrap_or_default()
    }

    /// The command line: what was asked for instead of the image's command, after its entry point. None if
    /// there is nothing to run.
    pub fn command_line(&self, asked: &[String], entrypoint: Option<&str>) -> Option<Vec<String>> {
        let before = match entrypoint {
            Some("") => Vec::new(),
            Some(program) => vec![program.to_owned()],
            None => self.entrypoint.clone(),
        };
        // An entry point of one's own comes without the image's command, as with Docker.
        let rest = match asked {
            [] if entrypoint.is_some() => &[],
            [] => self.cmd.as_slice(),
            asked => asked,
        };
        let line: Vec<String> = before.into_iter().chain(rest.iter().cloned()).collect();
        (!line.is_empty()).then_some(line)
    }

    /// The environment: a search path, the image's, and what was asked for; the last of a name counts.
    pub fn environment(&self, asked: &[String], hostname: &str, terminal: bool) -> Vec<String> {
        const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut all = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
        all.extend(terminal.then(|| "TERM=xterm".to_owned()));
        all.extend(self.env.iter().chain(asked).cloned());
        let name = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
        let mut environment: Vec<String> = Vec::new();
        for entry in all {
            environment.retain(|other| name(other) != name(&entry));
            environment.push(entry);
        }
        environment
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_lines_are_put_together_as_docker_does() {
        let config = ImageConfig {
            entrypoint: words("/entry -x"),
            cmd: words("serve"),
            ..ImageConfig::default()
        };
        assert_eq!(config.command_line(&[], None), Some(words("/entry -x serve")));
        assert_eq!(config.command_line(&words("a b"), None), Some(words("/entry -x a b")));
        assert_eq!(config.command_line(&[], Some("/sh")), Some(words("/sh")));
        assert_eq!(config.command_line(&words("a"), Some("")), Some(words("a")));
        assert_eq!(ImageConfig::default().command_line(&[], None), None);
    }

    #[test]
    fn of_two_variables_of_a_name_the_last_counts() {
        let config = ImageConfig { env: words("PATH=/bin A=1"), ..ImageConfig::default() };
        let found = config.environment(&words("A=2 B="), "host", false);
        assert_eq!(found, words("HOSTNAME=host PATH=/bin A=2 B="));
    }

    #[test]
    fn a_configuration_with_nulls_or_nonsense_is_an_empty_one() {
        let value = json!({"Cmd": null, "Env": ["A=1"], "User": null, "Labels": {}});
        let config = ImageConfig::from_value(&value);
        assert_eq!((config.cmd.len(), config.env), (0, words("A=1")));
        assert_eq!(ImageConfig::from_value(&json!({"Cmd": 7})), ImageConfig::default());
        assert_eq!(ImageConfig::from_value(&Value::Null), ImageConfig::default());
    }
}
