//! Every documented error code, as the cloud sends it with its HTTP status, through the whole client.

use std::sync::{Arc, Mutex};

use security_group_operator::ecs::Class::{
    self, Absent, Blocked, Done, Invalid, Throttled, Transient, Transitional,
};
use security_group_operator::ecs::{Client, Error};

use super::server::{Reply, Server, group, instance, network_interface, region};

/// A cloud that answers every call with the code that was set last.
async fn cloud() -> (Client, Arc<Mutex<(u16, String)>>) {
    let next = Arc::new(Mutex::new((400, String::new())));
    let set = next.clone();
    let server = Server::start(move |_| {
        let (status, code) = next.lock().unwrap().clone();
        Reply::json(
            status,
            &format!(r#"{{"RequestId":"R","HostId":"ecs.aliyuncs.com","Code":"{code}","Message":"Words.","Recommend":"u"}}"#),
        )
    })
    .await;
    (server.client(), set)
}

/// What every code must be, whatever its class.
fn check(error: &Error, status: u16, code: &str, class: Class) {
    let Error::Api(api) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (api.status, api.code.as_str(), api.message.as_str()),
        (status, code, "Words.")
    );
    assert_eq!(api.request_id.as_ref().unwrap().as_str(), "R");
    assert_eq!(error.class(), class, "{status} {code}");
    assert!(error.classify().known, "{code}");
    assert!(
        error.hint().len() > 20,
        "{code}: the reader is told what to do"
    );
    assert_eq!(api.reason(), code.replace('.', ""));
    assert_eq!(
        error.outcome_unknown(),
        error.action().is_write() && (status >= 500 || code == "SignatureNonceUsed"),
        "{code}"
    );
}

#[tokio::test]
async fn every_join_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class) in JOIN_SEED.iter().chain(JOIN).chain(MODIFY).chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        for target in [instance(), network_interface()] {
            check(
                &client
                    .join_security_group(&region(), &target, &group())
                    .await
                    .unwrap_err(),
                *status,
                code,
                *class,
            );
        }
    }
}

#[tokio::test]
async fn every_leave_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class) in LEAVE.iter().chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        for target in [instance(), network_interface()] {
            check(
                &client
                    .leave_security_group(&region(), &target, &group())
                    .await
                    .unwrap_err(),
                *status,
                code,
                *class,
            );
        }
    }
}

#[tokio::test]
async fn every_describe_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class) in DESCRIBE.iter().chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        check(
            &client
                .describe_instances(&region(), &["i-1".parse().unwrap()])
                .await
                .unwrap_err(),
            *status,
            code,
            *class,
        );
        let interfaces = ["eni-1".parse().unwrap()];
        check(
            &client
                .describe_network_interfaces(&region(), &interfaces)
                .await
                .unwrap_err(),
            *status,
            code,
            *class,
        );
    }
}

#[tokio::test]
async fn every_sts_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class) in STS.iter().chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        check(
            &client.caller_identity().await.unwrap_err(),
            *status,
            code,
            *class,
        );
    }
}

/// A finalizer goes on these words and on no others; none of them is believed from a server that failed.
#[tokio::test]
async fn only_known_codes_confirm_a_leave() {
    let (client, next) = cloud().await;
    let mut done = Vec::new();
    for (_, code, _) in [JOIN_SEED, JOIN, LEAVE, DESCRIBE, MODIFY, COMMON, STS].concat() {
        for status in [400, 403, 404, 409, 500, 503] {
            *next.lock().unwrap() = (status, code.to_owned());
            let error = client
                .leave_security_group(&region(), &instance(), &group())
                .await
                .unwrap_err();
            if error.class() == Done {
                assert!(status < 500, "{code}");
                done.push(code);
            }
        }
    }
    done.sort_unstable();
    done.dedup();
    assert_eq!(
        done,
        [
            "InstanceNotInSecurityGroup",
            "InvalidEniId.NotFound",
            "InvalidInstanceId.NotFound",
            "InvalidSecurityGroupAssociation.NotFound",
            "InvalidSecurityGroupId.NotFound",
        ]
    );
}

#[tokio::test]
async fn lower_case_error_fields_are_read() {
    let body = r#"{"requestId":"R","code":"Throttling.Api","message":"Words."}"#;
    let server = Server::always(Reply::json(400, body)).await;
    let error = server
        .client()
        .join_security_group(&region(), &instance(), &group())
        .await
        .unwrap_err();
    check(&error, 400, "Throttling.Api", Throttled);
    assert_eq!(error.to_string(), "Throttling.Api: Words.");
}

