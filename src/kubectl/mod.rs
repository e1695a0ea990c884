//! `kubectl sgm`: questions that people ask about memberships, answered with their own rights.
//!
//! ```text
//! mod        arguments, one verb, exit code
//! verbs      why, members, groups, plan, adopt, drain, lint, completion: one file each
//! cluster    the kubeconfig; objects, accounts
//! cloud      a key, reads of the cloud
//! output     tables, JSON, YAML, names
//! sets       names of objects, memberships of a set
//! common     what every verb gets
//! failure    one line and an exit code
//! ```

mod adopt;
mod cloud;
mod cluster;
mod common;
mod complete;
mod drain;
mod failure;
mod groups;
mod lint;
mod members;
mod output;
mod plan;
mod progress;
mod sets;
mod why;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::cloud::CloudArguments;
use self::cluster::ClusterArguments;
use self::common::Common;
use self::failure::{Failure, exit};
use self::output::{Format, Report};

/// Answers questions about memberships of security groups.
///
/// It reads the cluster with your kubeconfig, and the cloud with your own key or with one that you may read. Only `drain` writes.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-sgm",
    bin_name = "kubectl sgm",
    version,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
struct Typed {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    cloud: CloudArguments,
    /// Format of the answer.
    #[arg(
        short = 'o',
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_default_value = true
    )]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, or yes; 1 something failed; 2 wrong arguments; 3 answered, and the answer is no (not Ready, mistakes, \
something left); 4 no such object; 5 a right is missing.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say why a membership or a set is as it is: what the operator owns, conditions, the last error and the next step, who else holds
    /// the edge, what its deletion would do.
    #[command(after_help = why::EXAMPLES)]
    Why(why::Arguments),
    /// List who is in a security group, and which objects name each member.
    #[command(after_help = members::EXAMPLES)]
    Members(members::Arguments),
    /// List every security group that targets are in, and which object, if any, names each.
    #[command(after_help = groups::EXAMPLES)]
    Groups(groups::Arguments),
    /// Print memberships in YAML for what is in a security group and is named by no object. Writes nothing.
    #[command(after_help = adopt::EXAMPLES)]
    Adopt(adopt::Arguments),
    /// Say what `kubectl apply` would do with files, without doing it.
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::Arguments),
    /// Delete every membership before the operator is uninstalled, and wait until they are gone.
    #[command(after_help = drain::EXAMPLES)]
    Drain(drain::Arguments),
    /// Say what is wrong in files, without a cluster: every mistake with its line.
    #[command(after_help = lint::EXAMPLES)]
    Lint(lint::Arguments),
    /// Print a script that completes commands in a shell.
    #[command(after_help = complete::EXAMPLES)]
    Completion(complete::Arguments),
    /// What kubectl asks for the completion of its plugins.
    #[command(name = "__complete", hide = true, disable_help_flag = true)]
    Complete(complete::Asked),
}

/// Reads the arguments, answers, and prints: `arguments` begin with the name that the program was called by. Under the name
/// `kubectl_complete-sgm` it answers what kubectl asks for completion.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_stem);
    if called.is_some_and(|name| name == "kubectl_complete-sgm") {
        arguments.insert(1, "__complete".into());
    }
    let typed = match Typed::try_parse_from(arguments) {
        Ok(typed) => typed,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(exit::BROKEN_PIPE),
            };
        }
    };
    let common = Common {
        cluster: typed.cluster,
        cloud: typed.cloud,
        format: typed.output,
    };
    let format = common.format;
    let answered = answer(typed.verb, common).await;
    let printed = answered.and_then(|report| report.print(format).map(|()| report.code));
    match printed {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            tell(&failure);
            ExitCode::from(failure.code)
        }
    }
}

async fn answer(verb: Verb, common: Common) -> Result<Report, Failure> {
    match verb {
        Verb::Why(arguments) => why::run(arguments, &common).await,
        Verb::Members(arguments) => members::run(arguments, &common).await,
        Verb::Groups(arguments) => groups::run(arguments, &common).await,
        Verb::Adopt(arguments) => adopt::run(arguments, &common).await,
        Verb::Plan(arguments) => plan::run(arguments, &common).await,
        Verb::Drain(arguments) => drain::run(arguments, &common).await,
        Verb::Lint(arguments) => lint::run(&arguments),
        Verb::Completion(arguments) => Ok(complete::script(&arguments, Typed::command())),
        Verb::Complete(asked) => Ok(complete::run(&asked, Typed::command()).await),
    }
}

/// One line an error, whatever a text of others holds.
fn tell(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    let words: Vec<&str> = failure.message.split_whitespace().collect();
    output::note(&format!("kubectl sgm: {}", words.join(" ")));
}
