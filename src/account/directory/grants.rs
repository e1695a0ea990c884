//! Which objects may use an account, for which groups, and with which targets. Pure.

use std::collections::BTreeMap;

use crate::api::account::{Grant, GrantedAction};
use crate::ecs::SecurityGroupId;

use super::group_tags::{GroupTags, TagsUnread};

/// Which objects may use an account, and for which groups.
#[derive(Clone, Debug, PartialEq)]
pub enum Grants {
    /// Every object that can name the account: the namespaced kind.
    OwnNamespace,
    /// The grants listed in the spec of the cluster kind.
    Listed(Vec<Grant>),
    /// The account cannot be read: no object may use it, and its state says why.
    Unknown,
}

/// What the grants say of one use, before the target is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// No grant allows it.
    No,
    /// It is allowed for every target.
    Yes,
    /// It is allowed for targets with certain tags, which only a read of the target shows.
    Tagged(TargetTags),
    /// That depends on the tags of the group, which have not been read yet.
    Unread,
    /// That depends on the tags of the group, which cannot be read.
    Unreadable(TagsUnread),
}

/// The tags of which a target must have those of at least one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTags(Vec<BTreeMap<String, String>>);

impl TargetTags {
    /// Whether a target with these tags is granted.
    #[must_use]
    pub fn allow(&self, tags: &BTreeMap<String, String>) -> bool {
        self.0.iter().any(|wanted| include(tags, wanted))
    }
}

/// What an object does with its group through the account.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// Namespace of the object.
    pub namespace: &'a str,
    /// Labels of the namespace; `None` while they are unknown: then no selector selects it.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The group.
    pub group: &'a SecurityGroupId,
    /// The action.
    pub action: GrantedAction,
}

/// What these grants say of a use. `group_tags` is asked for the tags of the group only if they make a difference: who has no grant by
/// tags causes no read.
#[must_use]
pub fn granted(
    grants: &[Grant],
    wanted: Use<'_>,
    group_tags: impl FnOnce() -> GroupTags,
) -> Granted {
    let covering: Vec<_> = grants
        .iter()
        .filter(|grant| covers(grant, wanted))
        .collect();
    let of_group = &wanted.group;
    let by_id = covering.iter().filter(|grant| {
        let ids = grant.security_groups.ids.iter().flatten();
        ids.into_iter()
            .any(|id| id == "*" || id == of_group.as_str())
    });
    let by_id = of_targets(by_id.copied());
    let by_tags = covering
        .iter()
        .filter_map(|grant| Some((*grant, grant.security_groups.tags.as_ref()?)));
    let by_tags: Vec<_> = by_tags.collect();
    if by_id == Granted::Yes || by_tags.is_empty() {
        return by_id;
    }
    match group_tags() {
        GroupTags::Unread => Granted::Unread,
        GroupTags::Unreadable(_) if by_id != Granted::No => by_id,
        GroupTags::Unreadable(trouble) => Granted::Unreadable(trouble),
        GroupTags::Known(tags) => {
            let tagged = by_tags.iter().filter(|(_, wanted)| include(&tags, wanted));
            let tagged = of_targets(tagged.map(|(grant, _)| *grant));
            match (by_id, tagged) {
                (Granted::Tagged(TargetTags(mut all)), Granted::Tagged(TargetTags(more))) => {
                    all.extend(more);
                    Granted::Tagged(TargetTags(all))
                }
                (by_id @ Granted::Tagged(_), Granted::No) => by_id,
                (_, tagged) => tagged,
            }
        }
    }
}

/// What grants that cover a namespace, an action and a group say of the targets.
fn of_targets<'a>(grants: impl Iterator<Item = &'a Grant>) -> Granted {
    let mut tags = Vec::new();
    for grant in grants {
        match grant.targets.as_ref() {
            None => return Granted::Yes,
            Some(targets) => tags.push(targets.tags.clone()),
        }
    }
    if tags.is_empty() {
        Granted::No
    } else {
        Granted::Tagged(TargetTags(tags))
    }
}

fn include(tags: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    let has = |(key, value)| tags.get(key) == Some(value);
    wanted.iter().all(has)
}

