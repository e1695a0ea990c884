//! What becomes of one membership: the operator's own decision, asked with what is known. Pure.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::{SecurityGroupMembership, reason};
use crate::ecs::Edge;
use crate::membership::forecast::{Known, forecast};

use super::super::cloud::account_of;
use super::super::failure::{Failure, exit};
use super::apply::Applied;
use super::row::{Planned, forecasted};
use super::surroundings::Surroundings;

/// Forecasts one object, and takes what it does as done for the next ones.
pub(super) fn plan(
    applied: Applied<SecurityGroupMembership>,
    surroundings: &mut Surroundings,
    now: Timestamp,
) -> Planned {
    let Applied {
        namespace,
        name,
        result,
    } = applied;
    let of = (namespace.as_str(), name.as_str());
    let (change, object) = match result {
        Ok((change, object)) => (change.name(), object),
        Err(failure) => {
            let refused = Planned::unknown(of, "refused", "<none>", failure);
            return Planned {
                calls: "none".to_owned(),
                ..refused
            };
        }
    };
    foresee(change, object, surroundings, now)
}

/// Forecasts one object that is stored so, and takes what it does as done for the next ones.
pub(super) fn foresee(
    change: &'static str,
    object: SecurityGroupMembership,
    surroundings: &mut Surroundings,
    now: Timestamp,
) -> Planned {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let of = (namespace.as_str(), name.as_str());
    let edge = match Edge::try_from(&object.spec) {
        Ok(edge) => edge,
        Err(error) => {
            let failure = Failure::with(exit::NO, error.to_string());
            return Planned::unknown(of, change, reason::INVALID_SPEC, failure);
        }
    };
    let target = match surroundings.target(&object, &edge) {
        Ok(target) => target,
        Err(Failure { code, message }) => {
            let failure = Failure::with(code, format!("the target cannot be read: {message}"));
            return Planned::unknown(of, change, "<none>", failure);
        }
    };
    let others = surroundings.others(&object, &edge);
    let known = Known {
        account: surroundings.account(&account_of(&object)),
        labels: surroundings.labels(&namespace),
        target: target.as_ref(),
        others: &others,
    };
    let found = forecast(&object, &edge, &known, now);
    let planned = forecasted(namespace, name, change, &found);
    surroundings.done(object, &edge, found);
    planned
}
