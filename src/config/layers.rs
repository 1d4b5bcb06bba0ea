//! The layers and their order: default < file < environment < flag. Later ones win, within one
//! layer the last one wins, and each value remembers where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::{FileEntry, parse_file};
use super::setting::{Kind, Rooms, Setting, Value};
use super::table::settings;

/// Variables of this prefix that are not settings of the broker.
const ENV_RESERVED: [&str; 5] =
    ["STOPLOG_SERVER", "STOPLOG_CONFIG", "STOPLOG_BLESS", "STOPLOG_DATA", "STOPLOG_COMMIT"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag, by its name.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) => write!(f, "env {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Why the settings were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not TOML, or holds something that cannot be a setting.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// No setting has this name.
    #[error("{origin}: no setting is called {key:?}{}", near(key))]
    UnknownKey {
        /// The name that was given.
        key: String,
        /// Where.
        origin: Origin,
    },
    /// The value does not fit.
    #[error("{origin}: {key} = {value:?}: {reason}")]
    Value {
        /// The setting.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// Where.
        origin: Origin,
        /// What would fit.
        reason: String,
    },
    /// `--set` without `=`.
    #[error("--set {text:?}: write KEY=VALUE")]
    NotAPair {
        /// What was given.
        text: String,
    },
}

fn near(key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let close = |setting: &&Setting| {
        setting.key.ends_with(&format!(".{last}")) || setting.key.starts_with(&format!("{key}."))
    };
    let names: Vec<&str> = settings().filter(close).map(|s| s.key).collect();
    match names.as_slice() {
        [] => "; stoplog config options lists all".to_owned(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Text that fits the setting.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// All settings, resolved: every key of the table has a value that fits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<&'static str, Resolved>,
    /// Variables with our prefix that are no setting: worth a warning, not an error, because
    /// orchestrators inject such names (`STOPLOG_SERVICE_HOST`) on their own.
    pub unknown_env: Vec<String>,
}

impl Config {
    /// The defaults alone.
    pub fn defaults() -> Config {
        let value = |s: &Setting| Resolved { value: s.default.to_owned(), origin: Origin::Default };
        let values = settings().map(|s| (s.key, value(s))).collect();
        Config { values, unknown_env: Vec::new() }
    }

    /// Lays a file's `text` over what is there.
    pub fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        for FileEntry { key, value, line } in parse_file(path, text)? {
            self.apply(&key, value, Origin::File { path: path.to_owned(), line })?;
        }
        Ok(())
    }

    /// Lays the environment over what is there.
    pub fn apply_env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables.into_iter().filter(|(n, _)| n.starts_with("STOPLOG_")) {
            if let Some(setting) = settings().find(|s| s.env_name() == name) {
                self.apply(setting.key, value, Origin::Env(name))?;
            } else if !ENV_RESERVED.contains(&name.as_str()) {
                self.unknown_env.push(name);
            }
        }
        Ok(())
    }

    /// Lays `--set KEY=VALUE` flags over what is there.
    pub fn apply_sets(&mut self, sets: &[String]) -> Result<(), ConfigError> {
        for text in sets {
            let (key, value) =
                text.split_once('=').ok_or(ConfigError::NotAPair { text: text.clone() })?;
            self.apply(key.trim(), value.trim().to_owned(), Origin::Flag("--set"))?;
        }
        Ok(())
    }

    /// Lays the value of a flag of its own over what is there.
    pub fn apply_flag(
        &mut self,
        flag: &'static str,
        key: &'static str,
        value: String,
    ) -> Result<(), ConfigError> {
        self.apply(key, value, Origin::Flag(flag))
    }

    fn apply(&mut self, key: &str, value: String, origin: Origin) -> Result<(), ConfigError> {
        let Some(setting) = settings().find(|s| s.key == key) else {
            return Err(ConfigError::UnknownKey { key: key.to_owned(), origin });
        };
        if let Err(reason) = setting.check(&value) {
            return Err(ConfigError::Value { key: setting.key, value, origin, reason });
        }
        self.values.insert(setting.key, Resolved { value, origin });
        Ok(())
    }

    /// Every setting in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = (&'static Setting, &Resolved)> {
        settings().map(|setting| (setting, self.resolved(setting.key)))
    }

    /// The value of `key` and its origin. A key that is not in the table is a defect.
    pub fn resolved(&self, key: &str) -> &Resolved {
        match self.values.get(key) {
            Some(resolved) => resolved,
            None => panic!("no setting is called {key}"),
        }
    }

    /// A value as text.
    pub fn text(&self, key: &str) -> &str {
        &self.resolved(key).value
    }

    /// The options of every room, from the values.
    pub fn rooms(&self) -> Rooms {
        let mut rooms = Rooms::default();
        for (setting, resolved) in self.entries() {
            (setting.apply)(&mut rooms, Value(&resolved.value));
        }
        rooms
    }
}

