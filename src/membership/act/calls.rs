//! `JoinSecurityGroup` and `LeaveSecurityGroup`.

use crate::account::session::CallError;
use crate::ecs::{Action, Class, Error, RequestId};

use super::super::context::Context;
use super::super::decide::{Attempt, ClaimView, TargetView};
use super::super::ledger::{EdgeCall, Effect};
use super::super::observe::Pass;

impl Pass {
    /// Calls `JoinSecurityGroup`.
    pub async fn join(&mut self, context: &Context) {
        let Some((account, permit)) = self.account.clone().zip(self.permit.take()) else {
            return;
        };
        let uid = self.uid();
        let claim = self.observed.claim;
        let (table, edge) = (&context.table, self.edge.clone());
        let begun = table.call_began(&uid, &account.uid, &edge, EdgeCall::Join);
        let answer = account.join(&edge, permit).await;
        self.note_answer(&answer);
        let effect = match effect_of(&answer) {
            // Under a claim that is void or tells of others' membership, another actor made the one that is found.
            Effect::Done if answer.is_err() && (claim.is_void() || claim == ClaimView::Adopted) => {
                Effect::None
            }
            effect => effect,
        };
        table.call_ended(&uid, &account.uid, &edge, begun, effect);
        self.observed.admitted = false;
        self.observed.attempt = match answer {
            Ok(_) => Attempt::Joined,
            Err(CallError::Failed(error)) if error.class() == Class::Done => Attempt::AlreadyMember,
            Err(error) => Attempt::Failed {
                class: self.note(Action::JoinSecurityGroup, error),
                forbidden: false,
                unknown: effect == Effect::Unknown,
            },
        };
        self.renew_claim(context);
    }

    /// Calls `LeaveSecurityGroup`.
    pub async fn leave(&mut self, context: &Context) {
        let Some((account, permit)) = self.account.clone().zip(self.permit.take()) else {
            return;
        };
        let uid = self.uid();
        let (table, edge) = (&context.table, self.edge.clone());
        let begun = table.call_began(&uid, &account.uid, &edge, EdgeCall::Leave);
        let answer = account.leave(&edge, permit).await;
        self.note_answer(&answer);
        let effect = effect_of(&answer);
        table.call_ended(&uid, &account.uid, &edge, begun, effect);
        self.observed.admitted = false;
        self.observed.attempt = match answer {
            Ok(_) => {
                self.removed = true;
                Attempt::Left
            }
            Err(CallError::Failed(error)) if error.class() == Class::Done => Attempt::Left,
            Err(error) => {
                let forbidden =
                    matches!(&error, CallError::Failed(Error::Api(api)) if api.status == 403);
                if forbidden {
                    self.observed.target = TargetView::Unread;
                }
                Attempt::Failed {
                    class: self.note(Action::LeaveSecurityGroup, error),
                    forbidden,
                    unknown: effect == Effect::Unknown,
                }
            }
        };
        self.renew_claim(context);
    }
}

/// What the answer of a Join or Leave tells of its effect.
fn effect_of(answer: &Result<RequestId, CallError>) -> Effect {
    match answer {
        Ok(_) => Effect::Done,
        Err(CallError::Failed(error)) if error.class() == Class::Done => Effect::Done,
        Err(error) if error.is_without_effect() => Effect::None,
        Err(_) => Effect::Unknown,
    }
}
