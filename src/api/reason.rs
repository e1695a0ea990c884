//! Condition types, reasons and event reasons, each once. Users match on these strings: changing one is breaking.

/// Normal-true: the object is what its spec asks for, by a cloud answer for this generation.
pub const READY: &str = "Ready";
/// Abnormal-true (kstatus): work or a wait is outstanding.
pub const RECONCILING: &str = "Reconciling";
/// Abnormal-true (kstatus): a human or another system must act.
pub const STALLED: &str = "Stalled";
/// Abnormal-true: the cloud differs from the spec, and the operator only reports it or is in a repair loop.
pub const DRIFTED: &str = "Drifted";
/// Neutral: `spec.suspend` is true. A membership makes no call to the cloud; a set changes no membership.
pub const SUSPENDED: &str = "Suspended";
/// Drifted=False: the operator knows of no drift.
pub const NO_DRIFT: &str = "NoDrift";

/// Normal-true, on accounts: the cloud's endpoints give usable answers.
pub const REACHABLE: &str = "Reachable";

/// Neutral, on accounts that are being deleted: memberships still need it. Also its reason.
pub const IN_USE: &str = "InUse";

/// Ready=Unknown: the operator has not observed the object yet.
pub const PENDING: &str = "Pending";
/// Ready=Unknown: the target has not been read for `--not-observed-after` scan periods. Account Reachable=False: the endpoints
/// answer, but some targets have not been read for three scan periods.
pub const NOT_OBSERVED: &str = "NotObserved";
/// Ready=True: this object joined the target to the group.
pub const JOINED: &str = "Joined";
/// Ready=True: the target was a member before; kept on deletion by default.
pub const ADOPTED: &str = "Adopted";
/// Ready=True: another live object manages the same membership and joined it.
pub const SHARED: &str = "Shared";
/// Ready=True: the target is a member and `managementPolicy` is `Observe`.
pub const OBSERVED: &str = "Observed";

/// Ready=False: the target is between states; retried without a call until it is Running or Stopped.
pub const WAITING_FOR_TARGET: &str = "WaitingForTarget";
/// Ready=False: the cloud cannot be called or gave no usable answer; retried.
pub const RETRYING: &str = "Retrying";
/// Ready=False: the account's quota for this API is used up for this minute, or for longer by earlier requests.
pub const THROTTLED: &str = "Throttled";
/// Ready=False: the API server refuses to store the operator's finalizer or claim, or to remove it; of a set, to change or delete a membership; retried.
pub const WRITE_REFUSED: &str = "WriteRefused";
/// Ready=False: the object named by `accountRef` does not exist.
pub const ACCOUNT_NOT_FOUND: &str = "AccountNotFound";
/// Ready=False: the account exists and cannot be used; its own conditions say why.
pub const ACCOUNT_NOT_READY: &str = "AccountNotReady";
/// Ready=False: the credentials now belong to another cloud account than the one that created the membership.
pub const ACCOUNT_CHANGED: &str = "AccountChanged";
/// Ready=False: no grant of the account lets this namespace use this group.
pub const NOT_GRANTED: &str = "NotGranted";
/// Ready=False: the target is not listed by the cloud in this region.
pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
/// Ready=False: the target is a member already and `adoptionPolicy` is `Refuse`.
pub const ADOPTION_REFUSED: &str = "AdoptionRefused";
/// Ready=False: the target is not in the group, and `managementPolicy` is `Observe`.
pub const NOT_A_MEMBER: &str = "NotAMember";
/// Ready=False and Drifted=True: another actor removed the membership, and `driftPolicy` is `Report`.
pub const DRIFT_REPORTED: &str = "DriftReported";
/// Drifted=True: another actor undid 3 repairs within 30 minutes.
pub const REPAIR_LOOP: &str = "RepairLoop";
/// Ready=False: the instance is Karpenter's, it is not a member, and `karpenterPolicy` is `Refuse`.
pub const KARPENTER_NODE: &str = "KarpenterNode";
/// Ready=False: the spec cannot be read by this version of the operator.
pub const INVALID_SPEC: &str = "InvalidSpec";