/// A setting's value as JSON: numbers and switches as such, everything else as text.
impl Setting {
    /// The JSON form of `text`, which fits the setting.
    pub fn json(&self, text: &str) -> serde_json::Value {
        match self.kind {
            Kind::Switch => serde_json::Value::Bool(text == "true"),
            Kind::Count { .. } => text.parse::<u64>().map_or_else(|_| text.into(), Into::into),
            _ => text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fit_and_keys_are_unique() {
        for (at, setting) in settings().enumerate() {
            assert_eq!(setting.check(setting.default), Ok(()), "{}", setting.key);
            assert!(settings().skip(at + 1).all(|s| s.key != setting.key), "{}", setting.key);
            assert!(!ENV_RESERVED.contains(&setting.env_name().as_str()), "{}", setting.key);
            assert!(setting.doc.ends_with('.') && setting.reason.ends_with('.'), "{}", setting.key);
        }
    }

    #[test]
    fn defaults_of_the_table_are_the_rooms_own() {
        let mut rooms = Config::defaults().rooms();
        let own = Rooms::default();
        rooms.broker.data_dir.clone_from(&own.broker.data_dir);
        assert_eq!(rooms, own);
    }

    #[test]
    fn every_setting_reaches_its_room() {
        let untouched = ["kafka.listen", "http.listen", "log.level", "log.format"];
        for setting in settings().filter(|s| !untouched.contains(&s.key)) {
            let other = match setting.kind {
                Kind::Switch => (setting.default != "true").to_string(),
                Kind::Choice(words) => words[words.len() - 1].to_owned(),
                Kind::Path => "/elsewhere".to_owned(),
                Kind::Address | Kind::AddressOrOff => "127.0.0.1:1".to_owned(),
                Kind::Bytes { max, .. } | Kind::BytesOrAuto { max, .. } => max.to_string(),
                Kind::Duration { max_ms, .. } | Kind::DurationOrAuto { max_ms, .. } => {
                    max_ms.to_string()
                }
                Kind::Count { max, .. } => max.to_string(),
            };
            let mut config = Config::defaults();
            config.apply_sets(&[format!("{}={other}", setting.key)]).expect(setting.key);
            assert_ne!(config.rooms(), Config::defaults().rooms(), "{}", setting.key);
        }
    }

    #[test]
    fn later_layers_win_and_say_so() {
        let mut config = Config::defaults();
        let path = Path::new("/etc/stoplog.toml");
        let text =
            "[log]\nlevel = \"warn\"\nformat = \"json\"\n[native]\nlisten = \"127.0.0.1:1\"\n";
        config.apply_file(path, text).expect("file");
        let env = [("STOPLOG_LOG_LEVEL", "debug"), ("STOPLOG_NATIVE_LISTEN", "127.0.0.1:2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()));
        config.apply_env(env).expect("env");
        config.apply_sets(&["native.listen=127.0.0.1:3".to_owned()]).expect("set");
        assert_eq!(config.text("native.listen"), "127.0.0.1:3");
        assert_eq!(config.resolved("native.listen").origin, Origin::Flag("--set"));
        assert_eq!(config.resolved("log.level").origin.to_string(), "env STOPLOG_LOG_LEVEL");
        assert_eq!(config.resolved("log.format").origin.to_string(), "/etc/stoplog.toml:3");
        assert_eq!(config.resolved("kafka.listen").origin, Origin::Default);
    }

    #[test]
    fn unknown_keys_are_errors_with_their_line() {
        let mut config = Config::defaults();
        let error = config.apply_file(Path::new("s.toml"), "\n[native]\nlissen = \"x\"\n");
        let text = error.expect_err("unknown").to_string();
        assert_eq!(
            text,
            "s.toml:3: no setting is called \"native.lissen\"; stoplog config options lists all"
        );
        let error = config.apply_sets(&["listen=127.0.0.1:1".to_owned()]).expect_err("unknown");
        assert!(error.to_string().contains("did you mean native.listen"), "{error}");
        assert!(config.apply_sets(&["native.listen".to_owned()]).is_err());
    }

    #[test]
    fn values_that_do_not_fit_are_errors() {
        let mut config = Config::defaults();
        for bad in [
            "native.listen=7600",
            "native.listen=off",
            "native.insecure=yes",
            "log.level=loud",
            "http.listen=127.0.0.1:99999",
        ] {
            assert!(config.apply_sets(&[bad.to_owned()]).is_err(), "{bad}");
        }
        for good in ["kafka.listen=off", "http.listen=127.0.0.1:0", "native.listen=[::1]:0"] {
            assert_eq!(config.apply_sets(&[good.to_owned()]), Ok(()), "{good}");
        }
    }

    #[test]
    fn strange_variables_are_kept_for_a_warning() {
        let mut config = Config::defaults();
        let env = ["STOPLOG_SERVICE_HOST", "STOPLOG_SERVER", "PATH"]
            .map(|name| (name.to_owned(), "x".to_owned()));
        config.apply_env(env).expect("env");
        assert_eq!(config.unknown_env, ["STOPLOG_SERVICE_HOST"]);
    }
}