/// The vendor's page of `JoinSecurityGroup`, in the edition that this project started from.
#[rustfmt::skip]
const JOIN_SEED: &[(u16, &str, Class)] = &[
    (400, "InvalidInstanceId.Mismatch", Invalid),
    (400, "InstanceSecurityGroupLimitExceeded", Blocked),
    (400, "MissingParameter", Invalid),
    (403, "IncorrectInstanceStatus", Transitional),
    (403, "InstanceLockedForSecurity", Blocked),
    (403, "SecurityGroupInstanceLimitExceeded", Blocked),
    (403, "InvalidInstanceId.AlreadyExists", Done),
    (403, "OperationDenied", Blocked),
    (404, "InvalidInstanceId.NotFound", Absent),
    (404, "InvalidSecurityGroupId.NotFound", Absent),
];

/// The same page today, English and Chinese together.
#[rustfmt::skip]
const JOIN: &[(u16, &str, Class)] = &[
    (400, "InstanceSecurityGroupLimitExceeded", Blocked),
    (403, "InstanceSecurityGroupLimitExceeded", Blocked),
    (400, "InvalidInstanceId.Mismatch", Invalid),
    (400, "InvalidInstanceId.Malformed", Invalid),
    (400, "InvalidOperation.NotSupportEnterpriseGroup", Invalid),
    (400, "InvalidOperation.MultiGroupType", Invalid),
    (400, "InvalidOperation.InvalidEniState", Transitional),
    (400, "InvalidOperation.EniAndGroupNotBelongSameUser", Invalid),
    (400, "NotBelongUser", Blocked),
    (400, "MissingParameter.RegionId", Invalid),
    (400, "InvalidStatus.EniOrInstanceIsBeingCreated", Transitional),
    (403, "IncorrectInstanceStatus", Transitional),
    (403, "InstanceLockedForSecurity", Blocked),
    (403, "SecurityGroupInstanceLimitExceeded", Blocked),
    (403, "InvalidInstanceId.AlreadyExists", Done),
    (403, "AclLimitExceed", Blocked),
    (403, "InvalidOperation.NetworkInterfaceCountExceeded", Blocked),
    (403, "InvalidOperation.ResourceManagedByCloudProduct", Invalid),
    (403, "InvalidOperation.InvalidEniType", Invalid),
    (403, "InvalidOperation.VpcMismatch", Invalid),
    (403, "InvalidOperation.EniServiceManaged", Invalid),
    (403, "InvalidParam.Malformed", Invalid),
    (403, "InvalidParam.EniIdAndInstanceId.Conflict", Invalid),
    (403, "Forbidden.InstanceIsBeingCreated", Transitional),
    (404, "InvalidSecurityGroupId.NotFound", Absent),
    (404, "InvalidInstanceId.NotFound", Absent),
    (404, "InvalidEniId.NotFound", Absent),
    (409, "InvalidOperation.Conflict", Transient),
    (500, "InternalError", Transient),
    (403, "OperationDenied", Blocked),
];

/// The vendor's page of `LeaveSecurityGroup`, English and Chinese together.
#[rustfmt::skip]
const LEAVE: &[(u16, &str, Class)] = &[
    (400, "InvalidInstanceId.Malformed", Invalid),
    (400, "MissingParameter.RegionId", Invalid),
    (400, "InvalidOperation.InvalidEniState", Transitional),
    (400, "InvalidSecurityGroupAssociation.NotFound", Done),
    (403, "InstanceLastSecurityGroup", Blocked),
    (403, "InvalidOperation.AtLeastInOneGroup", Blocked),
    (403, "IncorrectInstanceStatus", Transitional),
    (403, "InstanceLockedForSecurity", Blocked),
    (403, "InstanceNotInSecurityGroup", Done),
    (403, "InvalidOperation.ResourceManagedByCloudProduct", Invalid),
    (403, "InvalidOperation.EniServiceManaged", Invalid),
    (403, "InvalidOperation.InvalidEniType", Invalid),
    (403, "InvalidParam.Malformed", Invalid),
    (403, "InvalidParam.EniIdAndInstanceId.Conflict", Invalid),
    (404, "InvalidInstanceId.NotFound", Done),
    (404, "InvalidSecurityGroupId.NotFound", Done),
    (404, "InvalidEniId.NotFound", Done),
    (404, "InvalidVSwitchId.NotFound", Absent),
    (409, "InvalidOperation.Conflict", Transient),
    (504, "RequestTimeout", Transient),
];

