//! Why a command of the plugin ends without its answer: one line for the person, one exit code for the script.

use crate::ecs;
use crate::kubernetes::{self, error_chain};

/// Exit codes, beside 0 and the 2 of clap for wrong arguments. `docs/user/plugin.md` lists them.
pub mod exit {
    /// Something failed: a call, a file, the terminal.
    pub const FAILED: u8 = 1;
    /// The command was answered, and the answer is no: not Ready, mistakes found, something left.
    pub const NO: u8 = 3;
    /// There is no such object.
    pub const NOT_FOUND: u8 = 4;
    /// A right is missing, in the cluster or in the cloud.
    pub const NO_RIGHT: u8 = 5;
    /// The reader of the output went away: what the shell gives a process that `SIGPIPE` ended.
    pub const BROKEN_PIPE: u8 = 141;
}

/// Why a command ends without its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One line: cause, then fix. Empty if nothing is to be said.
    pub message: String,
}

impl Failure {
    /// Something failed.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self::with(exit::FAILED, message)
    }

    /// With this exit code.
    #[must_use]
    pub fn with(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::with(exit::BROKEN_PIPE, "");
        }
        Self::new(error.to_string())
    }
}

/// What was asked of the API server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The verb of the right.
    pub verb: &'a str,
    /// The resource, in the plural.
    pub resource: &'a str,
    /// Namespace; empty for the cluster.
    pub namespace: &'a str,
    /// Name; empty for a list.
    pub name: &'a str,
}

impl Request<'_> {
    fn place(&self) -> String {
        if self.namespace.is_empty() {
            "in the cluster".to_owned()
        } else {
            format!("in namespace {}", self.namespace)
        }
    }

    /// What the person reads.
    #[must_use]
    pub fn failed(&self, error: &kubernetes::Error) -> Failure {
        let Self {
            verb,
            resource,
            name,
            ..
        } = self;
        let place = self.place();
        match error.code() {
            Some(403) => Failure::with(
                exit::NO_RIGHT,
                format!(
                    "you may not {verb} {resource} {place}; ask your administrator for a role that allows it"
                ),
            ),
            Some(401) => Failure::with(
                exit::NO_RIGHT,
                "the API server does not accept your credentials; log in again",
            ),
            Some(404) if name.is_empty() => Failure::with(
                exit::NOT_FOUND,
                format!("the cluster has no {resource}: install the operator's CRDs"),
            ),
            Some(404) => Failure::with(
                exit::NOT_FOUND,
                format!("there is no {} {name} {place}", singular(resource)),
            ),
            _ => Failure::new(format!("{verb} {resource} {place}: {}", error_chain(error))),
        }
    }
}

/// The kind of a resource.
fn singular(resource: &str) -> &str {
    match resource {
        "securitygroupmemberships" => "SecurityGroupMembership",
        "securitygroupmembershipsets" => "SecurityGroupMembershipSet",
        "cloudaccounts" => "CloudAccount",
        "clustercloudaccounts" => "ClusterCloudAccount",
        "namespaces" => "Namespace",
        other => other,
    }
}

/// What the person reads of a refusal of the cloud. `whose` is whose key was used.
#[must_use]
pub fn of_cloud(whose: &str, error: &ecs::Error) -> Failure {
    let code = error.code().unwrap_or_default();
    let lacks_right = ["Forbidden", "NoPermission", "Unauthorized"]
        .iter()
        .any(|start| code.starts_with(start));
    if lacks_right {
        let action = error.action().name();
        let service = if action == "GetCallerIdentity" {
            "sts"
        } else {
            "ecs"
        };
        return Failure::with(
            exit::NO_RIGHT,
            format!("{whose} may not {service}:{action} ({code}); allow it that action in RAM"),
        );
    }
    let exit = if error.is_credential_error() {
        exit::NO_RIGHT
    } else {
        exit::FAILED
    };
    let sentence = error.to_string();
    Failure::with(
        exit,
        format!(
            "{whose}: {}; {}",
            sentence.trim_end_matches('.'),
            error.hint()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_right_is_named_as_verb_and_resource() {
        let request = Request {
            verb: "list",
            resource: "securitygroupmemberships",
            namespace: "team-a",
            name: "",
        };
        let answer = |code: u16| {
            let status = kube::core::Status::failure("no", "no").with_code(code);
            kubernetes::Error::Api(kube::Error::Api(Box::new(status)))
        };
        let told = request.failed(&answer(403));
        assert_eq!(told.code, exit::NO_RIGHT);
        assert!(
            told.message
                .contains("may not list securitygroupmemberships in namespace team-a")
        );
        assert_eq!(request.failed(&answer(404)).code, exit::NOT_FOUND);
        assert_eq!(request.failed(&answer(500)).code, exit::FAILED);
    }
}
