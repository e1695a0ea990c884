//! The cloud's error codes as data. Pure, and long because it is one table: what each means to the loop, and to its reader.
//!
//! Codes are matched exactly, HTTP statuses hardly ever: throttling is a 400, and an unknown access key a 404 like a target that
//! is gone. Sources: the vendor's pages of `JoinSecurityGroup` and `LeaveSecurityGroup` (English and Chinese differ), of the
//! Describe and Modify actions, its list of common codes, the gateway's and that of STS.

use super::action::Action;
use super::class::Class;

/// What the table says about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// What the loop does.
    pub class: Class,
    /// Whether the code is in the table; a metric counts those that are not.
    pub known: bool,
    /// The code, or the start of the codes of its family, as the table has it; `None` for an unknown one.
    pub code: Option<&'static str>,
    /// One sentence for the user: what to do next.
    pub hint: &'static str,
}

/// Looks a code up for the action that met it.
#[must_use]
pub fn classify(action: Action, status: u16, code: &str, message: &str) -> Classification {
    let code = normalize_code(code, message);
    let exact = TABLE.iter().find(|row| row.codes.contains(&code));
    let family = || {
        FAMILIES
            .iter()
            .find(|row| row.codes.iter().any(|start| code.starts_with(start)))
    };
    let Some(row) = exact.or_else(family) else {
        return UNKNOWN;
    };
    let mut codes = row.codes.iter().copied();
    let listed = codes.find(|listed| *listed == code);
    let listed = listed.or_else(|| {
        row.codes
            .iter()
            .copied()
            .find(|start| code.starts_with(start))
    });
    let class = match action {
        Action::JoinSecurityGroup => row.join,
        Action::LeaveSecurityGroup => row.leave,
        Action::DescribeInstances
        | Action::DescribeNetworkInterfaces
        | Action::DescribeSecurityGroups
        | Action::GetCallerIdentity
        | Action::AssumeRole
        | Action::AssumeRoleWithOidc => row.read,
    };
    // A server that failed is not believed about anything else than its load: no finalizer goes on the word of a 500.
    if status >= 500 && class != Class::Throttled {
        return Classification {
            class: Class::Transient,
            known: true,
            code: listed,
            hint: WAIT,
        };
    }
    Classification {
        class,
        known: true,
        code: listed,
        hint: if action == Action::AssumeRole && code == "NoPermission" {
            TRUST
        } else {
            row.hint
        },
    }
}

/// Every code of the table, and whether it is the start of a family of codes.
pub fn codes() -> impl Iterator<Item = (&'static str, bool)> {
    let of = |rows: &'static [Row], is_family| {
        let codes = rows.iter().flat_map(|row| row.codes);
        codes.map(move |code| (*code, is_family))
    };
    of(TABLE, false).chain(of(FAMILIES, true))
}

/// The advice for an object that is being deleted: it never says to delete it.
pub(super) fn without_recreation(hint: &'static str) -> &'static str {
    match hint {
        MALFORMED => "the ID is malformed",
        OTHER_REGION => "the cloud does not know this region, or the account may not use it",
        MISSING_TARGET => "check the ID, the region and the account",
        other => other,
    }
}

/// The code that is documented for the answer.
pub(super) fn normalize_code<'a>(code: &'a str, message: &str) -> &'a str {
    // ECS answers an expired STS token so (kubevela/terraform-controller#52), and not with the code that is documented.
    if code == "InvalidParameter" && message.contains("SecurityToken.Expired") {
        "InvalidSecurityToken.Expired"
    } else {
        code
    }
}

const UNKNOWN: Classification = Classification {
    class: Class::Transient,
    known: false,
    code: None,
    hint: "this version of the operator does not know this code; see https://api.alibabacloud.com/troubleshoot",
};

struct Row {
    codes: &'static [&'static str],
    join: Class,
    leave: Class,
    read: Class,
    hint: &'static str,
}