/// `DescribeInstances`, `DescribeNetworkInterfaces`, `DescribeSecurityGroups`.
#[rustfmt::skip]
const DESCRIBE: &[(u16, &str, Class)] = &[
    (404, "InvalidInstanceChargeType.NotFound", Invalid),
    (404, "InvalidInternetChargeType.ValueNotSupported", Invalid),
    (404, "InvalidLockReason.NotFound", Invalid),
    (404, "InvalidFilterKey.NotFound", Invalid),
    (404, "InvalidNetworkType.NotFound", Invalid),
    (404, "InvalidStatus.NotFound", Invalid),
    (400, "InvalidTag.Mismatch", Invalid),
    (400, "InvalidTagCount", Invalid),
    (400, "InvalidHpcClusterId.NotFound", Invalid),
    (400, "InvalidHpcClusterId.Creating", Invalid),
    (404, "InvalidRegionId.NotFound", Invalid),
    (400, "NotSupported.PageNumberAndPageSize", Invalid),
    (400, "InValidParameter.NextToken", Transient),
    (400, "MissingParameter.RegionId", Invalid),
    (400, "InvalidParameter.SecurityGroupType", Invalid),
    (400, "InvalidSecurityGroupId.Malformed", Invalid),
    (400, "InvalidSecurityGroupName.Malformed", Invalid),
    (500, "InternalError", Transient),
    (400, "DryRunOperation", Invalid),
    (404, "InvalidSecurityGroupId.NotFound", Absent),
];

/// `ModifyInstanceAttribute` and `ModifyNetworkInterfaceAttribute`: the same rules in other words, so Join may say them.
#[rustfmt::skip]
const MODIFY: &[(u16, &str, Class)] = &[
    (400, "JoinedGroupLimitExceed", Blocked),
    (400, "InvalidOperation.EniCountExceeded", Blocked),
    (400, "InvalidNetworkType.NotSupported", Invalid),
    (400, "InvalidOperation.InvalidEcsState", Transitional),
    (403, "IncorrectInstanceStatus", Transitional),
    (403, "InstanceLockedForSecurity", Blocked),
    (403, "OperationDenied", Blocked),
    (403, "EnterpriseGroupLimited.MutliGroupType", Invalid),
    (403, "SecurityGroupInstanceLimitExceed", Blocked),
    (403, "InvalidOperation.InvalidRegion", Invalid),
    (403, "InvalidOperation.ResourceManagedByCloudProduct", Invalid),
    (403, "AclLimitExceed", Blocked),
    (404, "InvalidInstanceId.NotFound", Absent),
    (404, "InvalidSecurityGroupId.NotFound", Absent),
    (404, "InvalidParameter.SecurityGroupIdRepeated", Invalid),
    (404, "InvalidSecurityGroupType.NotSupportClassic", Invalid),
    (404, "InvalidSecurityGroupVpc.NotBelongToOneVpc", Invalid),
    (500, "InternalError", Transient),
    (400, "MissingParameter", Invalid),
    (400, "UnsupportedParameter", Invalid),
    (400, "InvalidParameter", Invalid),
    (400, "InvalidOperation.InvalidEniState", Transitional),
    (400, "InvalidParams.EniId", Invalid),
    (400, "Forbidden.RegionId", Blocked),
    (403, "Forbidden.SubUser", Blocked),
    (403, "Forbidden.NotSupportRAM", Blocked),
    (403, "InvalidOperation.VpcMismatch", Invalid),
    (403, "InvalidSecurityGroupId.NotVpc", Invalid),
    (403, "InvalidOperation.InvalidEniType", Invalid),
    (403, "InvalidOperation.EniServiceManaged", Invalid),
    (403, "InvalidOperation.MultiGroupType", Invalid),
    (403, "InvalidOperation.EniCountExceeded", Blocked),
    (404, "InvalidEniId.NotFound", Absent),
    (404, "InvalidEcsId.NotFound", Absent),
    (404, "InvalidVSwitchId.NotFound", Absent),
    (404, "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc", Invalid),
];

