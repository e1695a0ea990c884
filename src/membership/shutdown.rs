//! What a pass may still begin after SIGTERM: the record of a call that the cloud has answered, and nothing else. Pure.

use crate::account::session::CallError;
use crate::kubernetes::writer::ApiWriter;
use crate::shutdown::Shutdown;

use super::context::Context;
use super::decide::{Attempt, Step};
use super::observe::Pass;

impl Pass {
    /// Whether the step may begin. When the process ends, only a pass whose Join or Leave was answered goes on: it writes what
    /// follows from the answer (the claim, its removal, the status). Otherwise a membership that the operator has made would
    /// have no record, or the next process would believe a claim that the cloud has just disproved.
    pub(super) fn may_begin(&self, step: Step, shutdown: &Shutdown) -> bool {
        if !shutdown.has_begun() {
            return true;
        }
        if !self.answered {
            return false;
        }
        if shutdown.may_have_successor() {
            return self.may_record_beside_successor(step);
        }
        match step {
            Step::Adopt | Step::DropClaim | Step::Release(_) | Step::Finish(_) => true,
            Step::Read
            | Step::AwaitTurn
            | Step::Intend
            | Step::Confirm
            | Step::Join
            | Step::ListEdge
            | Step::Leave
            | Step::Record
            | Step::HandOver => false,
        }
    }

    /// Another process may act already, and may have made the membership that this one was told of: only what this process itself
    /// made or removed is recorded.
    fn may_record_beside_successor(&self, step: Step) -> bool {
        match step {
            Step::Release(_) => self.observed.attempt == Attempt::Left,
            Step::Finish(_) => {
                matches!(self.observed.attempt, Attempt::Joined | Attempt::Released)
            }
            Step::Adopt
            | Step::DropClaim
            | Step::Read
            | Step::AwaitTurn
            | Step::Intend
            | Step::Confirm
            | Step::Join
            | Step::ListEdge
            | Step::Leave
            | Step::Record
            | Step::HandOver => false,
        }
    }

    /// The writer for this pass: its writes begin after SIGTERM if they record an answered call.
    pub(super) fn writer(&self, context: &Context) -> ApiWriter {
        if self.answered {
            context.writer.for_records()
        } else {
            context.writer.clone()
        }
    }

    /// Keeps in mind whether the Join or Leave was made.
    pub(super) fn note_answer<T>(&mut self, answer: &Result<T, CallError>) {
        self.answered = match answer {
            Ok(_) | Err(CallError::Failed(_)) => true,
            Err(
                CallError::RateLimited { .. } | CallError::NotAnswering(_) | CallError::Stopping,
            ) => false,
        };
    }
}
