//! `demo` as a newcomer runs it: what happens is told in order, and the books are equal at the end.

use super::broker::run;

/// Asserts that each of these is told after the one before.
#[track_caller]
fn assert_told(told: &str, wanted: &[&str]) {
    let mut rest = told;
    for words in wanted {
        let at = rest.find(words);
        let at = at.unwrap_or_else(|| panic!("{words:?} does not follow in\n{told}"));
        rest = &rest[at + words.len()..];
    }
}

#[test]
fn every_part_pushes_back_and_clears_and_nothing_acknowledged_is_lost() {
    let ran = run(&["demo", "--pressure"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.err, ran.out);
    assert_told(
        &ran.err,
        &[
            "1. a slow subscriber: email",
            "shop waits: BACKLOG_LIMIT by backlog:email, ",
            "nothing was written",
            "email was repaired",
            "BACKLOG_LIMIT is over",
            "2. a quota: client shop",
            "shop waits: THROTTLED_RATE by quota:client/shop, ",
            "nothing was written",
            "and was refused 0 times",
            "THROTTLED_RATE is over",
            "3. a small disk: clicks",
            "tracker waits: DISK_",
            "nothing was written",
            "clicks expired, their space is back",
            "DISK is over",
            "email has everything",
        ],
    );
    let verdict = [
        "CLIENT",
        "shop     BACKLOG_LIMIT   backlog:email      hold      none",
        "shop     THROTTLED_RATE  quota:client/shop  hold      none",
        "tracker  DISK_",
        "INPUT          LOG        email",
        "Every order that was acknowledged is in the log and reached email, once and in order; every \
         refusal was typed, without effects, and ended by itself.",
    ];
    assert_told(&ran.out, &verdict);
}

#[test]
fn four_subscribers_have_what_was_published_although_a_subscriber_and_the_broker_were_killed() {
    let ran = run(&["demo", "--events", "3000", "--crash", "--json"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.err, ran.out);
    assert_told(
        &ran.err,
        &[
            "topic orders: 8 partitions",
            "killed email (SIGKILL)",
            "pressure nobody is limited",
            "restarted email",
            "killed the broker (SIGKILL)",
            "restarted the broker",
            "added loyalty",
            "every group has committed everything",
        ],
    );
    let verdict: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON value");
    assert_eq!(verdict["ok"], true, "{verdict}");
    for who in ["LOG", "email", "inventory", "analytics", "loyalty"] {
        assert_eq!(verdict["columns"][who]["events"], 3_000, "{who}: {verdict}");
    }
}
