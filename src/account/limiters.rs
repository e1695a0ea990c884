//! The limiters of the cloud accounts. The cloud limits the calls of a cloud account, whichever key signs them and whichever
//! account object names it: a limiter outlives keys, Secrets and edits of an account, and is shared by all its objects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::clock::Clock;
use crate::ecs::limit::CallLimiter;
use crate::ecs::{AccountUid, Endpoints};

/// One limiter per cloud account and endpoints. It goes with the last session that uses it.
#[derive(Debug, Default)]
pub struct Limiters(Mutex<HashMap<(AccountUid, Endpoints), Weak<CallLimiter>>>);

impl Limiters {
    /// The limiter for the calls of a cloud account at these endpoints.
    #[must_use]
    pub fn of(&self, uid: &AccountUid, endpoints: &Endpoints, clock: &Clock) -> Arc<CallLimiter> {
        let mut limiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (uid.clone(), endpoints.clone());
        if let Some(limiter) = limiters.get(&key).and_then(Weak::upgrade) {
            return limiter;
        }
        limiters.retain(|_, limiter| limiter.strong_count() > 0);
        let limiter = Arc::new(CallLimiter::new(clock.clone()));
        limiters.insert(key, Arc::downgrade(&limiter));
        limiter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_account_has_one_limiter_while_it_is_used() {
        let limiters = Limiters::default();
        let of = |uid: &str, endpoint| {
            let endpoints = Endpoints::parse(endpoint, None, false).unwrap();
            limiters.of(&uid.into(), &endpoints, &Clock::system())
        };
        let first = of("1", None);
        assert!(Arc::ptr_eq(&first, &of("1", None)));
        assert!(!Arc::ptr_eq(&first, &of("2", None)));
        assert!(!Arc::ptr_eq(
            &first,
            &of("1", Some("https://ecs.example.com"))
        ));
        assert_eq!(
            limiters.0.lock().unwrap().len(),
            2,
            "unused limiters are dropped"
        );
    }
}
