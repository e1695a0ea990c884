//! A mistake, and the object that it is in. Only types.

use super::documents::Node;

/// One mistake, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mistake {
    pub(super) file: String,
    pub(super) line: u64,
    /// The field, such as spec.region; empty for the document as a whole.
    pub(super) field: String,
    pub(super) message: String,
}

/// An object of one of our kinds.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) file: String,
    pub(super) kind: &'static str,
    pub(super) root: Node,
}

impl Object {
    pub(super) fn mistake(&self, line: u64, field: &str, message: impl Into<String>) -> Mistake {
        Mistake {
            file: self.file.clone(),
            line,
            field: field.trim_start_matches('.').to_owned(),
            message: message.into(),
        }
    }

    /// A text below `metadata`.
    pub(super) fn metadata(&self, name: &str) -> Option<&str> {
        self.root.field("metadata")?.field(name)?.text()
    }
}
