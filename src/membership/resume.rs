//! A Join or Leave is decided again at the moment at which it is sent: what was decided before the wait for its place may hold no more.

use super::act::ActError;
use super::context::Context;
use super::decide::{Attempt, Step, decide};
use super::observe::Pass;

impl Pass {
    /// Waits until the Join or Leave may be sent, sees what memory knows by then, and asks [`decide`] again. Returns whether
    /// it is still to be sent.
    ///
    /// # Errors
    /// The object has changed meanwhile: another pass goes by its spec of now.
    pub async fn is_still(&mut self, step: Step, context: &Context) -> Result<bool, ActError> {
        let account = self.account.clone();
        if self.permit.is_none()
            && let Some((account, reservation)) = account.zip(self.reservation.take())
        {
            let action = reservation.action();
            match account.permit(&self.edge.region, reservation).await {
                Ok(permit) => self.permit = Some(permit),
                Err(error) => {
                    self.note_answer::<()>(&Err(error.clone()));
                    self.observed.admitted = false;
                    self.observed.attempt = Attempt::Failed {
                        class: self.note(action, error),
                        forbidden: false,
                        unknown: false,
                    };
                    return Ok(false);
                }
            }
        }
        self.renew(context)?;
        Ok(decide(&self.desired, &self.observed) == step)
    }

    /// Sees what memory knows by now of the object, its account and the other objects on the edge.
    fn renew(&mut self, context: &Context) -> Result<(), ActError> {
        let uid = self.uid();
        match context.table.desired(&uid) {
            None => return Err(ActError::ObjectGone),
            Some(desired) if desired != self.desired => return Err(ActError::Changed),
            Some(_) => {}
        }
        // A user who takes our finalizer off an object that is being deleted keeps the membership.
        self.observed.finalizer = context.table.has_finalizer(&uid);
        // Nor is a membership repaired that its deletion would leave behind.
        self.observed.confirmed &= self.observed.finalizer;
        self.renew_claim(context);
        self.renew_access(context)?;
        self.renew_others(context);
        self.renew_view(context);
        Ok(())
    }
}
