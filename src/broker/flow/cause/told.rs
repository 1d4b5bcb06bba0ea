//! From a refusal to the cause it tells of.

use super::{Cause, CauseId, Names};
use crate::types::{Pushback, PushbackCode};

impl Names {
    /// The cause that a refusal names. Takes a lock when the cause has a name: on refusals only.
    pub fn told(&self, told: &Pushback) -> CauseId {
        let (kind, name) = match told.limit_id.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (told.limit_id.as_str(), None),
        };
        let named = |cause: Cause| name.map_or(cause.into(), |name| self.id(cause, name));
        if kind == "quota" {
            return named(Cause::Quota);
        }
        match told.code {
            PushbackCode::ThrottledRate | PushbackCode::MetadataRate => Cause::Quota.into(),
            PushbackCode::ServerBusy => match kind {
                "partition" => Cause::Partition.into(),
                "connection" | "connection/partition" => Cause::Connection.into(),
                "writer" => named(Cause::Window),
                _ => Cause::Pool.into(),
            },
            PushbackCode::DiskLow if name == Some("high") => Cause::DiskHigh.into(),
            PushbackCode::DiskLow => Cause::DiskLow.into(),
            PushbackCode::DiskFull => Cause::DiskFull.into(),
            PushbackCode::TopicFull => Cause::TopicFull.into(),
            PushbackCode::BacklogLimit => named(Cause::Backlog),
            PushbackCode::DeadlineUnmeetable => Cause::Window.into(),
            PushbackCode::CreditViolation => Cause::Grant.into(),
            PushbackCode::ConnLimit => Cause::Connection.into(),
            PushbackCode::Draining => Cause::Draining.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PushbackScope;

    #[test]
    fn a_refusal_names_its_cause() {
        let names = Names::default();
        let told = |code, id: &str| {
            names.text(names.told(&Pushback::hold(code, PushbackScope::Broker, id)))
        };
        assert_eq!(told(PushbackCode::ThrottledRate, "quota:client/shop"), "quota:client/shop");
        assert_eq!(told(PushbackCode::TopicFull, "quota:topic/o*"), "quota:topic/o*");
        assert_eq!(told(PushbackCode::TopicFull, "topic"), "topic_full");
        assert_eq!(told(PushbackCode::BacklogLimit, "backlog:email"), "backlog:email");
        assert_eq!(told(PushbackCode::ServerBusy, "partition"), "partition");
        assert_eq!(told(PushbackCode::ServerBusy, "pool"), "pool");
        assert_eq!(told(PushbackCode::ServerBusy, "writer:1"), "window:1");
        assert_eq!(told(PushbackCode::DiskLow, "disk:high"), "disk_high");
        assert_eq!(told(PushbackCode::DiskFull, "disk:full"), "disk_full");
    }

    #[test]
    fn every_code_has_a_cause() {
        let names = Names::default();
        for code in PushbackCode::ALL {
            let told = Pushback::hold(code, PushbackScope::Broker, "");
            assert_ne!(names.told(&told), CauseId::NONE, "{code:?}");
        }
    }
}
