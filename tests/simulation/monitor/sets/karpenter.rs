//! J7: no instance of Karpenter is joined for a membership that refuses it.

use serde_json::Value;
use tokio::time::Instant;

use super::selector;
use super::view::{Answer, Place, View};
use super::{Finding, Judge};
use crate::monitor::{MEMBERSHIPS, Monitor, condition, target_of};

impl Judge {
    /// An operator has sent a Join. It goes by what the cloud has said of the tags, and by what was stored, some time before.
    fn check_join(&self, view: &View, target: &str, group: &str) -> Option<Finding> {
        let is_karpenters = |answer: &Answer| {
            let tags = answer.shown.get(target)?;
            Some(selector::is_karpenters(tags))
        };
        let last = view.answers.iter().rev().find_map(is_karpenters);
        let mut recent = view.answers_within(self.tags_age).filter_map(is_karpenters);
        if last != Some(true) || recent.any(|is_karpenters| !is_karpenters) {
            return None;
        }
        let since = Instant::now() - self.tags_age - self.late;
        let allows = |object: &Value| {
            let spec = &object["spec"];
            let is_of_edge = target_of(object) == target && spec["securityGroupID"] == group;
            is_of_edge && spec["karpenterPolicy"] == "Join"
        };
        let mut stored = self.truth.states_of(MEMBERSHIPS, since);
        let allowed = stored.any(|object| allows(object));
        Some(if allowed {
            Finding::Counted("instance of Karpenter joined under Join")
        } else {
            Finding::Violation(format!(
                "J7: {target} is Karpenter's, and was joined to {group} for memberships that refuse it"
            ))
        })
    }

    /// A membership comes to say that it refuses its target.
    pub(super) fn count_refusal(&self, place: &Place, object: &Value) -> Option<Finding> {
        let says_so = |object: &Value| {
            condition(object, "Ready").is_some_and(|ready| ready["reason"] == "KarpenterNode")
        };
        let before = self.stored.get(place);
        let is_new = says_so(object) && !before.is_some_and(|before| says_so(before));
        is_new.then_some(Finding::Counted("instance of Karpenter refused"))
    }
}

impl Monitor {
    /// An operator has sent a Join.
    pub(in crate::monitor) fn set_joins(&self, incarnation: usize, target: &str, group: &str) {
        let finding = {
            let judge = self.sets.lock().unwrap();
            let view = judge.views.get(&incarnation).filter(|_| judge.is_on);
            view.and_then(|view| judge.check_join(view, target, group))
        };
        self.found(finding);
    }

    /// Whether a target is an instance with a tag of Karpenter.
    pub fn is_karpenters(&self, target: &str) -> bool {
        selector::is_karpenters(&self.tags_of(target))
    }
}