const fn all(class: Class, hint: &'static str, codes: &'static [&'static str]) -> Row {
    Row {
        codes,
        join: class,
        leave: class,
        read: class,
        hint,
    }
}

const WAIT: &str = "temporary cloud error; the operator retries";
const TRANSITIONAL: &str = "the operator retries when the target is Running or Stopped";
const MALFORMED: &str =
    "the ID is malformed; delete this object and create one with the correct ID";
const OTHER_REGION: &str = "the cloud does not know this region, or the account may not use it; delete this object and create one with the correct region";
const MISSING_TARGET: &str = "check the ID, the region and the account, or delete this object";

const TRUST: &str = "let the trust policy of the role trust the user or role that assumes it, with its external ID, and allow that user or role sts:AssumeRole on it";
const OPERATOR: &str = "please report this to the authors of the operator: it sent a request that the cloud does not understand";
const OTHER_ENDPOINT: &str = "this endpoint does not serve spec.region; in the account's endpoints.ecs write {region} for the region, or leave it out";
const ENDPOINT: &str = "check the account's endpoints: the endpoint is not ECS or STS, or does not support this API version";

/// Codes that come in families, by their start; looked at after the exact ones.
const FAMILIES: &[Row] = &[
    all(
        Class::Throttled,
        "the account's calls of this minute are used up; if it lasts, request a higher rate limit of this API",
        &["Throttling", "Rejected.Throttling"],
    ),
    all(Class::Transient, WAIT, &["ServiceUnavailable"]),
    all(Class::Invalid, OPERATOR, &["MissingParameter"]),
];

const TABLE: &[Row] = &[
    // Done: the edge is as wanted.
    Row {
        codes: &["InvalidInstanceId.AlreadyExists"],
        join: Class::Done,
        leave: Class::Transient,
        read: Class::Transient,
        hint: "the target is a member of the group",
    },
    Row {
        codes: &[
            "InvalidSecurityGroupAssociation.NotFound",
            "InstanceNotInSecurityGroup",
        ],
        join: Class::Transient,
        leave: Class::Done,
        read: Class::Transient,
        hint: "the target is not a member of the group",
    },
    // Absent, which on Leave is as good as done.
    Row {
        codes: &["InvalidInstanceId.NotFound", "InvalidEniId.NotFound"],
        join: Class::Absent,
        leave: Class::Done,
        read: Class::Absent,
        hint: MISSING_TARGET,
    },
    Row {
        codes: &["InvalidSecurityGroupId.NotFound"],
        join: Class::Absent,
        leave: Class::Done,
        read: Class::Absent,
        hint: "check the ID, the region and the account, or create the group",
    },
    // Not documented as "the target is gone" for Leave, so that no finalizer goes on them.
    all(
        Class::Absent,
        "check that the target still exists with all its parts",
        &["InvalidEcsId.NotFound", "InvalidVSwitchId.NotFound"],
    ),
    all(
        Class::Transitional,
        TRANSITIONAL,
        &[
            "IncorrectInstanceStatus",
            "IncorrectInstanceStatus.Initializing",
            "InvalidOperation.InvalidEniState",
            "InvalidOperation.InvalidEcsState",
            "InvalidStatus.EniOrInstanceIsBeingCreated",
            "Forbidden.InstanceIsBeingCreated",
        ],
    ),
    all(
        Class::Transient,
        WAIT,
        &[
            "InternalError",
            "UnknownError",
            "RequestTimeout",
            "SystemBusy",
            "SlbIsBusy",
            "OperationConflict",
            "Operation.Conflict",
            "InvalidOperation.Conflict",
            "LastTokenProcessing",
            "IdempotentProcessing",
            "IdempotentFailed",
            // Every attempt has a nonce of its own.
            "SignatureNonceUsed",
            // The next attempt begins at the first page. The capital V is the vendor's.
            "InValidParameter.NextToken",
        ],
    ),
    // Blocked: limits.
    all(
        Class::Blocked,
        "remove the target from another group, or request a higher quota of security groups per instance",
        &[
            "InstanceSecurityGroupLimitExceeded",
            "JoinedGroupLimitExceed",
        ],
    ),
    all(
        Class::Blocked,
        "the group is full; remove members, use another group, or request a higher quota of members per group",
        &[
            "SecurityGroupInstanceLimitExceeded",
            // The Modify actions leave out the end of the word.
            "SecurityGroupInstanceLimitExceed",
            "InvalidOperation.NetworkInterfaceCountExceeded",
            "InvalidOperation.EniCountExceeded",
        ],
    ),
    all(
        Class::Blocked,
        "the target's groups have too many rules together; remove rules, or remove the target from a group",
        &["AclLimitExceed"],
    ),
    // Blocked: the target.
    all(
        Class::Blocked,
        "unlock the instance in the ECS console; it is locked for security reasons",
        &["InstanceLockedForSecurity", "OperationDenied"],
    ),
    all(
        Class::Blocked,
        "add the target to another group first; it cannot be removed from its last group",
        &[
            "InstanceLastSecurityGroup",
            "InvalidOperation.AtLeastInOneGroup",
        ],
    ),
    // Blocked: who we are.
    all(
        Class::Blocked,
        "check accessKeyID in the account's Secret; the key is unknown or disabled",
        &[
            "InvalidAccessKeyId.NotFound",
            "InvalidAccessKeyId.Inactive",
            "Forbidden.AccessKeyDisabled",
        ],
    ),
    all(
        Class::Blocked,
        "check that accessKeySecret in the account's Secret belongs to accessKeyID and is complete",
        &["SignatureDoesNotMatch", "IncompleteSignature"],
    ),
    all(
        Class::Blocked,
        "store fresh temporary credentials in the account's Secret, all three values of the same issue",
        &[
            "InvalidSecurityToken.Expired",
            "InvalidSecurityToken.Malformed",
            "InvalidSecurityToken.MismatchWithAccessKey",
            "MissingSecurityToken",
        ],
    ),
    all(
        Class::Blocked,
        "correct the clock of the operator's node; it is more than 15 minutes off",
        &["InvalidTimeStamp.Expired", "IllegalTimestamp"],
    ),
    // Blocked: what we may do.
    all(
        Class::Blocked,
        "grant the account's RAM user or role this action on this target and group (see docs/user/install-ack.md)",
        &[
            "Forbidden.RAM",
            "Forbidden.SubUser",
            "Forbidden.Unauthorized",
            "Forbidden.RegionId",
            "Forbidden.NotSupportRAM",
            "Forbidden",
            "InvalidAction",
            "NoPermission",
            "NotBelongUser",
        ],
    ),
    all(
        Class::Blocked,
        "check the cloud account in the console (identity, risk control, balance)",
        &[
            "Forbidden.RiskControl",
            "RealNameAuthenticationError",
            "InsufficientBalance",
        ],
    ),
    all(
        Class::Blocked,
        "check oidcProviderARN, and let the role's trust policy trust this provider and the subject system:serviceaccount:<namespace>:<service account>",
        &["AuthenticationFail.NoPermission"],
    ),
    all(
        Class::Blocked,
        "check that the OIDC provider of oidcProviderARN has this cluster's issuer and keys, and the client ID sts.aliyuncs.com",
        &[
            "AuthenticationFail.OIDCToken.Expired",
            "AuthenticationFail.OIDCToken.AudienceNotMatch",
            "AuthenticationFail.OIDCToken.IssuerNotMatch",
            "AuthenticationFail.OIDCToken.IssuerConfigurationBroken",
            "AuthenticationFail.OIDCToken.Invalid",
            "AuthenticationFail.OIDCToken.PublicKeyFingerprintMismatch",
        ],
    ),
    all(
        Class::Blocked,
        "check roleARN: there is no such role; the RAM console shows the ARN of each",
        &["EntityNotExist.Role", "InvalidParameter.RoleArn"],
    ),
    all(
        Class::Blocked,
        "correct sessionName: 2 to 64 letters, digits and the characters . @ _ -",
        &["InvalidParameter.RoleSessionName"],
    ),
    all(
        Class::Blocked,
        "lower durationSeconds: the role's longest session is shorter; the RAM console shows it",
        &["InvalidParameter.DurationSeconds"],
    ),
    all(
        Class::Blocked,
        ENDPOINT,
        &[
            "InvalidApi.NotFound",
            "InvalidProduct.NotFound",
            "InvalidAction.NotFound",
            "InvalidVersion",
        ],
    ),
    // Invalid: what the spec names.
    all(
        Class::Invalid,
        "use a group in the target's VPC; the two are in different networks",
        &[
            "InvalidInstanceId.Mismatch",
            "InvalidOperation.VpcMismatch",
            "InvalidSecurityGroupVpc.NotBelongToOneVpc",
            "InvalidSecurityGroupId.NotVpc",
            "InvalidNetworkType.NotSupported",
            "InvalidSecurityGroupType.NotSupportClassic",
        ],
    ),
    all(
        Class::Invalid,
        "use a group of the same type (basic or advanced) as the target's other groups",
        // The spelling "Mutli" is the vendor's.
        &[
            "InvalidOperation.MultiGroupType",
            "EnterpriseGroupLimited.MutliGroupType",
        ],
    ),
    all(
        Class::Invalid,
        "use a basic group; this instance type cannot be in an advanced one",
        &["InvalidOperation.NotSupportEnterpriseGroup"],
    ),
    all(
        Class::Invalid,
        OTHER_ENDPOINT,
        &[
            // alibaba-cloud-sdk-go#440
            "InvalidOperation.NotSupportedEndpoint",
            "RegionId.ApiNotSupported",
        ],
    ),
    all(
        Class::Invalid,
        "a cloud service manages this group or interface; use another one",
        &[
            "InvalidOperation.ResourceManagedByCloudProduct",
            "InvalidOperation.EniServiceManaged",
        ],
    ),
    all(
        Class::Invalid,
        "set spec.instanceID instead; primary interfaces follow their instance",
        &[
            "InvalidOperation.InvalidEniType",
            "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc",
        ],
    ),
    all(
        Class::Invalid,
        "use a group of the cloud account that owns the interface",
        &["InvalidOperation.EniAndGroupNotBelongSameUser"],
    ),
    all(
        Class::Invalid,
        MALFORMED,
        &[
            "InvalidInstanceId.Malformed",
            "InvalidSecurityGroupId.Malformed",
            "InvalidParam.Malformed",
            "InvalidParams.EniId",
            "InvalidOperation.InvalidRegion",
        ],
    ),
    all(Class::Invalid, OTHER_REGION, &["InvalidRegionId.NotFound"]),
    // Invalid: what only a mistake of the operator can cause.
    all(
        Class::Invalid,
        OPERATOR,
        &[
            "InvalidParameter",
            "UnsupportedParameter",
            "InvalidTimeStamp.Format",
            "InvalidSignatureMethod",
            "UnsupportedHTTPMethod",
            "InvalidParam.EniIdAndInstanceId.Conflict",
            "InvalidParameter.SecurityGroupIdRepeated",
            "InvalidParameter.SecurityGroupType",
            "InvalidSecurityGroupName.Malformed",
            "NotSupported.PageNumberAndPageSize",
            "IdempotentParameterMismatch",
            "InvalidIdempotenceParameter.Mismatch",
            "DryRunOperation",
            "InvalidInstanceChargeType.NotFound",
            "InvalidInternetChargeType.ValueNotSupported",
            "InvalidLockReason.NotFound",
            "InvalidFilterKey.NotFound",
            "InvalidNetworkType.NotFound",
            "InvalidStatus.NotFound",
            "InvalidTag.Mismatch",
            "InvalidTagCount",
            "InvalidHpcClusterId.NotFound",
            "InvalidHpcClusterId.Creating",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_code_is_in_two_rows() {
        let mut seen = HashSet::new();
        for code in TABLE.iter().flat_map(|row| row.codes) {
            assert!(seen.insert(code), "{code}");
        }
    }

    #[test]
    fn unlisted_codes_are_classified_as_unknown() {
        for code in [
            "",
            "Newly.Invented",
            "invalidinstanceid.notfound",
            "InvalidInstanceId.NotFound ",
            "XThrottling",
            "NotFound",
        ] {
            for action in Action::ALL {
                assert_eq!(classify(action, 404, code, ""), UNKNOWN, "{code:?}");
            }
        }
    }

    #[test]
    fn codes_with_status_5xx_are_transient_or_throttled() {
        for code in TABLE.iter().flat_map(|row| row.codes) {
            for action in Action::ALL {
                assert_eq!(
                    classify(action, 500, code, "").class,
                    Class::Transient,
                    "{code}"
                );
            }
        }
        assert_eq!(
            classify(Action::JoinSecurityGroup, 503, "Throttling.User", "").class,
            Class::Throttled
        );
    }

    #[test]
    fn expired_token_is_blocked_in_both_spellings() {
        let message = "The specified parameter \"SecurityToken.Expired\" is not valid.";
        let said = classify(Action::JoinSecurityGroup, 400, "InvalidParameter", message);
        assert_eq!(
            said,
            classify(
                Action::JoinSecurityGroup,
                400,
                "InvalidSecurityToken.Expired",
                ""
            )
        );
        assert_eq!(said.class, Class::Blocked);
        assert_eq!(
            classify(Action::JoinSecurityGroup, 400, "InvalidParameter", "other").class,
            Class::Invalid
        );
    }
}