/// Whether one grant covers the namespace and the action of this use.
fn covers(grant: &Grant, wanted: Use<'_>) -> bool {
    let Use {
        namespace,
        labels,
        group: _,
        action,
    } = wanted;
    let namespaces = &grant.namespaces;
    let named = namespaces
        .names
        .as_ref()
        .is_some_and(|names| names.iter().any(|name| name == namespace));
    let selected = namespaces
        .selector
        .as_ref()
        .zip(labels)
        .is_some_and(|(selector, labels)| selector.matches(labels));
    (named || selected) && grant.allow.contains(&action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(yaml: &str) -> Grant {
        serde_saphyr::from_str(yaml).unwrap()
    }

    /// Asks grants by ID, which need no tags of the group.
    fn by_id(grants: &[Grant], wanted: Use<'_>) -> Granted {
        granted(grants, wanted, || panic!("no grant is by tags"))
    }

    fn asked(
        grant: &Grant,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
        group: &str,
    ) -> bool {
        let wanted = Use {
            namespace,
            labels,
            group: &group.parse().unwrap(),
            action: GrantedAction::Join,
        };
        by_id(std::slice::from_ref(grant), wanted) == Granted::Yes
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn grant_by_name_covers_only_its_namespaces_and_groups() {
        let grant = grant("{name: web, namespaces: {names: [web]}, securityGroups: {ids: [sg-1]}}");
        assert!(asked(&grant, "web", None, "sg-1"));
        assert!(!asked(&grant, "web", None, "sg-2"));
        assert!(!asked(&grant, "other", None, "sg-1"));
    }

    #[test]
    fn grant_by_label_needs_matching_known_labels() {
        let grant = grant(
            "{name: web, namespaces: {selector: {matchLabels: {team: web}}}, securityGroups: {ids: ['*']}}",
        );
        let team = |team: &str| labels(&[("team", team)]);
        assert!(asked(&grant, "a", Some(&team("web")), "sg-1"));
        assert!(!asked(&grant, "a", Some(&team("db")), "sg-1"));
        assert!(!asked(&grant, "a", None, "sg-1"));
    }

    #[test]
    fn grant_by_expression_matches_like_kubernetes() {
        for (expression, here, elsewhere, unlabelled) in [
            (
                "{key: team, operator: In, values: [web, db]}",
                true,
                false,
                false,
            ),
            (
                "{key: team, operator: NotIn, values: [web]}",
                false,
                true,
                true,
            ),
            ("{key: team, operator: NotIn}", false, false, false),
            ("{key: team, operator: In}", false, false, false),
            ("{key: team, operator: Exists}", true, true, false),
            ("{key: team, operator: DoesNotExist}", false, false, true),
        ] {
            let grant = grant(&format!(
                "{{name: web, namespaces: {{selector: {{matchExpressions: [{expression}]}}}}, securityGroups: {{ids: ['*']}}}}"
            ));
            let covered = |labels| asked(&grant, "a", Some(&labels), "sg-1");
            assert_eq!(covered(labels(&[("team", "web")])), here, "{expression}");
            assert_eq!(
                covered(labels(&[("team", "mail")])),
                elsewhere,
                "{expression}"
            );
            assert_eq!(covered(labels(&[])), unlabelled, "{expression}");
        }
    }

    #[test]
    fn grant_without_namespaces_covers_nothing() {
        let grant = grant("{name: none, namespaces: {}, securityGroups: {ids: ['*']}}");
        assert!(!asked(&grant, "a", Some(&BTreeMap::new()), "sg-1"));
    }

    /// Every set of actions, and every action.
    #[test]
    fn grant_covers_the_actions_that_it_allows_and_by_default_not_removal_of_what_was_adopted() {
        use GrantedAction::{Join, Observe, RemoveAdopted};
        let all = [Join, Observe, RemoveAdopted];
        let mut checked = 0;
        for allowed in 0..8 {
            let allow: Vec<_> = (0..3)
                .filter(|bit| allowed & (1 << bit) != 0)
                .map(|bit| all[bit])
                .collect();
            let mut grant =
                grant("{name: a, namespaces: {names: [a]}, securityGroups: {ids: [sg-1]}}");
            assert_eq!(grant.allow, [Join, Observe], "the default");
            grant.allow.clone_from(&allow);
            for action in all {
                let wanted = Use {
                    namespace: "a",
                    labels: None,
                    group: &"sg-1".parse().unwrap(),
                    action,
                };
                let is_granted = by_id(std::slice::from_ref(&grant), wanted) == Granted::Yes;
                assert_eq!(is_granted, allow.contains(&action), "{allow:?}, {action:?}");
                checked += 1;
            }
        }
        assert_eq!(checked, 24);
    }

    #[test]
    fn target_needs_all_tags_of_one_grant() {
        let tagged = |tags: &str| {
            grant(&format!(
                "{{name: a, namespaces: {{names: [a]}}, securityGroups: {{ids: [sg-1]}}, targets: {{tags: {tags}}}}}"
            ))
        };
        let wanted = Use {
            namespace: "a",
            labels: None,
            group: &"sg-1".parse().unwrap(),
            action: GrantedAction::Join,
        };
        let grants = [tagged("{team: a, tier: web}"), tagged("{team: b}")];
        let Granted::Tagged(tags) = by_id(&grants, wanted) else {
            panic!("both name tags");
        };
        for (of_target, is_allowed) in [
            (&[][..], false),
            (&[("team", "a")], false),
            (&[("tier", "web")], false),
            (&[("team", "a"), ("tier", "web")], true),
            (&[("team", "a"), ("tier", "web"), ("more", "")], true),
            (&[("team", "b")], true),
            (&[("team", "b"), ("tier", "db")], true),
            (&[("team", "c"), ("tier", "web")], false),
            (&[("Team", "b")], false),
        ] {
            assert_eq!(tags.allow(&labels(of_target)), is_allowed, "{of_target:?}");
        }
        let mut grants = grants.to_vec();
        grants[1].targets = None;
        assert_eq!(by_id(&grants, wanted), Granted::Yes);
        assert_eq!(by_id(&[], wanted), Granted::No);
    }

    /// Every combination of a grant by ID, a grant by tags, and what is known of the tags of the group.
    #[test]
    fn grant_by_group_tags_counts_where_the_tags_are_known_and_adds_to_grants_by_id() {
        let of = |groups: &str, targets: &str| {
            grant(&format!(
                "{{name: a, namespaces: {{names: [a]}}, securityGroups: {groups}{targets}}}"
            ))
        };
        let a = "{tags: {team: a}}";
        let by_ids = [
            None,
            Some(of("{ids: [sg-1]}", "")),
            Some(of("{ids: [sg-1]}", ", targets: {tags: {by: id}}")),
            Some(of("{ids: [sg-2]}", "")),
        ];
        let by_tags = [
            None,
            Some(of(a, "")),
            Some(of(a, ", targets: {tags: {by: tag}}")),
            Some(of("{tags: {team: a, tier: web}}", "")),
        ];
        let trouble = TagsUnread {
            stalled: true,
            message: "no right".to_owned(),
        };
        let known = [
            GroupTags::Unread,
            GroupTags::Unreadable(trouble.clone()),
            GroupTags::Known(labels(&[])),
            GroupTags::Known(labels(&[("team", "b")])),
            GroupTags::Known(labels(&[("team", "a")])),
        ];
        let tagged = |by: &[&str]| {
            let tags = by.iter().map(|by| labels(&[("by", by)]));
            Granted::Tagged(TargetTags(tags.collect()))
        };
        let mut checked = 0;
        for (by_id_number, by_id) in by_ids.iter().enumerate() {
            for (by_tags_number, by_tags) in by_tags.iter().enumerate() {
                for (known_number, known) in known.iter().enumerate() {
                    let grants: Vec<_> = by_id.iter().chain(by_tags).cloned().collect();
                    let wanted = Use {
                        namespace: "a",
                        labels: None,
                        group: &"sg-1".parse().unwrap(),
                        action: GrantedAction::Join,
                    };
                    let mut asks = 0;
                    let said = granted(&grants, wanted, || {
                        asks += 1;
                        known.clone()
                    });
                    let expected = match (by_id_number, by_tags_number, known_number) {
                        (1, _, _) | (_, 1, 4) => Granted::Yes,
                        (2, 2, 4) => tagged(&["id", "tag"]),
                        (0 | 3, 2, 4) => tagged(&["tag"]),
                        (_, 1..=3, 0) => Granted::Unread,
                        (0 | 3, 1..=3, 1) => Granted::Unreadable(trouble.clone()),
                        (2, _, _) => tagged(&["id"]),
                        _ => Granted::No,
                    };
                    let case = (by_id_number, by_tags_number, known_number);
                    assert_eq!(said, expected, "{case:?}");
                    let needs = by_id_number != 1 && by_tags_number != 0;
                    assert_eq!(asks, usize::from(needs), "{case:?}");
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 80);
        // Nor is anything asked for a namespace without a grant.
        let grants = [of(a, "")];
        let stranger = Use {
            namespace: "b",
            labels: None,
            group: &"sg-1".parse().unwrap(),
            action: GrantedAction::Join,
        };
        assert_eq!(by_id(&grants, stranger), Granted::No);
    }
}
