//! The book in `docs/` hangs together: every page is listed, every link leads somewhere, every block of commands says who runs it, every
//! example is accepted by a real API server as it stands.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at its first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::error::{Context as _, Error, Result};

#[test]
fn summary_lists_every_page_once() {
    let summary = read("docs/SUMMARY.md");
    let mut listed: Vec<String> = links(&summary).map(str::to_owned).collect();
    listed.sort_unstable();
    let mut pages: Vec<String> = book_pages()
        .into_iter()
        .filter_map(|page| Some(page.strip_prefix("docs/")?.to_owned()))
        .filter(|page| page != "SUMMARY.md")
        .collect();
    pages.sort_unstable();
    assert_eq!(listed, pages);
    assert!(pages.len() > 35, "{pages:?}");
}

#[test]
fn every_link_leads_to_an_existing_file_and_heading() {
    let mut number = 0;
    for page in pages() {
        let text = without_code(&read(&page));
        for link in links(&text).filter(|link| !link.contains("://")) {
            number += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                repository().join(&page)
            } else {
                repository().join(&page).with_file_name("").join(file)
            };
            let target = target.canonicalize();
            let target = target.unwrap_or_else(|_| panic!("{page}: {link}"));
            // The book holds nothing else.
            assert!(
                !page.starts_with("docs/") || target.starts_with(repository().join("docs")),
                "{page}: {link} leads out of the book; write the path in code font"
            );
            if !anchor.is_empty() {
                let target = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&target).contains(anchor), "{page}: {link}");
            }
        }
    }
    println!("{number} links");
    assert!(number > 150, "{number}");
}

/// The marks above blocks of shell commands, and how many blocks have each.
#[test]
fn every_block_of_commands_says_who_runs_it() {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for page in pages() {
        for block in blocks(&read(&page)) {
            let place = format!("{page}:{}", block.line);
            assert!(!block.language.is_empty(), "{place}: name its language");
            if !["sh", "bash", "console"].contains(&block.language.as_str()) {
                assert_eq!(block.mark, None, "{place}: only for commands");
                continue;
            }
            let mark = block.mark.as_deref().unwrap_or_default();
            let kind = if mark == "run" {
                "run on a real API server by this test"
            } else if let Some(reason) = mark.strip_prefix("not run here: ") {
                assert!(reason.len() > 10, "{place}: why not?");
                "not run here"
            } else if mark == "run by .ci/run" {
                let script = read(".ci/run");
                for line in block.text.lines() {
                    let command = line.split('#').next().unwrap_or_default().trim();
                    assert!(script.contains(command), "{place}: .ci/run lacks {command}");
                }
                "run by .ci/run"
            } else if let Some((file, function)) = mark
                .strip_prefix("run by ")
                .and_then(|by| by.split_once(": "))
            {
                let source = read(file);
                assert!(
                    source.contains(&format!("fn {function}(")),
                    "{place}: {mark}"
                );
                "run by another test"
            } else {
                panic!("{place}: no comment above it says who runs it, or why nobody does")
            };
            *numbers.entry(kind).or_default() += 1;
        }
    }
    for (kind, number) in &numbers {
        println!("{number} blocks of commands: {kind}");
    }
    assert_eq!(numbers.len(), 4, "{numbers:?}");
}

/// The Chinese README says the same: the headings by level, and the blocks but for their comments.
#[test]
fn chinese_readme_has_the_headings_and_blocks_of_the_english_one() {
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    let levels = |text: &str| -> Vec<usize> {
        let text = without_code(text);
        let lines = text.lines().filter(|line| line.starts_with('#'));
        lines
            .map(|line| line.chars().take_while(|letter| *letter == '#').count())
            .collect()
    };
    assert_eq!(levels(&english), levels(&chinese));
    let without_comments = |text: &str| -> Vec<(String, Vec<String>)> {
        let line = |line: &str| {
            line.split(" #")
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned()
        };
        blocks(text)
            .into_iter()
            .map(|block| (block.language, block.text.lines().map(line).collect()))
            .collect()
    };
    assert_eq!(without_comments(&english), without_comments(&chinese));
    let targets = |text: &str| -> BTreeSet<String> {
        let leads_on = |link: &&str| !link.starts_with("README");
        links(text).filter(leads_on).map(str::to_owned).collect()
    };
    assert_eq!(targets(&english), targets(&chinese));
}

/// Each row of the tables of attacks and of rights names tests that are there: `binary` (`file::start_of_its_name…`).
#[test]
fn every_row_about_security_names_a_test() {
    let mut rows = 0;
    let mut attacks = BTreeSet::new();
    for page in ["docs/security.md", "docs/user/grants.md"] {
        let text = read(page);
        for line in text.lines().filter(|line| line.starts_with("| ")) {
            let Some((_, tests)) = line.trim_end_matches(" |").rsplit_once("| `") else {
                continue;
            };
            if !tests.contains("` (`") {
                continue;
            }
            rows += 1;
            let first = line.split('|').nth(1).unwrap_or_default().trim();
            attacks.extend(first.strip_prefix('T').and_then(|t| t.parse::<u32>().ok()));
            for named in format!("`{tests}").split("), ") {
                let parts: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
                let (binary, names) = parts.split_first().expect("a test binary");
                for name in names {
                    assert!(has_test(binary, name), "{page}: {binary} {name}");
                }
            }
        }
    }
    assert!(rows > 30, "{rows}");
    assert_eq!(attacks, (1..=21).collect(), "the attacks with a test");
}

