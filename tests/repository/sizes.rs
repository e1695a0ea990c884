//! Files and functions of the product stay short enough to be read as one.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

use std::path::Path;

/// The most lines of a file without its tests.
const FILE: usize = 400;
/// The most lines of a function, from its name to its last brace.
const FUNCTION: usize = 60;
/// The first line of a longer file has these words, and a reason after them.
const REASON: &str = "long because ";

#[test]
fn longer_files_say_why_in_their_first_line() {
    let mut wrong = Vec::new();
    let files = sources();
    for (name, text) in &files {
        let lines = product(text).lines().count();
        if lines > FILE && !first_line_says_why(text) {
            wrong.push(format!("{name}: {lines} lines"));
        }
    }
    assert!(files.len() > 100, "{}", files.len());
    assert_eq!(wrong, [""; 0], "split them, or say why in the first line");
}

#[test]
fn only_long_files_say_why() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if product(&text).lines().count() <= FILE && first_line_says_why(&text) {
            wrong.push(name);
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    let mut number = 0;
    for (name, text) in sources() {
        for (function, lines) in functions(product(&text)) {
            number += 1;
            if lines > FUNCTION {
                wrong.push(format!("{name}: {function} has {lines} lines"));
            }
        }
    }
    assert!(number > 1_000, "{number}");
    assert_eq!(wrong, [""; 0], "cut them at their steps");
}

#[test]
fn lines_are_counted_without_tests_and_functions_to_their_last_brace() {
    let text = "//! A file, long because it is an example.\n\npub const fn one() {}\n\nimpl A {\n    pub(super) async fn two(\n        a: u8,\n    ) -> u8 {\n        if a > 1 {\n            a\n        }\n    }\n}\n\ntrait B {\n    fn three();\n\n    fn four(\n        a: u8,\n    );\n}\n\nfn five() {\n    fn six() {\n    }\n}\n\n#[cfg(test)]\nmod tests {\n    fn seven() {\n    }\n}\n";
    assert_eq!(product(text).lines().count(), 27);
    assert!(first_line_says_why(text));
    assert!(!first_line_says_why("//! It is long because \n"));
    let expected = [
        ("one", 1),
        ("two", 7),
        ("three", 1),
        ("four", 3),
        ("five", 4),
        ("six", 2),
    ];
    let expected = expected.map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(functions(product(text)), expected);
}

/// Each file below `src/`, by its path.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
                files.push((name.display().to_string(), text));
            }
        }
    }
    files.sort();
    files
}

/// The text before the module of the tests, which is the last one.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

fn first_line_says_why(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let reason = first.split_once(REASON).map(|(_, reason)| reason.trim());
    reason.is_some_and(|reason| !reason.is_empty())
}

/// Each function, in the order of the text, and its number of lines. The text is formatted: a function ends with a brace below the
/// letter that it begins with.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |line: &&str| {
            let rest = line.strip_prefix(indent);
            rest.is_some_and(|rest| rest == "}" || rest.starts_with(')') && rest.ends_with(';'))
        };
        let length = if line.ends_with(['}', ';']) {
            1
        } else {
            let rest = lines[at..].iter().position(ends);
            rest.unwrap_or_else(|| panic!("{name} has no end")) + 1
        };
        found.push((name, length));
    }
    found
}

/// The name of the function that begins in this line.
fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let word = words.find(|word| {
        let is_before = matches!(*word, "const" | "async" | "unsafe") || word.starts_with("pub");
        !is_before && !matches!(*word, "super)" | "in")
    });
    let rest = (word? == "fn").then(|| words.next())??;
    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    Some(rest[..end?].to_owned())
}
