//! What holds for every input, one file a fuzz target; `tests/unit/fuzz_corpus.rs` replays the corpus over the same functions. Each
//! takes bytes and panics where its property does not hold; nothing here does I/O or reads a clock that matters.
#![allow(
    dead_code,
    reason = "a fuzz target uses its own property, the replay all of them"
)]

pub mod answer;
pub mod error;
pub mod id;
pub mod inventory;
pub mod request;
pub mod window;

/// A target: its name, which is that of its folder in `corpus/`, and its property.
pub type FuzzTarget = (&'static str, fn(&[u8]));

pub const TARGETS: [FuzzTarget; 6] = [
    ("answer", answer::hold),
    ("error", error::hold),
    ("window", window::hold),
    ("id", id::hold),
    ("request", request::hold),
    ("inventory", inventory::hold),
];

/// Nothing in it that a terminal would obey or that hides text.
pub fn assert_printable(text: &str) {
    let invisible = |letter: char| matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    assert!(
        !text.contains(|letter: char| letter.is_control() || invisible(letter)),
        "a terminal would obey this: {text:?}"
    );
}

/// Fit for the `reason` of a condition.
pub fn assert_reason(reason: &str) {
    assert!(
        reason.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && reason
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && reason.len() <= 100,
        "{reason}"
    );
}
