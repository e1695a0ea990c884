//! The recorded demo in README: a small picture that is drawn from what `make demo` prints today.

#[path = "../../examples/recording/svg.rs"]
mod svg;

use std::path::Path;

use crate::support::error::{Context as _, Result};

fn read(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path).context(file)
}

/// A step that was renamed, or that is gone, is not in the picture any more.
#[test]
fn each_step_of_the_recording_is_one_of_the_demo() -> Result<()> {
    let picture = read("docs/demo.svg")?;
    let walkthrough = read("examples/demo/walkthrough.rs")?;
    let titles = picture.lines().filter_map(|line| {
        let (_, title) = line
            .strip_prefix("<text class=\"title\"")?
            .split_once(' ')?;
        let (_, title) = title.split_once("/5 ")?;
        title.strip_suffix("</text>")
    });
    let titles: Vec<&str> = titles.collect();
    assert_eq!(titles.len(), 5, "{titles:?}");
    for title in titles {
        assert!(
            walkthrough.contains(title),
            "{title}: run examples/recording/record again"
        );
    }
    let commands = picture.lines().filter(|line| line.contains(">$ kubectl "));
    assert!(commands.count() >= 8, "too few commands to show much");
    Ok(())
}

#[test]
fn recording_is_small_well_formed_and_shown_by_both_readmes() -> Result<()> {
    let picture = read("docs/demo.svg")?;
    assert!(picture.len() < 100_000, "{} bytes", picture.len());
    let mut reader = quick_xml::Reader::from_str(&picture);
    loop {
        if reader.read_event()? == quick_xml::events::Event::Eof {
            break;
        }
    }
    let hosts = picture.matches("http").count();
    assert_eq!(hosts, 1, "it refers to another host than its own namespace");
    for file in ["README.md", "README.zh-CN.md"] {
        assert!(read(file)?.contains("](docs/demo.svg)"), "{file}");
    }
    Ok(())
}

#[test]
fn long_lines_go_on_below_and_long_steps_end_with_a_count() {
    let long = "word ".repeat(60);
    let many = "  line\n".repeat(40);
    let text =
        format!("== Not this\n  x\n\n== Join: it\n  $ kubectl get\n  {long}\n== Ask: it\n{many}");
    let frames = svg::frames(&text, &["Join:", "Ask:"]);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].title, "Join: it");
    assert_eq!(frames[0].lines.len(), 4);
    assert!(
        frames[0]
            .lines
            .iter()
            .all(|line| line.chars().count() <= 136)
    );
    assert_eq!(
        frames[1].lines.last().map(String::as_str),
        Some("… 10 lines more")
    );
    let picture = svg::draw(&frames);
    assert!(picture.contains("1/2 Join: it") && picture.contains("animation-delay: 8s"));
}
