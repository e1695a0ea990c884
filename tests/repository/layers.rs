//! Imports point downward: the modules of `src/` as `src/lib.rs` draws them, the files of each folder in no circle.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Imports that break the rule and stay: the importing module, what it imports, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Stands apart from the layers: nobody imports it, and it takes nothing but the vendor's signature.
const APART: (&str, &str) = ("simulator", "ecs::sign");

#[test]
fn top_level_modules_import_as_lib_rs_draws_them() {
    let source = Source::read();
    let layers = drawn_layers();
    let level = |module: &str| {
        let at = layers
            .iter()
            .position(|line| line.iter().any(|name| name == module));
        at.unwrap_or_else(|| panic!("src/lib.rs does not draw {module}"))
    };
    let mut wrong = Vec::new();
    for import in source.imports() {
        let (from, to) = (&import.from[0], &import.to[0]);
        let (apart, only) = APART;
        let allowed = if from == to {
            true
        } else if from == apart {
            import.to.join("::") == only
        } else {
            // Levels are counted from the top.
            to != apart && level(from) < level(to)
        };
        if !allowed {
            wrong.push(import.to_string());
        }
    }
    assert_eq!(wrong, [""; 0], "these imports do not point downward");
}

#[test]
fn files_of_a_folder_import_each_other_in_no_circle() {
    let source = Source::read();
    let mut circles = Vec::new();
    for folder in source.folders() {
        circles.extend(circle(&source.imports_within(&folder)));
    }
    assert_eq!(circles, [""; 0], "these imports form circles");
}

#[test]
fn every_exception_is_still_needed() {
    let mut source = Source::read();
    source.exceptions = &[];
    let imports: BTreeSet<_> = source
        .imports()
        .map(|import| (import.from.join("::"), import.to.join("::")))
        .collect();
    for (from, to, reason) in EXCEPTIONS {
        assert!(!reason.is_empty());
        let import = ((*from).to_owned(), (*to).to_owned());
        assert!(imports.contains(&import), "{from} does not import {to}");
    }
}

#[test]
fn imports_are_found_wherever_a_file_names_them() {
    let mut source = Source::default();
    source.add(&["a"], "pub mod b;\nmod c;\npub use self::b::Thing;\nuse crate::z::{x, y::{self, Y as Z}};\nfn f() { c::g() }\n");
    source.add(
        &["a", "b"],
        "// use super::c;\nconst TEXT: &str = \"super::c\";\nfn f<'a>(x: &'a str, y: char) -> bool { y == '\"' && x.is(super::super::z::y()) }\n#[cfg(test)]\nmod tests { use super::super::c; }",
    );
    source.add(&["a", "c"], "/* super::b */\npub(super) use super::Thing;");
    source.add(&["z"], "pub mod y;");
    source.add(&["z", "y"], "struct Y;");
    let imports: Vec<String> = source.imports().map(|import| import.to_string()).collect();
    assert_eq!(
        imports,
        [
            "a imports z",
            "a imports z::y",
            "a imports z::y",
            "a imports a::c",
            "a::b imports z::y",
            "a::c imports a::b",
        ]
    );
    assert!(circle(&source.imports_within(&["a".to_owned()])).is_empty());
    source.add(&["a", "b"], "use super::c::f;");
    let circles = circle(&source.imports_within(&["a".to_owned()]));
    assert_eq!(circles, ["a::b imports a::c", "a::c imports a::b"]);
}

/// The layers in `src/lib.rs`, from the top: the block after the line that says so.
fn drawn_layers() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(sources().join("lib.rs")).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .skip_while(|line| !line.starts_with("Imports point downward"))
        .skip_while(|line| *line != "```text")
        .skip(1)
        .take_while(|line| *line != "```")
        .collect();
    assert!(lines.len() > 3, "src/lib.rs draws no layers: {lines:?}");
    let names = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    lines.into_iter().map(names).collect()
}

fn sources() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A path of module names below the crate.
type Module = Vec<String>;

/// The files below `src/` by module.
#[derive(Default)]
struct Source {
    files: BTreeMap<Module, File>,
    exceptions: &'static [(&'static str, &'static str, &'static str)],
}

#[derive(Default)]
struct File {
    /// Each path that the file names, in the order of the file.
    paths: Vec<Vec<String>>,
    /// What it hands on with `pub use`, by the name that it gets.
    handed_on: BTreeMap<String, Vec<String>>,
}

/// A module names something of another one.
struct Import {
    from: Module,
    to: Module,
}

impl std::fmt::Display for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} imports {}", self.from.join("::"), self.to.join("::"))
    }
}

impl Source {
    fn read() -> Self {
        let mut source = Self {
            exceptions: EXCEPTIONS,
            ..Self::default()
        };
        source.read_folder(&sources(), &[]);
        assert!(source.files.len() > 50, "{}", source.files.len());
        source
    }

