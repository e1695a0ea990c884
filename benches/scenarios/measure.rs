//! Measurements from outside: the cloud's counts, the API server's audit log, `/proc`. Reads only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::support::error::{Context as _, Result};

/// CPU seconds and memory of a process since its start.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Peak resident memory in MiB.
    pub peak_mib: f64,
    /// Current resident memory in MiB.
    pub resident_mib: f64,
}

/// Reads the counters of the kernel.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |name: &str| {
        let file = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&file).context(file)
    };
    let stat = read("stat")?;
    // The program name is in parentheses and may contain anything: count fields after it (proc(5)).
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |index: usize| -> Result<f64> {
        Ok(fields
            .get(index)
            .context("a short /proc/PID/stat")?
            .parse()?)
    };
    let status = read("status")?;
    let mib = |field: &str| -> Result<f64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .context(format!("no {field} in /proc/PID/status"))?;
        let kib: f64 = line
            .split_whitespace()
            .next()
            .context(format!("an empty {field}"))?
            .parse()?;
        Ok(kib / 1024.0)
    };
    Ok(Usage {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_A_SECOND,
        peak_mib: mib("VmHWM")?,
        resident_mib: mib("VmRSS")?,
    })
}

/// `USER_HZ`, which Linux fixes at 100 on all platforms used here.
const TICKS_A_SECOND: f64 = 100.0;

/// The cloud's counts: calls by API and result.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Calls {
    calls: BTreeMap<String, BTreeMap<String, u64>>,
    #[serde(default)]
    effects: BTreeMap<String, u64>,
}

impl Calls {
    /// From the simulator's `/stats`.
    pub fn read(stats: Value) -> Result<Self> {
        Ok(serde_json::from_value(stats)?)
    }

    /// All calls of an API, with any answer.
    pub fn of(&self, api: &str) -> u64 {
        self.calls
            .get(api)
            .map_or(0, |results| results.values().sum())
    }

    /// All calls to ECS (not STS).
    pub fn total(&self) -> u64 {
        self.calls
            .keys()
            .filter(|api| *api != "GetCallerIdentity")
            .map(|api| self.of(api))
            .sum()
    }

    /// Calls of an API with this result.
    pub fn with(&self, api: &str, result: &str) -> u64 {
        self.calls
            .get(api)
            .and_then(|results| results.get(result))
            .copied()
            .unwrap_or(0)
    }

    /// Changes that took effect.
    pub fn effects(&self, api: &str) -> u64 {
        self.effects.get(api).copied().unwrap_or(0)
    }

    /// Describe calls of any kind.
    pub fn describes(&self) -> u64 {
        self.calls
            .keys()
            .filter(|api| api.starts_with("Describe"))
            .map(|api| self.of(api))
            .sum()
    }

    /// `{API: {result: calls}}`, for the report.
    pub fn table(&self) -> &BTreeMap<String, BTreeMap<String, u64>> {
        &self.calls
    }
}

/// Requests to the API server by user, user agent, verb, resource and code.
pub type Requests = BTreeMap<Request, u64>;

/// The key by which requests are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub user: String,
    pub agent: String,
    pub verb: String,
    pub resource: String,
    pub code: u16,
}

impl Request {
    /// Whether it is about objects of this resource, or a subresource of one.
    pub fn is_of(&self, resource: &str) -> bool {
        let rest = self.resource.strip_prefix(resource);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether it changes an object.
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }
}

/// A position in the audit log to count from.
///
/// The log is read while it grows and is rotated at 100 MB: a full run of ten thousand objects fills half of that.
#[derive(Clone, Debug, Default)]
pub struct AuditCursor {
    read: BTreeMap<PathBuf, u64>,
}

/// The current end of the log.
pub fn cursor(log: &Path) -> Result<AuditCursor> {
    let mut read = BTreeMap::new();
    for file in files(log)? {
        let length = std::fs::metadata(&file)?.len();
        read.insert(file, length);
    }
    Ok(AuditCursor { read })
}

/// The requests answered since `cursor`.
pub fn requests_since(log: &Path, cursor: &AuditCursor) -> Result<Requests> {
    let mut requests = Requests::new();
    let current_at_cursor = cursor.read.get(log).copied().unwrap_or(0);
    let fresh: Vec<PathBuf> = files(log)?
        .into_iter()
        .filter(|file| file != log && !cursor.read.contains_key(file))
        .collect();
    // The log was rotated: the file that was current then is now the oldest of the new names.
    let mut parts: Vec<(PathBuf, u64)> = fresh.into_iter().map(|file| (file, 0)).collect();
    parts.push((log.to_owned(), 0));
    if let Some(first) = parts.first_mut() {
        first.1 = current_at_cursor;
    }
    for (file, offset) in parts {
        count(&file, offset, &mut requests)?;
    }
    Ok(requests)
}

/// The log and its rotated files, oldest first: their names end in the time.
fn files(log: &Path) -> Result<Vec<PathBuf>> {
    let directory = log.parent().context("a log without a directory")?;
    let mut turned: Vec<PathBuf> = std::fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("audit-2")) // the year
        })
        .collect();
    turned.sort();
    turned.push(log.to_owned());
    Ok(turned)
}

fn count(file: &Path, offset: u64, requests: &mut Requests) -> Result<()> {
    let mut file = File::open(file).context(file.display())?;
    file.seek(SeekFrom::Start(offset))?;
    for line in BufReader::new(file).lines() {
        // The last line may be incomplete and not parse; it belongs to the next cursor then.
        let Ok(line) = serde_json::from_str::<Line>(&line?) else {
            continue;
        };
        let is_watch = line.verb == "watch";
        if line.stage != "ResponseComplete" || is_watch {
            continue;
        }
        let reference = line.object_ref.unwrap_or_default();
        let resource = if reference.subresource.is_empty() {
            reference.resource
        } else {
            format!("{}/{}", reference.resource, reference.subresource)
        };
        let request = Request {
            user: line.user.username,
            agent: line.user_agent,
            verb: line.verb,
            resource,
            code: line.response_status.map_or(0, |status| status.code),
        };
        *requests.entry(request).or_default() += 1;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<Reference>,
    response_status: Option<Answer>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    resource: String,
    subresource: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
}
