//! The pages for developers name what is there, and the table of state names all of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::error::Result;

/// Files whose locks or atomics hold no state of the operator, and why.
const STATELESS: [(&str, &str); 3] = [
    ("clock.rs", "the clock of tests"),
    ("ecs/test_transport.rs", "of unit tests alone"),
    ("telemetry/logs.rs", "where lines of the log go"),
];

/// What shares or changes a value between tasks.
const SHARING: [&str; 7] = [
    "Mutex<",
    "RwLock<",
    "OnceLock<",
    "AtomicBool",
    "AtomicU",
    "AtomicI",
    "AtomicPtr",
];

#[test]
fn each_row_of_the_state_table_names_types_and_files_that_exist() -> Result<()> {
    let sources = product_sources()?;
    let rows = state_rows()?;
    assert!(rows.len() > 30, "{}", rows.len());
    for row in &rows {
        let state = row.first().map(String::as_str).unwrap_or_default();
        for name in quoted(state).filter(|name| is_type(name)) {
            let definitions = ["struct", "enum", "type"].map(|word| format!("{word} {name}"));
            let is_defined = |(_, text): &(PathBuf, String)| {
                let lines = text.lines().map(|line| line.trim_start_matches("pub "));
                let mut lines = lines.map(|line| line.trim_start_matches("pub(super) "));
                lines.any(|line| definitions.iter().any(|start| starts_with(line, start)))
            };
            assert!(sources.iter().any(is_defined), "no type `{name}`: {row:?}");
        }
    }
    Ok(())
}

/// A new lock or atomic is a new row, or a reason.
#[test]
fn all_state_that_tasks_share_is_in_the_state_table() -> Result<()> {
    let owners: BTreeSet<String> = state_rows()?
        .iter()
        .flat_map(|row| row.iter().flat_map(|cell| quoted(cell)))
        .filter(|name| name.contains('/') || is_rust(name))
        .map(|name| {
            name.trim_end_matches(".rs")
                .trim_end_matches('/')
                .to_owned()
        })
        .collect();
    let mut stateless: BTreeSet<&str> = STATELESS.iter().map(|(file, _)| *file).collect();
    let mut unlisted = Vec::new();
    for (path, text) in product_sources()? {
        if !SHARING.iter().any(|word| text.contains(word)) {
            continue;
        }
        let path = path.display().to_string();
        if stateless.remove(path.as_str()) {
            continue;
        }
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let is_listed = Path::new(module)
            .ancestors()
            .any(|part| owners.contains(&part.display().to_string()));
        if !is_listed {
            unlisted.push(path);
        }
    }
    assert!(
        unlisted.is_empty(),
        "shares state between tasks, and has no row in the table of docs/dev/architecture.md: {unlisted:?}"
    );
    assert!(stateless.is_empty(), "not needed any more: {stateless:?}");
    Ok(())
}

#[test]
fn files_that_the_pages_for_developers_name_exist() -> Result<()> {
    let root = root();
    let mut pages = vec![root.join("docs/proof.md")];
    for entry in std::fs::read_dir(root.join("docs/dev"))? {
        pages.push(entry?.path());
    }
    let mut found = 0;
    let mut missing = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page)?;
        for name in text.lines().flat_map(quoted).filter(|name| is_path(name)) {
            let mut folders = ["", "src", "tests"].iter();
            found += 1;
            if !folders.any(|folder| root.join(folder).join(name).exists()) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(found > 100, "{found}");
    Ok(())
}

fn is_rust(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|kind| kind == "rs")
}

/// Whether this is a file of Rust in a folder: `membership/decide.rs`.
fn is_path(name: &str) -> bool {
    is_rust(name) && name.contains('/') && !name.contains(['*', ' ', '<', '{', '…'])
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The cells of each row of the table under the heading "State".
fn state_rows() -> Result<Vec<Vec<String>>> {
    let page = std::fs::read_to_string(root().join("docs/dev/architecture.md"))?;
    let mut parts = page.split("\n## ");
    let section = parts.find_map(|part| part.strip_prefix("State\n"));
    let rows = section.unwrap_or_default().lines();
    let rows = rows.filter(|line| line.starts_with("| ")).skip(1);
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    Ok(rows.map(cells).collect())
}

/// The operator's sources without their tests, by path in `src`. Simulator and plugin are not the operator.
fn product_sources() -> Result<Vec<(PathBuf, String)>> {
    let source = root().join("src");
    let mut folders = vec![source.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let inner = path.strip_prefix(&source)?.to_owned();
            let is_other = ["simulator", "kubectl", "bin"]
                .map(Path::new)
                .contains(&inner.as_path());
            if path.is_dir() && !is_other {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = std::fs::read_to_string(&path)?;
                let product = text.split("\n#[cfg(test)]\nmod tests {").next();
                sources.push((inner, product.unwrap_or_default().to_owned()));
            }
        }
    }
    Ok(sources)
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether this is the name of a type: `ObjectTable`.
fn is_type(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric())
        && name.contains(|letter: char| letter.is_ascii_lowercase())
}

fn starts_with(line: &str, start: &str) -> bool {
    let rest = line.strip_prefix(start);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
}
