//! `docs/configuration.md`, generated from the tables.

use std::fmt::Write as _;

use super::table::settings;
use crate::types::TopicConfig;

const HEAD: &str = "\
# Configuration

<!-- Generated from src/config/table/. Do not edit: STOPLOG_BLESS=1 cargo test rewrites it. -->

A broker needs no file. Where several places set the same thing, the later one wins:

1. the default,
2. the TOML file of `--config FILE` or `STOPLOG_CONFIG`,
3. the environment variable,
4. the flag, or `--set section.name=value`.

`stoplog config show --origin` prints every value and where it came from; `stoplog config options`
prints this table. A key that is not in the table is an error that names the file and the line; an
unknown variable with our prefix is a warning, because orchestrators inject such names themselves.
Sizes are written `64KiB`, `10MB`; durations `250ms`, `5m`, `7d`.

```toml
[native]
listen = \"127.0.0.1:7600\"

[log]
level = \"info\"
```

## Settings of the broker
";

const TOPICS: &str = "
## Settings of a topic

Given with `stoplog topic create NAME --set key=value` and changed with `stoplog topic alter`; they
live in the broker's catalog, not in the file.

| setting | default | values |
|---|---|---|
";

/// What fits each setting of a topic, in the order of [`TopicConfig::KEYS`].
const TOPIC_VALUES: [&str; 13] = [
    "`fsync`, `interval`, `interval:250ms` or `os`: when an append is visible and, by default, acknowledged",
    "4 KiB to 1 GiB: a segment is rolled before it grows past this",
    "a duration, or `none`: sealed segments older than this are deleted",
    "a size, or `none`: oldest sealed segments are deleted while a *partition* holds more",
    "a size, or `none`: limit of the whole *topic*",
    "a number, or `none`: limit of the whole *topic* in segments; only with `on_full=drop_oldest`",
    "a duration, or `none`: records older than this go like those past retention; only with `on_full=drop_oldest`",
    "`reject`, `drop_oldest`, `throttle` (slows down from 90 % on) or `hold` (grants wait up to 5 s, then refuses): what happens at `max_bytes`",
    "`none`, `all_groups` or `groups(a,b)`: whose unread records no retention deletes, counted from committed offsets, while the group has a member or committed within 7 days; a trim by an operator is not bound",
    "`none` or up to 16 of `email:records=100000,seconds=60,action=reject;fraud:bytes=1GiB`: how far a group may fall behind before producers are held (`action=throttle`, the default) or refused (`reject`)",
    "1 KiB to 8 MiB: largest record batch",
    "`create` (the producer) or `append` (the broker): who writes timestamps",
    "`producer`, `none`, `gzip`, `snappy`, `lz4` or `zstd`: advice to producers; the broker never re-encodes",
];

/// The text of `docs/configuration.md`.
pub fn reference_page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for setting in settings() {
        let own = setting.key.split('.').next().unwrap_or_default();
        if own != section {
            section = own;
            let _ =
                write!(page, "\n### {section}\n\n| setting | default | values |\n|---|---|---|\n");
        }
        let default = if setting.default.is_empty() { "(none)" } else { setting.default };
        let _ = writeln!(
            page,
            "| `{}`<br>`{}` | `{default}` | {}. {} *{}* |",
            setting.key,
            setting.env_name(),
            setting.kind,
            setting.doc,
            setting.reason
        );
    }
    page.push_str(TOPICS);
    let defaults = TopicConfig::default().entries();
    for (key, values) in TopicConfig::KEYS.iter().zip(TOPIC_VALUES) {
        let default = defaults.get(key).map_or("", String::as_str);
        let _ = writeln!(page, "| `{key}` | `{default}` | {values} |");
    }
    page
}
