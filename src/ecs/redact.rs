//! Makes text from the cloud fit to be shown: no secret, no string to sign, no control characters, bounded. Pure.

use super::credential::Credential;
use super::sign::percent_encode;

/// What stands where something was taken out.
pub(super) const REDACTED: &str = "[redacted]";

/// Bytes of a message that are kept.
pub(super) const MESSAGE_LIMIT: usize = 1024;

/// A message of the cloud, made fit for a condition, an event and a log.
pub(super) fn message(text: &str, credential: &Credential) -> String {
    bounded(
        &clean(&without_secrets(&without_string_to_sign(text), credential)),
        MESSAGE_LIMIT,
    )
}

/// A code, an ID or a state of the cloud: one short line.
pub(super) fn word(text: &str, credential: &Credential) -> String {
    bounded(&clean(&without_secrets(text, credential)), WORD_LIMIT)
}

const WORD_LIMIT: usize = 128;

/// Signature errors echo the whole string to sign, security token included, and differ in how they introduce it
/// ("server string to sign is:…", "server StringToSign is […"): everything after the words goes, however they are spelled.
fn without_string_to_sign(text: &str) -> String {
    const WORDS: &str = "stringtosign";
    let letters: Vec<(usize, char)> = text
        .char_indices()
        .filter(|(_, letter)| letter.is_ascii_alphanumeric())
        .map(|(at, letter)| (at + letter.len_utf8(), letter.to_ascii_lowercase()))
        .collect();
    let joined: String = letters.iter().map(|(_, letter)| letter).collect();
    let end = joined
        .find(WORDS)
        .and_then(|at| letters.get(at + WORDS.len() - 1));
    match end.and_then(|(end, _)| text.get(..*end)) {
        Some(kept) => format!("{kept} {REDACTED}"),
        None => text.to_owned(),
    }
}

/// Takes out the secret and the token themselves, plain and as they stand in a query (once) or a string to sign (twice).
fn without_secrets(text: &str, credential: &Credential) -> String {
    let secrets = [
        Some(credential.access_key_secret()),
        credential.security_token(),
    ];
    let mut text = text.to_owned();
    for secret in secrets.into_iter().flatten() {
        let once = percent_encode(secret);
        for form in [percent_encode(&once).as_str(), once.as_str(), secret] {
            if text.contains(form) {
                text = text.replace(form, REDACTED);
            }
        }
    }
    text
}

fn clean(text: &str) -> String {
    let spaced: String = text
        .chars()
        .filter(|letter| !is_invisible(*letter))
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Marks that reorder or hide text on a terminal.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn bounded(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit - '…'.len_utf8())
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}