/// Whether a test binary has this module, or a function in it whose name begins so.
fn has_test(binary: &str, name: &str) -> bool {
    let (module, function) = match name.split_once("::") {
        Some((module, function)) => (Some(module), function),
        None => (None, name),
    };
    let function = function.trim_end_matches('…');
    let mut files = Vec::new();
    let folder = if binary == "lib" {
        "src".to_owned()
    } else {
        format!("tests/{binary}")
    };
    collect(&repository().join(folder), "rs", &mut files);
    let is_of_module = |path: &&PathBuf| {
        let below = path.with_extension("");
        module.is_none_or(|module| below.iter().any(|part| part == module))
    };
    let mut files = files.iter().filter(is_of_module);
    if module.is_none() && (function.contains('/') || !function.contains('_')) {
        // A file or a folder, such as `listener` or `ecs_client/memory`.
        return files.any(|path| path.with_extension("").ends_with(function));
    }
    files.any(|path| {
        let source = std::fs::read_to_string(path).unwrap();
        source.contains(&format!("fn {function}"))
    })
}

/// Examples of our kinds can be read as our types, and a fragment is YAML at least.
#[test]
fn every_example_can_be_read() -> Result<()> {
    use security_group_operator::api;
    let (mut ours, mut others) = (0, 0);
    for page in pages() {
        for block in blocks(&read(&page)) {
            if block.language != "yaml" {
                continue;
            }
            let place = format!("{page}:{}", block.line);
            for document in block.text.split("\n---\n") {
                let object: serde_json::Value = serde_saphyr::from_str(document).context(&place)?;
                match object["kind"].as_str() {
                    Some("SecurityGroupMembership") => {
                        drop(serde_json::from_value::<api::SecurityGroupMembership>(
                            object,
                        )?);
                        ours += 1;
                    }
                    Some("CloudAccount") => {
                        drop(serde_json::from_value::<api::CloudAccount>(object)?);
                        ours += 1;
                    }
                    Some("ClusterCloudAccount") => {
                        drop(serde_json::from_value::<api::ClusterCloudAccount>(object)?);
                        ours += 1;
                    }
                    Some(_) | None => others += 1,
                }
            }
        }
    }
    println!("{ours} examples of our kinds, {others} of others");
    assert!(ours > 8 && others > 8, "{ours} {others}");
    Ok(())
}

/// A fenced block of a page.
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    pub language: String,
    pub text: String,
    /// The comment above it.
    pub mark: Option<String>,
}

/// The fenced blocks, without the indentation that they have in a list.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    let mut before = "";
    for (line, whole) in (1..).zip(text.lines()) {
        let content = whole.trim_start();
        let indent = whole.len() - content.len();
        match open.take() {
            Some((block, _)) if content.starts_with("```") => blocks.push(block),
            Some((mut block, outer)) => {
                block
                    .text
                    .push_str(whole.get(outer.min(indent)..).unwrap_or_default());
                block.text.push('\n');
                open = Some((block, outer));
            }
            None => {
                if let Some(language) = content.strip_prefix("```") {
                    let mark = before.trim().strip_prefix("<!-- ");
                    let mark = mark.and_then(|mark| mark.strip_suffix(" -->"));
                    let block = Block {
                        line,
                        language: language.to_owned(),
                        text: String::new(),
                        mark: mark.map(str::to_owned),
                    };
                    open = Some((block, indent));
                }
                before = whole;
            }
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

fn without_code(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("](").skip(1);
    parts.filter_map(|rest| rest.split(')').next())
}

/// The anchors of a page: those of its headings. The second of one name has a number, as mdBook and GitHub count them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let text = without_code(text);
    for title in text.lines().filter_map(|line| line.strip_prefix('#')) {
        let base = anchor(title.trim_start_matches('#').trim());
        let numbered = (1..).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        let free = names.find(|name| !all.contains(name));
        all.extend(free);
    }
    all
}

/// As mdBook and GitHub make it: lower case, no punctuation, a dash for each space.
fn anchor(title: &str) -> String {
    title
        .chars()
        .filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect::<String>()
        .to_lowercase()
}

/// The pages of the book and those beside it.
pub fn pages() -> Vec<String> {
    let beside = [
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ];
    let mut pages = book_pages();
    pages.extend(beside.map(str::to_owned));
    pages
}

fn book_pages() -> Vec<String> {
    let mut files = Vec::new();
    collect(&repository().join("docs"), "md", &mut files);
    let relative = |path: &PathBuf| {
        let path = path.strip_prefix(repository()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    files.iter().map(relative).collect()
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
}

pub fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).expect("a file of this repository")
}

pub fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// An error that names the block.
pub fn failed(place: &str, said: &[u8]) -> Error {
    Error::new(format!("{place}: {}", String::from_utf8_lossy(said)))
}
