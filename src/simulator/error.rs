//! Every error code of the simulated cloud, as the vendor spells it, with its HTTP status: data, pure.
//!
//! Sources: the vendor's pages of `JoinSecurityGroup` and `LeaveSecurityGroup` (English and Chinese), of the Describe calls,
//! and of the gateway's common errors. Where the vendor's table has `%s` as message, the message is ours.

use std::borrow::Cow;

use serde_json::{Value, json};

/// One row of the vendor's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// HTTP status.
    pub status: u16,
    /// The code, exactly.
    pub code: &'static str,
    /// The message; ours if the vendor's is a placeholder.
    pub message: &'static str,
}

/// An error response.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorResponse {
    /// HTTP status.
    pub status: u16,
    /// The code, exactly as the vendor spells it.
    pub code: Cow<'static, str>,
    /// The vendor's message.
    pub message: Cow<'static, str>,
    /// The `AccessDeniedDetail` of a RAM denial.
    pub access_denied: Option<Value>,
    /// Extra response headers (throttling).
    pub headers: Vec<(&'static str, String)>,
}

impl From<Code> for ErrorResponse {
    fn from(code: Code) -> Self {
        Self {
            status: code.status,
            code: code.code.into(),
            message: code.message.into(),
            access_denied: None,
            headers: Vec::new(),
        }
    }
}

impl Code {
    /// The error with another message.
    #[must_use]
    pub fn says(self, message: impl Into<Cow<'static, str>>) -> ErrorResponse {
        ErrorResponse {
            message: message.into(),
            ..self.into()
        }
    }
}

/// 400 `MissingParameter`, with the name in the vendor's sentence.
#[must_use]
pub fn missing_parameter(name: &str) -> ErrorResponse {
    MISSING_PARAMETER.says(format!(
        "The input parameter \"{name}\" that is mandatory for processing this request is not supplied."
    ))
}

/// 400 `InvalidParameter`, with the name in the vendor's sentence.
#[must_use]
pub fn invalid_parameter(name: &str) -> ErrorResponse {
    INVALID_PARAMETER.says(format!("The specified parameter \"{name}\" is not valid."))
}

/// 403 `Forbidden.RAM` with the detail of permission errors.
#[must_use]
pub fn forbidden_ram(action: &str, account: &str, user: &str) -> ErrorResponse {
    ErrorResponse {
        access_denied: Some(json!({
            "AuthAction": action,
            "AuthPrincipalDisplayName": user,
            "AuthPrincipalOwnerId": account,
            "AuthPrincipalType": "SubUser",
            "NoPermissionType": "ImplicitDeny",
            "PolicyType": "AccountLevelIdentityBasedPolicy",
            "EncodedDiagnosticMessage": "AQIBIAAAAA==",
        })),
        ..FORBIDDEN_RAM.into()
    }
}

