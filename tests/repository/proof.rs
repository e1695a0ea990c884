//! Each promise of docs/proof.md names tests that exist: binaries, modules, or functions by the start of their name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::error::Result;

/// The sources of tests and of the product, and the names of their files and folders.
fn sources() -> Result<(String, BTreeSet<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["tests", "src"].map(|name| root.join(name)).into();
    let (mut text, mut names) = (String::new(), BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let stem = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            let is_source = path.extension().is_some_and(|kind| kind == "rs");
            if is_source {
                text.push_str(&std::fs::read_to_string(&path)?);
            }
            if is_source || path.is_dir() {
                names.extend(stem);
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok((text, names))
}

/// The part of the page under a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let mut parts = page.split("\n## ");
    let part = parts.find_map(|part| part.strip_prefix(heading)?.strip_prefix('\n'));
    part.unwrap_or_default()
}

/// Whether there is this test: folder, file and function.
fn exists(test: &str) -> Result<bool> {
    let Some((file, function)) = test.rsplit_once("::") else {
        return Ok(false);
    };
    let folder = if file.starts_with("src/") {
        ""
    } else {
        "tests/"
    };
    let path = format!("{folder}{}.rs", file.replace("::", "/"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if !path.exists() {
        return Ok(false);
    }
    let source = std::fs::read_to_string(path)?;
    Ok(source.contains(&format!("fn {function}(")))
}

/// Where no test plays a row, the page says why.
#[test]
fn each_row_of_the_interleavings_and_each_limit_names_a_test_that_exists() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proof.md");
    let page = std::fs::read_to_string(page)?;
    let interleavings = section(&page, "Interleavings");
    let limits = section(&page, "Limits of ownership");
    for (text, least) in [(interleavings, 80), (limits, 25)] {
        let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
        let rows: Vec<&str> = rows.collect();
        assert!(rows.len() >= least, "{}", rows.len());
        for row in rows {
            let words = row.split('`').skip(1).step_by(2);
            let tests: Vec<&str> = words.filter(|word| word.contains("::")).collect();
            assert!(!tests.is_empty(), "no test: {row}");
            for test in tests {
                assert!(exists(test)?, "{test}: {row}");
            }
        }
    }
    let numbers = [
        ("A", 1, 15),
        ("B", 1, 5),
        ("C", 1, 22),
        ("D", 0, 9),
        ("E", 1, 20),
        ("F", 1, 17),
        ("G", 1, 8),
        ("H", 1, 12),
        ("R", 1, 4),
        ("R", 10, 13),
        ("J", 1, 5),
    ];
    let words: BTreeSet<&str> = interleavings
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .collect();
    for (letter, first, last) in numbers {
        for number in first..=last {
            let row = format!("{letter}{number}");
            assert!(words.contains(row.as_str()), "{row} is not there");
        }
    }
    Ok(())
}

#[test]
fn each_promise_names_a_test_that_exists() -> Result<()> {
    let (text, names) = sources()?;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proof.md");
    let page = std::fs::read_to_string(page)?;
    let promises = page.split("\n## ").next().unwrap_or_default();
    let rows = promises.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.skip(1).collect();
    assert!(rows.len() > 20, "{}", rows.len());
    for row in rows {
        let tests = row.split(" | ").nth(1).unwrap_or_default();
        let words = tests.split('`').skip(1).step_by(2);
        let is_name = |word: &&str| {
            let of_name =
                |letter: char| letter.is_ascii_lowercase() || "_:…0123456789".contains(letter);
            word.chars().all(of_name)
        };
        let mut found = 0;
        for segment in words.filter(is_name).flat_map(|word| word.split("::")) {
            let is_there = match segment.strip_suffix('…') {
                Some(start) => text.contains(&format!("fn {start}")),
                None => names.contains(segment) || text.contains(&format!("fn {segment}(")),
            };
            assert!(is_there, "{segment}: {row}");
            found += 1;
        }
        assert!(found > 0, "no test: {row}");
    }
    Ok(())
}