/// Account Reachable=True: a call got a usable answer, be it a refusal.
pub const ANSWERING: &str = "Answering";
/// Account Reachable=False: no call got a usable answer for three scan periods.
pub const NO_ANSWER: &str = "NoAnswer";
/// Account Ready=True: the cloud knows the credentials.
pub const CREDENTIALS_ACCEPTED: &str = "CredentialsAccepted";
/// Account Ready=False: the Secret does not exist.
pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
/// Account Ready=False: the Secret lacks a key or a value cannot be used.
pub const SECRET_INVALID: &str = "SecretInvalid";
/// Account Ready=False: the operator may not read the Secret.
pub const SECRET_FORBIDDEN: &str = "SecretForbidden";
/// Account Ready=False: the operator's environment holds no credentials.
pub const ENVIRONMENT_EMPTY: &str = "EnvironmentEmpty";
/// Account Ready=False: the metadata service or the credentials URI hands out no key.
pub const NO_KEY_HANDED_OUT: &str = "NoKeyHandedOut";
/// Account Ready=False: the service account of `oidc.serviceAccountName` does not exist.
pub const SERVICE_ACCOUNT_NOT_FOUND: &str = "ServiceAccountNotFound";
/// Account Ready=False: the operator may not request tokens of the service account.
pub const TOKEN_FORBIDDEN: &str = "TokenForbidden";
/// Account Ready=False: the file with the operator's own service account token cannot be used.
pub const TOKEN_UNUSABLE: &str = "TokenUnusable";

/// Event: another actor removed the target from the group.
pub const DRIFT_DETECTED: &str = "DriftDetected";
/// Event: the operator joined the target again after drift.
pub const DRIFT_REPAIRED: &str = "DriftRepaired";
/// Event: the operator removed the target from the group because the object was deleted. Ready=False: the same, while the
/// finalizer of another controller keeps the object.
pub const REMOVED: &str = "Removed";
/// Event: the object was deleted and the target stays a member of the group. Ready=False: the same, while the finalizer of
/// another controller keeps the object.
pub const RETAINED: &str = "Retained";
/// Event: the intent annotation is no claim of this object.
pub const CLAIM_IGNORED: &str = "ClaimIgnored";
/// Event: an object that was Stalled or not Ready is Ready again.
pub const RECOVERED: &str = "Recovered";

/// Set, Ready=True: every target that the cloud lists is a member.
pub const ALL_MEMBERS: &str = "AllMembers";
/// Set, Ready=True: the selector picks nothing, and there is nothing to remove.
pub const NO_TARGETS: &str = "NoTargets";
/// Set, Ready=False: some targets are not members yet.
pub const PROGRESSING: &str = "Progressing";
/// Set, Ready=False: the selector picks nothing although targets of the set still exist. Nothing is removed.
pub const NOTHING_SELECTED: &str = "NothingSelected";
/// Set, Ready=False: the operator may not list Nodes.
pub const NODES_FORBIDDEN: &str = "NodesForbidden";
/// Set, Ready=False: the Nodes, or the instances with its tags, could not all be read. Nothing is removed because of what was not read.
pub const SELECTION_INCOMPLETE: &str = "SelectionIncomplete";
/// Set, Ready=False: an object that is not the set's has the name of one of its memberships.
pub const NAME_TAKEN: &str = "NameTaken";
/// Set, Ready=False: the API server refuses to store a membership of the set.
pub const CREATE_REFUSED: &str = "CreateRefused";
/// Set, event: it created memberships.
pub const MEMBERSHIPS_CREATED: &str = "MembershipsCreated";
/// Set, event: it deleted memberships.
pub const MEMBERSHIPS_DELETED: &str = "MembershipsDeleted";