macro_rules! codes {
    ($($name:ident $status:literal $code:literal $message:literal)*) => {
        $(
            #[doc = concat!(stringify!($status), " `", $code, "`")]
            pub const $name: Code = Code { status: $status, code: $code, message: $message };
        )*
        /// Every code that state or inventory can produce.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    // JoinSecurityGroup and LeaveSecurityGroup.
    INSTANCE_GROUP_LIMIT 400 "InstanceSecurityGroupLimitExceeded" "Exceeding the allowed amount of security groups that an instance can be in."
    INTERFACE_GROUP_LIMIT 403 "InstanceSecurityGroupLimitExceeded" "Exceeding the allowed amount of security groups that a network interface can be in."
    INSTANCE_MISMATCH 400 "InvalidInstanceId.Mismatch" "Specified instance and security group are not in the same VPC."
    INSTANCE_MALFORMED 400 "InvalidInstanceId.Malformed" "The specified parameter \"InstanceId\" is not valid."
    NOT_SUPPORT_ENTERPRISE_GROUP 400 "InvalidOperation.NotSupportEnterpriseGroup" "The specified instance type doesn't support enterprise level security group."
    MULTI_GROUP_TYPE 400 "InvalidOperation.MultiGroupType" "The specified instance can't join different types of security group."
    INVALID_ENI_STATE 400 "InvalidOperation.InvalidEniState" "The operation is not supported in the current state of the network interface."
    ENI_AND_GROUP_NOT_SAME_USER 400 "InvalidOperation.EniAndGroupNotBelongSameUser" "The network interface and the security group do not belong to the same user."
    NOT_BELONG_USER 400 "NotBelongUser" "The specified resource does not belong to the current user."
    MISSING_REGION_ID 400 "MissingParameter.RegionId" "The specified RegionId should not be null."
    BEING_CREATED 400 "InvalidStatus.EniOrInstanceIsBeingCreated" "The specified network interface or its instance is being created."
    MISSING_PARAMETER 400 "MissingParameter" "An input parameter that is mandatory for processing this request is not supplied."
    INCORRECT_INSTANCE_STATUS 403 "IncorrectInstanceStatus" "The current status of the resource does not support this operation."
    LOCKED_FOR_SECURITY 403 "InstanceLockedForSecurity" "The specified operation is denied as your instance is locked for security reasons."
    OPERATION_DENIED 403 "OperationDenied" "The specified operation is denied as your instance is locked for security reasons."
    GROUP_INSTANCE_LIMIT 403 "SecurityGroupInstanceLimitExceeded" "The maximum number of instances in a security group is exceeded."
    ALREADY_EXISTS 403 "InvalidInstanceId.AlreadyExists" "The specified instance already exists in the specified security group."
    ACL_LIMIT 403 "AclLimitExceed" "The number of security group rules of the network interface exceeds the limit."
    ENTERPRISE_GROUP_LIMIT 403 "InvalidOperation.NetworkInterfaceCountExceeded" "The maximum number of NetworkInterface in a enterprise level security group is exceeded."
    MANAGED_GROUP 403 "InvalidOperation.ResourceManagedByCloudProduct" "The specified security group is managed by a cloud product and cannot be changed."
    INVALID_ENI_TYPE 403 "InvalidOperation.InvalidEniType" "The current type of the network interface does not support this operation."
    VPC_MISMATCH 403 "InvalidOperation.VpcMismatch" "The specified network interface and security group are not in the same VPC."
    MANAGED_ENI 403 "InvalidOperation.EniServiceManaged" "The specified network interface is managed by a cloud product and cannot be changed."
    PARAM_MALFORMED 403 "InvalidParam.Malformed" "A specified parameter is malformed."
    BOTH_TARGETS 403 "InvalidParam.EniIdAndInstanceId.Conflict" "NetworkInterfaceId and InstanceId cannot both be specified."
    INSTANCE_BEING_CREATED 403 "Forbidden.InstanceIsBeingCreated" "The specified instance is being created."
    GROUP_NOT_FOUND 404 "InvalidSecurityGroupId.NotFound" "The specified SecurityGroupId does not exist."
    INSTANCE_NOT_FOUND 404 "InvalidInstanceId.NotFound" "The specified InstanceId does not exist."
    ENI_NOT_FOUND 404 "InvalidEniId.NotFound" "The specified NetworkInterfaceId does not exist."
    CONFLICT 409 "InvalidOperation.Conflict" "Request was denied due to conflict with a previous request, please try again later."
    ASSOCIATION_NOT_FOUND 400 "InvalidSecurityGroupAssociation.NotFound" "The specified instance or network interface is not in the security group."
    LAST_GROUP 403 "InstanceLastSecurityGroup" "The specified security group is the last security group for the instance."
    AT_LEAST_ONE_GROUP 403 "InvalidOperation.AtLeastInOneGroup" "The network interface must belong to at least one security group."
    INSTANCE_NOT_IN_GROUP 403 "InstanceNotInSecurityGroup" "The instance not in the group."
    VSWITCH_NOT_FOUND 404 "InvalidVSwitchId.NotFound" "The specified virtual switch does not exist."
    // The Describe calls.
    REGION_NOT_FOUND 404 "InvalidRegionId.NotFound" "The specified RegionId does not exist."
    STATUS_NOT_FOUND 404 "InvalidStatus.NotFound" "The specified Status is not found"
    NETWORK_TYPE_NOT_FOUND 404 "InvalidNetworkType.NotFound" "The specified InstanceNetworkType is not found."
    LOCK_REASON_NOT_FOUND 404 "InvalidLockReason.NotFound" "The specified LockReason is not found."
    TAG_MISMATCH 400 "InvalidTag.Mismatch" "The specified Tag.n.Key and Tag.n.Value are not match."
    TAG_COUNT 400 "InvalidTagCount" "The specified tags are beyond the permitted range."
    TWO_WAYS_OF_PAGING 400 "NotSupported.PageNumberAndPageSize" "PageNumber and PageSize are not supported together with NextToken and MaxResults."
    GROUP_NAME_MALFORMED 400 "InvalidSecurityGroupName.Malformed" "The specified SecurityGroupName is not valid."
    NEXT_TOKEN_INVALID 400 "InValidParameter.NextToken" "The specified NextToken is invalid."
    GROUP_TYPE_INVALID 400 "InvalidParameter.SecurityGroupType" "The specified SecurityGroupType is invalid."
    GROUP_MALFORMED 400 "InvalidSecurityGroupId.Malformed" "The specified parameter \"SecurityGroupId\" is not valid."
    INVALID_PARAMETER 400 "InvalidParameter" "The specified parameter is not valid."
    DRY_RUN 400 "DryRunOperation" "Request validation has been passed with DryRun flag set."
    // ListTagResources.
    MISSING_RESOURCE_TYPE 404 "MissingParameter.ResourceType" "The parameter - ResourceType should not be null."
    MISSING_RESOURCE_IDS 404 "MissingParameter.ResourceIds" "The parameter - ResourceIds.N should not be null."
    RESOURCE_TYPE_NOT_FOUND 404 "InvalidResourceType.NotFound" "The ResourceType provided does not exist in our records."
    // ModifyNetworkInterfaceAttribute: the rules of Join under other codes.
    ENI_ID_INVALID 400 "InvalidParams.EniId" "The specified NetworkInterfaceId is not valid."
    PRIMARY_ENI 404 "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc" "Primary NetworkInterface is only allowed to modify name and description."
    GROUP_REPEATED 404 "InvalidParameter.SecurityGroupIdRepeated" "The specified security group ids has repeated."
    ENI_MULTI_GROUP_TYPE 403 "InvalidOperation.MultiGroupType" "The specified instance can't join different types of security group."
    JOINED_GROUP_LIMIT 400 "JoinedGroupLimitExceed" "The number of security groups of the network interface exceeds the limit."
    GROUP_MEMBER_LIMIT 403 "SecurityGroupInstanceLimitExceed" "The maximum number of instances in a security group is exceeded."
    ENI_COUNT 403 "InvalidOperation.EniCountExceeded" "The maximum number of eni in a enterprise level security group is exceeded."
    // STS.
    NO_SUCH_ROLE 404 "EntityNotExist.Role" "The specified Role not exists."
    NO_PERMISSION 403 "NoPermission" "You are not authorized to do this action. You should be authorized by RAM."
    ROLE_ARN_INVALID 400 "InvalidParameter.RoleArn" "The parameter RoleArn is wrongly formed."
    SESSION_NAME_INVALID 400 "InvalidParameter.RoleSessionName" "The parameter RoleSessionName is wrongly formed."
    DURATION_INVALID 400 "InvalidParameter.DurationSeconds" "The Min/Max value of DurationSeconds is 15min/1hr."
    OIDC_NO_PERMISSION 403 "AuthenticationFail.NoPermission" "This operation is forbidden by permission system."
    OIDC_TOKEN_INVALID 400 "AuthenticationFail.OIDCToken.Invalid" "This JsonWebToken is invalid."
    OIDC_TOKEN_EXPIRED 400 "AuthenticationFail.OIDCToken.Expired" "This JsonWebToken is expired."
    OIDC_ISSUER 400 "AuthenticationFail.OIDCToken.IssuerNotMatch" "The issuer of this JsonWebToken is not that of the OIDC provider."
    OIDC_AUDIENCE 400 "AuthenticationFail.OIDCToken.AudienceNotMatch" "The audience of this JsonWebToken is no client ID of the OIDC provider."
    // The gateway.
    THROTTLING_USER 400 "Throttling.User" "Request was denied due to user flow control."
    NONCE_USED 400 "SignatureNonceUsed" "Specified signature nonce was used already."
    TIMESTAMP_EXPIRED 400 "InvalidTimeStamp.Expired" "Specified time stamp or date value is expired."
    TIMESTAMP_FORMAT 400 "InvalidTimeStamp.Format" "Specified time stamp or date value is not well formatted."
    SIGNATURE_MISMATCH 400 "SignatureDoesNotMatch" "Specified signature does not match our calculation."
    INCOMPLETE_SIGNATURE 400 "IncompleteSignature" "The request signature does not conform to Aliyun standards."
    INVALID_SIGNATURE_METHOD 400 "InvalidSignatureMethod" "Specified signature method is not supported."
    UNSUPPORTED_HTTP_METHOD 400 "UnsupportedHTTPMethod" "This http method is not supported."
    KEY_NOT_FOUND 404 "InvalidAccessKeyId.NotFound" "Specified access key is not found."
    KEY_INACTIVE 400 "InvalidAccessKeyId.Inactive" "Specified access key is disabled."
    TOKEN_MISSING 400 "MissingSecurityToken" "SecurityToken is mandatory for this action."
    TOKEN_MALFORMED 400 "InvalidSecurityToken.Malformed" "Specified SecurityToken is malformed."
    TOKEN_EXPIRED 400 "InvalidSecurityToken.Expired" "Specified SecurityToken is expired."
    TOKEN_MISMATCH 400 "InvalidSecurityToken.MismatchWithAccessKey" "Specified SecurityToken mismatch with the AccessKey."
    VERSION_INVALID 404 "InvalidVersion" "Specified parameter Version is not valid."
    API_NOT_FOUND 404 "InvalidApi.NotFound" "Specified api is not found, please check your url and method."
    ACTION_NOT_FOUND 404 "InvalidAction.NotFound" "Specified api is not found, please check your url and method."
    FORBIDDEN_RAM 403 "Forbidden.RAM" "User not authorized to operate on the specified resource, or this API doesn't support RAM."
}

/// Codes that only a fault can produce: the default status and message of a `code` fault. They come from the vendor's other
/// tables, so that a test needs one line to inject them. Where a page gives no message, it is ours.
#[rustfmt::skip]
pub const BY_FAULT: &[Code] = &[
    // Common to all of ECS, and the gateway's.
    row(500, "InternalError", "The request processing has failed due to some unknown error."),
    row(504, "RequestTimeout", "The request encounters an upstream server timeout."),
    row(503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."),
    row(503, "ServiceUnavailable.RegionMaintaining", UNTOLD),
    row(400, "UnknownError", "The request processing has failed due to some unknown error."),
    row(400, "Throttling", "Request was denied due to request throttling."),
    row(400, "Throttling.Api", "Request was denied due to api flow control."),
    row(409, "OperationConflict", "Request was denied due to conflict with a previous request."),
    row(403, "LastTokenProcessing", "The last token request is processing."),
    row(403, "IdempotentProcessing", "The previous idempotent request is still processing."),
    row(403, "IdempotentFailed", UNTOLD),
    row(400, "IdempotentParameterMismatch", UNTOLD),
    row(403, "InvalidIdempotenceParameter.Mismatch", UNTOLD),
    row(400, "IllegalTimestamp", UNTOLD),
    row(400, "UnsupportedParameter", UNTOLD),
    row(404, "InvalidProduct.NotFound", UNTOLD),
    row(403, "Forbidden.AccessKeyDisabled", UNTOLD),
    row(403, "Forbidden.SubUser", "The specified action is not available for you."),
    row(403, "Forbidden.Unauthorized", UNTOLD),
    row(403, "Forbidden", UNTOLD),
    row(403, "InvalidAction", UNTOLD),
    row(403, "Forbidden.NotSupportRAM", UNTOLD),
    row(403, "Forbidden.RiskControl", UNTOLD),
    row(403, "RealNameAuthenticationError", UNTOLD),
    row(400, "InsufficientBalance", UNTOLD),
    // An endpoint that serves other regions: no page lists them, users' reports do.
    row(400, "InvalidOperation.NotSupportedEndpoint", "The specified endpoint can't operate this region."),
    row(400, "RegionId.ApiNotSupported", UNTOLD),
    // Those that the vendor's own tools retry and no page lists.
    row(400, "Rejected.Throttling", UNTOLD),
    row(409, "Operation.Conflict", UNTOLD),
    row(400, "SystemBusy", UNTOLD),
    row(400, "SlbIsBusy", UNTOLD),
    row(400, "IncorrectInstanceStatus.Initializing", UNTOLD),
    // The Describe calls, for parameters that the simulator ignores.
    row(404, "InvalidInstanceChargeType.NotFound", UNTOLD),
    row(404, "InvalidInternetChargeType.ValueNotSupported", UNTOLD),
    row(404, "InvalidFilterKey.NotFound", UNTOLD),
    row(400, "InvalidHpcClusterId.NotFound", UNTOLD),
    row(400, "InvalidHpcClusterId.Creating", UNTOLD),
    // ModifyInstanceAttribute and ModifyNetworkInterfaceAttribute: the same rules under other codes.
    row(400, "InvalidNetworkType.NotSupported", UNTOLD),
    row(400, "InvalidOperation.InvalidEcsState", UNTOLD),
    row(400, "Forbidden.RegionId", UNTOLD),
    row(403, "EnterpriseGroupLimited.MutliGroupType", UNTOLD),
    row(403, "InvalidOperation.InvalidRegion", UNTOLD),
    row(403, "InvalidSecurityGroupId.NotVpc", UNTOLD),
    row(404, "InvalidSecurityGroupType.NotSupportClassic", UNTOLD),
    row(404, "InvalidSecurityGroupVpc.NotBelongToOneVpc", UNTOLD),
    row(404, "InvalidEcsId.NotFound", UNTOLD),
];

/// Message of a code without a documented text.
pub const UNTOLD: &str = "A fault that was asked for.";

const fn row(status: u16, code: &'static str, message: &'static str) -> Code {
    Code {
        status,
        code,
        message,
    }
}