/// ECS' common codes, the gateway's, and those that the vendor's own tools retry.
#[rustfmt::skip]
const COMMON: &[(u16, &str, Class)] = &[
    (400, "Throttling", Throttled),
    (400, "Throttling.User", Throttled),
    (400, "Throttling.Api", Throttled),
    (400, "Rejected.Throttling", Throttled),
    (409, "OperationConflict", Transient),
    (409, "InvalidOperation.Conflict", Transient),
    (409, "Operation.Conflict", Transient),
    (403, "LastTokenProcessing", Transient),
    (403, "IdempotentProcessing", Transient),
    (403, "IdempotentFailed", Transient),
    (500, "InternalError", Transient),
    (400, "UnknownError", Transient),
    (503, "ServiceUnavailable", Transient),
    (500, "ServiceUnavailable", Transient),
    (503, "ServiceUnavailable.RegionMaintaining", Transient),
    (504, "RequestTimeout", Transient),
    (400, "SystemBusy", Transient),
    (400, "SlbIsBusy", Transient),
    (400, "SignatureNonceUsed", Transient),
    (400, "InvalidTimeStamp.Expired", Blocked),
    (400, "InvalidTimeStamp.Format", Invalid),
    (400, "IllegalTimestamp", Blocked),
    (400, "IncompleteSignature", Blocked),
    (400, "SignatureDoesNotMatch", Blocked),
    (403, "SignatureDoesNotMatch", Blocked),
    (400, "InvalidSignatureMethod", Invalid),
    (400, "UnsupportedHTTPMethod", Invalid),
    (403, "UnsupportedHTTPMethod", Invalid),
    (404, "InvalidAccessKeyId.NotFound", Blocked),
    (400, "InvalidAccessKeyId.NotFound", Blocked),
    (400, "InvalidAccessKeyId.Inactive", Blocked),
    (403, "Forbidden.AccessKeyDisabled", Blocked),
    (400, "InvalidSecurityToken.Expired", Blocked),
    (400, "InvalidSecurityToken.Malformed", Blocked),
    (400, "InvalidSecurityToken.MismatchWithAccessKey", Blocked),
    (400, "MissingSecurityToken", Blocked),
    (403, "Forbidden.RAM", Blocked),
    (400, "Forbidden.RAM", Blocked),
    (403, "Forbidden.SubUser", Blocked),
    (403, "Forbidden.Unauthorized", Blocked),
    (403, "Forbidden", Blocked),
    (403, "InvalidAction", Blocked),
    (403, "NoPermission", Blocked),
    (403, "Forbidden.NotSupportRAM", Blocked),
    (403, "Forbidden.RiskControl", Blocked),
    (403, "RealNameAuthenticationError", Blocked),
    (400, "InsufficientBalance", Blocked),
    (400, "MissingParameter", Invalid),
    (403, "MissingParameter", Invalid),
    (400, "InvalidParameter", Invalid),
    (400, "UnsupportedParameter", Invalid),
    (404, "InvalidApi.NotFound", Blocked),
    (404, "InvalidProduct.NotFound", Blocked),
    (404, "InvalidAction.NotFound", Blocked),
    (404, "InvalidVersion", Blocked),
    (404, "InvalidRegionId.NotFound", Invalid),
    (400, "IdempotentParameterMismatch", Invalid),
    (403, "InvalidIdempotenceParameter.Mismatch", Invalid),
    (400, "IncorrectInstanceStatus.Initializing", Transitional),
];

/// STS; its HTTP statuses are not documented.
#[rustfmt::skip]
const STS: &[(u16, &str, Class)] = &[
    (401, "AuthenticationFail.OIDCToken.Expired", Blocked),
    (401, "AuthenticationFail.OIDCToken.AudienceNotMatch", Blocked),
    (401, "AuthenticationFail.OIDCToken.IssuerNotMatch", Blocked),
    (401, "AuthenticationFail.OIDCToken.IssuerConfigurationBroken", Blocked),
    (401, "AuthenticationFail.OIDCToken.Invalid", Blocked),
    (401, "AuthenticationFail.OIDCToken.PublicKeyFingerprintMismatch", Blocked),
    (403, "AuthenticationFail.NoPermission", Blocked),
    (404, "EntityNotExist.Role", Blocked),
    (400, "Throttling.User", Throttled),
];
