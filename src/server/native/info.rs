//! Producer identities, the pressure report, the broker itself.

use std::sync::Arc;

use super::error::ToAnswer;
use super::link::Link;
use crate::broker::ProducerIdentity;
use crate::protocol::native::{ErrorAnswer, cluster_info, pressure, producer_init, why};
use crate::types::{Entity, EntityKind, ErrorCode};

pub(super) async fn init_producer(
    link: Arc<Link>,
    request: producer_init::Request,
) -> Result<producer_init::Response, ErrorAnswer> {
    let known = request.previous.map(|p| ProducerIdentity { id: p.id, epoch: p.epoch });
    let given = link.broker().init_producer(known).await.map_err(|error| error.to_answer())?;
    let producer = producer_init::Producer { id: given.id, epoch: given.epoch };
    Ok(producer_init::Response { producer })
}

pub(super) async fn pressure(
    link: Arc<Link>,
    request: pressure::Request,
) -> Result<pressure::Response, ErrorAnswer> {
    Ok(pressure::Response { report: link.broker().pressure_of(request.into()) })
}

pub(super) async fn why(
    link: Arc<Link>,
    request: why::Request,
) -> Result<why::Response, ErrorAnswer> {
    let target = Entity::new(request.kind, request.name);
    match link.broker().why(&target).await {
        Some(report) => Ok(why::Response { report }),
        None => Err(nobody_knows(&target)),
    }
}

fn nobody_knows(target: &Entity) -> ErrorAnswer {
    let code = match target.kind {
        EntityKind::Topic => ErrorCode::TopicNotFound,
        EntityKind::Group => ErrorCode::GroupNotFound,
        _ => ErrorCode::InvalidRequest,
    };
    ErrorAnswer::new(code, format!("no {target} is known to the broker now"))
}

pub(super) async fn cluster_info(
    link: Arc<Link>,
    _request: cluster_info::Request,
) -> Result<cluster_info::Response, ErrorAnswer> {
    Ok(cluster_info::Response { info: link.broker().cluster_info() })
}
