//! Completion: a script for the plugin by itself, and the answers that kubectl wants of `kubectl_complete-sgm`. Reads the cluster.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use clap::{Command, FromArgMatches as _};
use kube::ResourceExt as _;

use super::cluster::{Cluster, ClusterArguments};
use super::members::target_of;
use super::output::Report;

pub(super) const EXAMPLES: &str = "\
Examples:
  source <(kubectl sgm completion bash)                                  # for kubectl-sgm
  ln -s \"$(command -v kubectl-sgm)\" ~/.local/bin/kubectl_complete-sgm    # for kubectl sgm, kubectl 1.26 or newer";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// The words after `kubectl sgm`, the last of which is to be completed.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

pub(super) fn script(arguments: &Arguments, mut command: Command) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "kubectl-sgm", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    Report {
        text: Some(text),
        ..Report::default()
    }
}

/// The last line of an answer to kubectl: no files. <https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective>
const NO_FILES: &str = ":4\n";
/// The same, but files are offered.
const FILES: &str = ":0\n";
/// The longest wait for the cluster; the shell waits with it.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn run(asked: &Asked, command: Command) -> Report {
    let words = asked
        .words
        .iter()
        .map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    let (last, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last, before));
    let verb = before.iter().find_map(|word| {
        command
            .find_subcommand(word)
            .filter(|found| !found.is_hide_set())
    });
    let mut text = String::new();
    let mut offer = |value: &str, help: &str| {
        if value.starts_with(last) {
            let _ = writeln!(text, "{value}\t{help}");
        }
    };
    if last.starts_with('-') {
        for argument in command
            .get_arguments()
            .chain(verb.into_iter().flat_map(Command::get_arguments))
        {
            if let Some(long) = argument.get_long() {
                let help = argument
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                offer(&format!("--{long}"), &help);
            }
        }
        return answer(text, NO_FILES);
    }
    let Some(verb) = verb else {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let help = verb
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            offer(verb.get_name(), &help);
        }
        return answer(text, NO_FILES);
    };
    if matches!(verb.get_name(), "plan" | "lint") {
        return answer(text, FILES);
    }
    // A cluster that does not answer is no reason to hold up the shell.
    let found = tokio::time::timeout(PATIENCE, values(verb.get_name(), before)).await;
    for value in found.unwrap_or_default() {
        offer(&value, "");
    }
    answer(text, NO_FILES)
}

fn answer(text: String, directive: &str) -> Report {
    Report {
        text: Some(text + directive),
        ..Report::default()
    }
}

/// What the objects of the cluster offer for the argument of a verb; nothing where they cannot be read.
async fn values(verb: &str, before: &[String]) -> BTreeSet<String> {
    let flags = <ClusterArguments as clap::Args>::augment_args(Command::new("flags"))
        .ignore_errors(true)
        .disable_help_flag(true);
    let matches = flags.get_matches_from(std::iter::once("flags").chain(cluster_flags(before)));
    let arguments = ClusterArguments::from_arg_matches(&matches).unwrap_or_default();
    let Ok(cluster) = Cluster::connect(&arguments).await else {
        return BTreeSet::new();
    };
    let namespace = match verb {
        "why" => cluster.namespace.as_str(),
        _ => "",
    };
    let Ok(objects) = cluster.list(namespace, "").await else {
        return BTreeSet::new();
    };
    // Who may not list sets is offered none.
    let sets = match verb {
        "why" => cluster.sets(namespace).await.unwrap_or_default(),
        _ => Vec::new(),
    };
    let sets = sets.iter().map(|set| format!("sgmset/{}", set.name_any()));
    let values = objects.iter().map(|object| match verb {
        "why" => object.name_any(),
        "members" | "adopt" => object.spec.security_group_id.clone(),
        "groups" => target_of(object),
        _ => String::new(),
    });
    values
        .chain(sets)
        .filter(|value| !value.is_empty())
        .collect()
}

/// The typed words that name the cluster and the namespace.
fn cluster_flags(words: &[String]) -> Vec<&str> {
    let with_value = ["-n", "--namespace", "--context", "--kubeconfig", "--as"];
    let mut kept = Vec::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if with_value.contains(&word) {
            kept.push(word);
            kept.extend(words.next());
        } else if with_value.iter().any(|flag| {
            word.strip_prefix(flag)
                .is_some_and(|rest| rest.starts_with('='))
        }) {
            kept.push(word);
        }
    }
    kept
}
