//! Deadlines of members: when one that is silent is expelled, and when one that does not give up
//! its partitions is. Soft state: a new process gives everybody a full session.
//!
//! # Invariants
//! Every session has exactly one timer, at the earlier of its deadlines. Sessions outlive their
//! members until they fire, so that a round whose records were not stored needs no undo.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::state::Groups;
use crate::types::GroupId;

/// Group and member id.
pub(super) type Key = (GroupId, Arc<str>);

/// All deadlines, in monotonic time.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<Key, Session>,
    timers: BTreeSet<(Duration, Key)>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    silent_until: Duration,
    revoke_by: Option<Duration>,
}

impl Session {
    fn deadline(&self) -> Duration {
        self.revoke_by.map_or(self.silent_until, |by| by.min(self.silent_until))
    }
}

impl Sessions {
    /// A full session for every member that has none: after a start.
    pub fn adopt(groups: &Groups, now: Duration, session_timeout: Duration) -> Sessions {
        let mut sessions = Sessions::default();
        for (group, state) in groups.iter() {
            for member in state.roster().members.keys() {
                sessions.set(
                    (group.clone(), member.clone()),
                    Session { silent_until: now + session_timeout, revoke_by: None },
                );
            }
        }
        sessions
    }

    /// When `Round::expire` has something to do next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// The member spoke.
    pub(super) fn touch(&mut self, key: Key, silent_until: Duration) {
        let revoke_by = self.sessions.get(&key).and_then(|session| session.revoke_by);
        self.set(key, Session { silent_until, revoke_by });
    }

    /// The member has to give something up: by then, unless a deadline runs already.
    pub(super) fn must_revoke(&mut self, key: &Key, by: Duration) {
        if let Some(session) = self.sessions.get(key).copied()
            && session.revoke_by.is_none()
        {
            self.set(key.clone(), Session { revoke_by: Some(by), ..session });
        }
    }

    /// The member has nothing to give up.
    pub(super) fn has_revoked(&mut self, key: &Key) {
        if let Some(session) = self.sessions.get(key).copied()
            && session.revoke_by.is_some()
        {
            self.set(key.clone(), Session { revoke_by: None, ..session });
        }
    }

    /// Sessions whose deadline has come. Each fires again at `again` unless it was dropped.
    pub(super) fn due(&mut self, now: Duration, again: Duration) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some((deadline, key)) = self.timers.first().cloned()
            && deadline <= now
        {
            self.set(key.clone(), Session { silent_until: again, revoke_by: None });
            due.push(key);
        }
        due
    }

    /// The member is gone.
    pub(super) fn drop_session(&mut self, key: &Key) {
        if let Some(old) = self.sessions.remove(key) {
            self.timers.remove(&(old.deadline(), key.clone()));
        }
    }

    fn set(&mut self, key: Key, session: Session) {
        if let Some(old) = self.sessions.insert(key.clone(), session) {
            self.timers.remove(&(old.deadline(), key.clone()));
        }
        self.timers.insert((session.deadline(), key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(member: &str) -> Key {
        ("g".parse().expect("valid"), Arc::from(member))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_earlier_deadline_fires_once_and_then_again_later() {
        let mut sessions = Sessions::default();
        sessions.touch(key("a"), at(10));
        sessions.must_revoke(&key("a"), at(4));
        sessions.must_revoke(&key("a"), at(9));
        assert_eq!(sessions.next_deadline(), Some(at(4)));
        assert!(sessions.due(at(3), at(20)).is_empty());
        assert_eq!(sessions.due(at(4), at(20)), [key("a")]);
        assert_eq!(sessions.next_deadline(), Some(at(20)));
        sessions.drop_session(&key("a"));
        assert_eq!(sessions.next_deadline(), None);
    }

    #[test]
    fn speaking_and_revoking_move_the_deadline() {
        let mut sessions = Sessions::default();
        sessions.touch(key("a"), at(10));
        sessions.must_revoke(&key("a"), at(4));
        sessions.touch(key("a"), at(12));
        assert_eq!(sessions.next_deadline(), Some(at(4)));
        sessions.has_revoked(&key("a"));
        assert_eq!(sessions.next_deadline(), Some(at(12)));
    }
}
