//! The table of all settings of `stoplog serve`.

use super::setting::{Kind, Setting};

/// Every setting, by section.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "data.dir",
        kind: Kind::Path,
        default: "",
        doc: "Directory of the log. `--data DIR` sets it; `serve` needs it.",
        reason: "There is no default: a log must not appear where nobody expects it.",
    },
    Setting {
        key: "native.listen",
        kind: Kind::Address,
        default: "127.0.0.1:7600",
        doc: "Address of the native protocol. Port 0 picks a free one. `--listen` sets it.",
        reason: "Loopback, because this version does not authenticate.",
    },
    Setting {
        key: "native.insecure",
        kind: Kind::Switch,
        default: "false",
        doc: "Allows listening beyond loopback without authentication. `--insecure` sets it.",
        reason: "Whoever reaches the port may read, write and delete everything: say so on purpose.",
    },
    Setting {
        key: "kafka.listen",
        kind: Kind::AddressOrOff,
        default: "off",
        doc: "Address of the Kafka protocol. Accepted now, served by a later version.",
        reason: "Off until the listener exists.",
    },
    Setting {
        key: "http.listen",
        kind: Kind::AddressOrOff,
        default: "off",
        doc: "Address of HTTP. Accepted now, served by a later version.",
        reason: "Off until the listener exists.",
    },
    Setting {
        key: "log.level",
        kind: Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        default: "info",
        doc: "Least severe event that is written to stderr.",
        reason: "`info` is a few lines per start and per change, nothing per request.",
    },
    Setting {
        key: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: "text",
        doc: "Form of the events on stderr.",
        reason: "Text for people; JSON, one object a line, for collectors.",
    },
];
