//! What a client asks for and the simulator lacks: unknown actions by their names, parameters that nothing reads. It says each
//! once, and bounds their number. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::action::Action;
use super::error::{self, ErrorResponse};
use super::parameters::Parameters;

/// What has been told.
#[derive(Debug, Default)]
pub struct Notices {
    unknown_actions: BTreeSet<String>,
    told: BTreeSet<String>,
}

impl Notices {
    /// The name under which a call is counted, and a sentence about an action that the simulator does not have.
    pub fn action(
        &mut self,
        asked: Option<&str>,
        action: &Result<Action, ErrorResponse>,
    ) -> (Cow<'static, str>, Option<String>) {
        let refused = match action {
            Ok(action) => return (action.as_str().into(), None),
            Err(refused) => refused,
        };
        let Some(name) = asked.map(printable) else {
            return (UNKNOWN.into(), None);
        };
        let sentence = (refused.code == error::API_NOT_FOUND.code)
            .then(|| self.tell(format!("the simulator does not implement {name}")))
            .flatten();
        let counted = self.unknown_actions.contains(&name)
            || self.unknown_actions.len() < UNKNOWN_ACTIONS
                && self.unknown_actions.insert(name.clone());
        let name = if counted { name.into() } else { UNKNOWN.into() };
        (name, sentence)
    }

    /// Sentences about the parameters that a call which went well has not read.
    pub fn ignored(&mut self, action: &str, parameters: &Parameters) -> Vec<String> {
        let unread = parameters.unread();
        let sentences = unread
            .iter()
            .map(|name| format!("the simulator ignores {} of {action}", printable(name)));
        sentences
            .filter_map(|sentence| self.tell(sentence))
            .collect()
    }

    /// The sentence, if it has not been told yet.
    fn tell(&mut self, sentence: String) -> Option<String> {
        let news = self.told.len() < SENTENCES && self.told.insert(sentence.clone());
        news.then_some(sentence)
    }
}

/// A name that a client has made up, cut in length, with `_` for what is neither a letter, a digit nor a dot.
fn printable(name: &str) -> String {
    name.chars()
        .take(LETTERS)
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' => letter,
            _ => '_',
        })
        .collect()
}

/// Counts the calls without an action, and those of unknown ones beyond [`UNKNOWN_ACTIONS`].
const UNKNOWN: &str = "Unknown";

/// Number of unknown actions that are counted by their names.
const UNKNOWN_ACTIONS: usize = 100;

/// Number of sentences in the life of a simulator.
const SENTENCES: usize = 1_000;

/// Number of letters of a name.
const LETTERS: usize = 64;
