//! What the monitor lets pass although a rule speaks against it, because the operator may not have known better yet, or could do
//! nothing. Each is counted when it has kept a rule from being broken, and printed with every run.

use super::Monitor;

/// Why a rule that seems to be broken is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tolerance {
    /// A Leave of a pass that had begun before its edge was left behind for a reason that is an exception.
    PassBegunBefore,
    /// A Leave of a pass that had begun before the spec of its object was changed.
    JustRespecified,
    /// A Join of a pass that had begun before its object was deleted.
    JustDeleted,
    /// A call for an object that had just gone, as its finalizer was taken off by hand.
    JustGone,
    /// A call of a pass that had begun before a user changed something about an object of its edge.
    JustTouched,
    /// A Leave of a pass that had begun before another object of its edge appeared.
    JustCreated,
    /// A Leave beside an object whose grant, account or credentials have just changed, or whose change no watch has shown.
    Upheaval,
    /// A Leave of an operator that does not watch the namespace of another object of its edge, and may not.
    OtherScope,
    /// Ready stands: the object is suspended, and nothing is written for it.
    Suspended,
    /// Ready stands: the API server refuses the status.
    StatusRefused,
    /// Ready stands: the operator is stopped.
    Stopped,
    /// Ready stands: a watch of memberships is silent, and what the operator has written since meets a conflict each time.
    SilentWatch,
    /// Ready stands: another process has begun, which has to read for itself.
    NewProcess,
    /// Ready stands: etcd was put back.
    PutBack,
    /// Ready stands: the limit of calls per minute holds the pass back.
    Limited,
    /// Ready stands: no read that counts has shown that the edge is missing.
    NotRead,
}

impl Tolerance {
    pub const ALL: [Self; 16] = [
        Self::PassBegunBefore,
        Self::JustRespecified,
        Self::JustDeleted,
        Self::JustGone,
        Self::JustTouched,
        Self::JustCreated,
        Self::Upheaval,
        Self::OtherScope,
        Self::Suspended,
        Self::StatusRefused,
        Self::Stopped,
        Self::SilentWatch,
        Self::NewProcess,
        Self::PutBack,
        Self::Limited,
        Self::NotRead,
    ];

    /// What it is called in the counts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PassBegunBefore => {
                "tolerated: Leave of a pass that had begun before its edge was left behind"
            }
            Self::JustRespecified => {
                "tolerated: Leave of a pass that had begun before a change of the spec"
            }
            Self::JustDeleted => "tolerated: Join of a pass that had begun before the deletion",
            Self::JustGone => "tolerated: call for an object that had just gone",
            Self::JustTouched => {
                "tolerated: call of a pass that had begun before a change by a user"
            }
            Self::JustCreated => {
                "tolerated: Leave of a pass that had begun before another object appeared"
            }
            Self::Upheaval => "tolerated: Leave soon after a change of grants or accounts",
            Self::OtherScope => {
                "tolerated: Leave beside an object of a namespace that the operator may not see"
            }
            Self::Suspended => "tolerated: Ready of a suspended object",
            Self::StatusRefused => "tolerated: Ready, and the status is refused",
            Self::Stopped => "tolerated: Ready while the operator is stopped",
            Self::SilentWatch => "tolerated: Ready while the watch is silent",
            Self::NewProcess => "tolerated: Ready until a new process has read",
            Self::PutBack => "tolerated: Ready after etcd was put back",
            Self::Limited => "tolerated: Ready while the limit of calls holds the pass back",
            Self::NotRead => {
                "tolerated: Ready while no read that counts shows that the edge is missing"
            }
        }
    }
}

impl Monitor {
    pub(super) fn tolerated(&self, tolerance: Tolerance) {
        self.trace(|| format!("tolerated: {tolerance:?}"));
        self.count(tolerance.word());
    }
}
