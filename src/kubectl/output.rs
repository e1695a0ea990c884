//! How answers are printed: tables as kubectl prints them, JSON, YAML, names. Colours only on a terminal.

use std::io::{IsTerminal as _, Write as _};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::failure::Failure;

/// The format of an answer (`-o`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table, or a text.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// A name a line.
    Name,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title, in capitals.
    pub title: &'static str,
    /// Whether only `-o wide` shows it.
    pub wide: bool,
}

/// A column that every table shows.
#[must_use]
pub const fn column(title: &'static str) -> Column {
    Column { title, wide: false }
}

/// A column that only `-o wide` shows.
#[must_use]
pub const fn wide(title: &'static str) -> Column {
    Column { title, wide: true }
}

/// The answer of a command, in every format.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What `-o table` and `-o wide` print instead of a table; `None` for a table.
    pub text: Option<String>,
    /// The columns of the table.
    pub columns: Vec<Column>,
    /// The cells of each row, one for each column.
    pub rows: Vec<Vec<String>>,
    /// What `-o name` prints.
    pub names: Vec<String>,
    /// What `-o json` and `-o yaml` print.
    pub value: Value,
    /// The exit code.
    pub code: u8,
}

impl Report {
    /// Writes the report to standard output.
    ///
    /// # Errors
    /// Standard output takes no more.
    pub fn print(&self, format: Format) -> Result<(), Failure> {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let text = self.render(format, colours)?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// The report as text.
    ///
    /// # Errors
    /// The value cannot be written as JSON or YAML; none of ours.
    pub fn render(&self, format: Format, colours: bool) -> Result<String, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(error.to_string());
        match (format, &self.text) {
            (Format::Json, _) => serde_json::to_string_pretty(&self.value)
                .map(|text| text + "\n")
                .map_err(|error| failed(&error)),
            (Format::Yaml, _) => {
                serde_saphyr::to_string(&self.value).map_err(|error| failed(&error))
            }
            (Format::Name, _) => Ok(lines(&self.names)),
            (Format::Table | Format::Wide, Some(text)) => Ok(text.clone()),
            (Format::Table | Format::Wide, None) => Ok(self.table(format == Format::Wide, colours)),
        }
    }

    /// As kubectl prints it: each column but the last is padded to its longest cell and three spaces.
    fn table(&self, all: bool, colours: bool) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|at| {
                self.columns
                    .get(*at)
                    .is_some_and(|column| all || !column.wide)
            })
            .collect();
        let titles: Vec<String> = self.columns.iter().map(|of| of.title.to_owned()).collect();
        let lines: Vec<Vec<&str>> = std::iter::once(&titles)
            .chain(&self.rows)
            .map(|row| {
                let cells = shown
                    .iter()
                    .map(|at| row.get(*at).map_or("", String::as_str));
                cells.collect()
            })
            .collect();
        let width = |at: usize| {
            let cells = lines.iter().filter_map(|line| line.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 3
        };
        let widths: Vec<usize> = (0..shown.len()).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let padding = width.saturating_sub(cell.chars().count());
                row.push_str(&coloured(cell, colours));
                if at + 1 < line.len() {
                    row.push_str(&" ".repeat(padding));
                }
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Each text on a line of its own.
fn lines(texts: &[String]) -> String {
    let mut all = String::new();
    for text in texts {
        all.push_str(text);
        all.push('\n');
    }
    all
}

/// A value of Ready in its colour.
#[must_use]
pub fn coloured(cell: &str, colours: bool) -> String {
    match (colours, cell) {
        (true, "True") => format!("\u{1b}[32m{cell}\u{1b}[0m"),
        (true, "False") => format!("\u{1b}[31m{cell}\u{1b}[0m"),
        (true, "Unknown") => format!("\u{1b}[33m{cell}\u{1b}[0m"),
        (_, cell) => cell.to_owned(),
    }
}

/// How long ago `then` was, as kubectl says it.
#[must_use]
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let both = |large: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => both(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => both(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => both(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

/// A number of things in words: "1 instance", "2 instances". Every noun of ours takes an s.
#[must_use]
pub fn counted(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

/// The first three of a list in words, and whether there are more: "a, b, c, …".
#[must_use]
pub fn first_three<T: AsRef<str>>(all: &[T]) -> String {
    let shown: Vec<&str> = all.iter().take(3).map(AsRef::as_ref).collect();
    let more = if all.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Says something on standard error that is no part of the answer.
pub fn note(text: &str) {
    // The answer counts, not the note.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (3_600, "60m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (176_400, "2d1h"),
            (864_000, "10d"),
        ] {
            assert_eq!(age(at(0), at(seconds)), text);
        }
        assert_eq!(age(at(9), at(0)), "0s");
    }

    #[test]
    fn colour_changes_no_width() {
        let report = Report {
            columns: vec![
                column("NAME"),
                column("READY"),
                wide("MORE"),
                column("LAST"),
            ],
            rows: vec![vec![
                "a-long-name".to_owned(),
                "False".to_owned(),
                "more".to_owned(),
                "x".to_owned(),
            ]],
            ..Report::default()
        };
        let plain = report.render(Format::Table, false).unwrap();
        assert_eq!(
            plain,
            "NAME          READY   LAST\na-long-name   False   x\n"
        );
        let coloured = report.render(Format::Table, true).unwrap();
        let bare = coloured.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
        assert_eq!(bare, plain);
        assert_ne!(coloured, plain);
        assert!(report.render(Format::Wide, false).unwrap().contains("MORE"));
    }
}