    fn read_folder(&mut self, folder: &Path, module: &[&str]) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let inner = [module, &[name]].concat();
            match (name, path.is_dir()) {
                // What is built of the layers.
                ("lib" | "main" | "bin", _) if module.is_empty() => {}
                (_, true) => self.read_folder(&path, &inner),
                ("mod", false) => self.add(module, &std::fs::read_to_string(&path).unwrap()),
                (_, false) => self.add(&inner, &std::fs::read_to_string(&path).unwrap()),
            }
        }
    }

    fn add(&mut self, module: &[&str], text: &str) {
        let module = module.iter().map(|name| (*name).to_owned()).collect();
        self.files.insert(module, File::parse(text));
    }

    fn folders(&self) -> BTreeSet<Module> {
        let folder = |module: &Module| module[..module.len() - 1].to_vec();
        let folders = self.files.keys().map(folder);
        folders.filter(|folder| !folder.is_empty()).collect()
    }

    /// Imports of other modules, without the exceptions.
    fn imports(&self) -> impl Iterator<Item = Import> {
        self.files.iter().flat_map(|(from, file)| {
            let imports = file.paths.iter().filter_map(|path| {
                let to = self.owner(&self.absolute(from, path)?);
                let is_exception = self.exceptions.iter().any(|(importer, imported, _)| {
                    from.join("::") == *importer && to.join("::") == *imported
                });
                let import = Import {
                    from: from.clone(),
                    to,
                };
                (!import.to.is_empty() && import.from != import.to && !is_exception)
                    .then_some(import)
            });
            imports.collect::<Vec<_>>()
        })
    }

    /// Who imports whom among the files and folders of this folder; its `mod.rs` has the folder's own name.
    fn imports_within(&self, folder: &[String]) -> BTreeSet<(String, String)> {
        let below = |module: &Module| {
            let rest = module.strip_prefix(folder)?;
            Some(
                folder
                    .iter()
                    .chain(rest.first())
                    .cloned()
                    .collect::<Vec<_>>(),
            )
        };
        self.imports()
            .filter_map(|import| Some((below(&import.from)?, below(&import.to)?)))
            .filter(|(from, to)| from != to)
            .map(|(from, to)| (from.join("::"), to.join("::")))
            .collect()
    }

    /// A path as it is below the crate; none if it leads out of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let mut base = module.to_vec();
        let rest = match path.first()?.as_str() {
            "crate" => {
                base.clear();
                &path[1..]
            }
            "self" => &path[1..],
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                base.truncate(base.len().checked_sub(ups)?);
                &path[ups..]
            }
            child => {
                base.push(child.to_owned());
                self.files.contains_key(&base).then_some(())?;
                &path[1..]
            }
        };
        base.extend_from_slice(rest);
        (path.len() > 1).then_some(base)
    }

    /// The module that has what a path names: where the path leads to something that is handed on, the module it comes from.
    fn owner(&self, path: &[String]) -> Module {
        let mut module: Module = Vec::new();
        let mut names = path.iter();
        for name in names.by_ref() {
            let mut inner = module.clone();
            inner.push(name.clone());
            if self.files.contains_key(&inner) {
                module = inner;
                continue;
            }
            let handed_on = self
                .files
                .get(&module)
                .and_then(|file| file.handed_on.get(name));
            if let Some(source) = handed_on.and_then(|path| self.absolute(&module, path)) {
                return self.owner(&source);
            }
            break;
        }
        module
    }
}

/// The imports that are part of a circle.
fn circle(imports: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut left = imports.clone();
    loop {
        let sources: BTreeSet<String> = left.iter().map(|(from, _)| from.clone()).collect();
        let targets: BTreeSet<String> = left.iter().map(|(_, to)| to.clone()).collect();
        let before = left.len();
        left.retain(|(from, to)| targets.contains(from) && sources.contains(to));
        if left.len() == before {
            let lines = left.iter().map(|(from, to)| format!("{from} imports {to}"));
            return lines.collect();
        }
    }
}

impl File {
    fn parse(text: &str) -> Self {
        let text = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or(text);
        let tokens = tokens(text);
        let mut file = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            let is_public_use = tokens[at] == "use" && at > 0 && {
                tokens[at - 1] == "pub" || tokens[at - 1] == ")"
            };
            if is_public_use {
                at += 1;
                let mut paths = Vec::new();
                at = read_tree(&tokens, at, &[], &mut paths);
                for (name, path) in paths {
                    // Handing on one's own is no import.
                    if path[0] != "self" {
                        file.paths.push(path.clone());
                    }
                    file.handed_on.insert(name, path);
                }
            } else if is_name(&tokens[at]) {
                let mut paths = Vec::new();
                at = read_tree(&tokens, at, &[], &mut paths);
                file.paths.extend(paths.into_iter().map(|(_, path)| path));
            } else {
                at += 1;
            }
        }
        file
    }
}

/// Reads a path, or the tree of a `use`, that begins at a token: each path with the name that it gets. Says where it ends.
fn read_tree(
    tokens: &[String],
    mut at: usize,
    start: &[String],
    paths: &mut Vec<(String, Vec<String>)>,
) -> usize {
    let mut path = start.to_vec();
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    loop {
        match token(at) {
            "{" => {
                at += 1;
                while !matches!(token(at), "}" | "") {
                    at = read_tree(tokens, at, &path, paths);
                    if token(at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
        if token(at) != "::" || !(is_name(token(at + 1)) || matches!(token(at + 1), "{" | "*")) {
            break;
        }
        at += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if token(at) == "as" {
        token(at + 1).clone_into(&mut name);
        at += 2;
    }
    paths.push((name, path));
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Names, `::`, and every other letter by itself; no comments, texts and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_text(rest) {
            length
        } else if letter == '"' {
            quoted(rest, '"')
        } else if letter == '\'' {
            // A lifetime has no second quote.
            if rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'') {
                quoted(rest, '\'')
            } else {
                1 + name_length(&rest[1..])
            }
        } else if is_name(rest) {
            let length = name_length(rest);
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !letter.is_whitespace() {
                tokens.push(letter.to_string());
            }
            letter.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn name_length(text: &str) -> usize {
    text.find(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .unwrap_or(text.len())
}

/// Length of a text in quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = true;
    for (at, letter) in text.char_indices() {
        if letter == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    text.len()
}

/// Length of a text of the form `r#"…"#`, if one begins here.
fn raw_text(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let marks = rest.find(|letter| letter != '#')?;
    let inner = rest[marks..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    let start = text.len() - inner.len();
    let length = inner.find(&end)?;
    Some(start + length + end.len())
}
