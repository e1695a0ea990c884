//! Text of a terminal as an animated SVG: frames that follow each other for ever. Pure.

use std::fmt::Write as _;

/// A step of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its heading.
    pub title: String,
    /// What it printed.
    pub lines: Vec<String>,
}

/// Letters in a line of the picture. A longer line goes on below.
const COLUMNS: usize = 132;
/// Lines of a frame. The rest of a longer step is left out, and the last line says so.
const ROWS: usize = 30;
/// How long a frame is shown (8 s).
const SECONDS: usize = 8;
/// Width of a letter in tenths of a pixel, and height of a line in pixels.
const LETTER: usize = 66;
const LINE: usize = 17;
/// The first line of the text, and the left edge, in pixels.
const TOP: usize = 50;
const LEFT: usize = 16;

/// The steps whose heading begins with one of `wanted`, in the order of the demo.
#[must_use]
pub fn frames(text: &str, wanted: &[&str]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut is_wanted = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            is_wanted = wanted.iter().any(|start| title.starts_with(start));
            if is_wanted {
                frames.push(Frame {
                    title: title.to_owned(),
                    lines: Vec::new(),
                });
            }
            continue;
        }
        if let Some(frame) = frames.last_mut().filter(|_| is_wanted) {
            let line = line.strip_prefix("  ").unwrap_or(line);
            if !line.is_empty() {
                frame.lines.extend(wrapped(line));
            }
        }
    }
    for frame in &mut frames {
        let left_out = frame.lines.len().saturating_sub(ROWS);
        if left_out > 0 {
            frame.lines.truncate(ROWS);
            frame.lines.push(format!("… {left_out} lines more"));
        }
    }
    frames
}

/// A line in pieces of at most [`COLUMNS`] letters, the later ones indented.
fn wrapped(line: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut length = 0;
    for word in line.split_inclusive(' ') {
        let letters = word.chars().count();
        if length + letters > COLUMNS && length > 0 {
            pieces.push(piece.trim_end().to_owned());
            piece = String::from("    ");
            length = 4;
        }
        piece.push_str(word);
        length += letters;
    }
    pieces.push(piece.trim_end().to_owned());
    pieces
}

/// The picture.
#[must_use]
pub fn draw(frames: &[Frame]) -> String {
    let rows = frames.iter().map(|frame| frame.lines.len()).max();
    let height = TOP + LINE * rows.unwrap_or(0) + LEFT;
    let width = LEFT * 2 + COLUMNS * LETTER / 10;
    let count = frames.len().max(1);
    let whole = count * SECONDS;
    let share = 100 / count;
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"A run of make demo\">
<style>
text {{ font: 11px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #c9d1d9; white-space: pre }}
.title {{ font-weight: bold; fill: #79c0ff }}
.typed {{ fill: #ffffff; font-weight: bold }}
.true {{ fill: #7ee787 }}
.false {{ fill: #ff7b72 }}
g {{ opacity: 0; animation: show {whole}s step-end infinite }}
@keyframes show {{ 0% {{ opacity: 1 }} {share}% {{ opacity: 0 }} }}
@media (prefers-reduced-motion: reduce) {{ g {{ animation: none }} g:last-of-type {{ opacity: 1 }} }}
</style>
<rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#0d1117\"/>
"
    );
    for (at, frame) in frames.iter().enumerate() {
        let delay = at * SECONDS;
        let _ = writeln!(svg, "<g style=\"animation-delay: {delay}s\">");
        let title = format!("{}/{count} {}", at + 1, frame.title);
        let _ = writeln!(
            svg,
            "<text class=\"title\" x=\"{LEFT}\" y=\"26\">{}</text>",
            escaped(&title)
        );
        for (row, line) in frame.lines.iter().enumerate() {
            let y = TOP + LINE * row;
            let class = class(line);
            let _ = writeln!(
                svg,
                "<text{class} x=\"{LEFT}\" y=\"{y}\">{}</text>",
                escaped(line)
            );
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// How a line is drawn: what is typed, and what is Ready or not.
fn class(line: &str) -> &'static str {
    if line.starts_with("$ ") {
        return " class=\"typed\"";
    }
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        // Of these conditions neither value is good or bad by itself.
        (Some("Drifted" | "Stalled" | "Reconciling" | "Suspended"), _) => "",
        (_, Some("True")) => " class=\"true\"",
        (_, Some("False")) => " class=\"false\"",
        (_, Some(_) | None) => "",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
