//! Makes text from the cloud fit to be shown: no secret, no string to sign, no control characters, bounded. Pure.

use super::credential::Credential;
use super::sign::percent_encode;

/// What stands where something was taken out.
pub(super) const REDACTED: &str = "[redacted]";

/// Bytes of a message that are kept.
pub(super) const MESSAGE_LIMIT: usize = 1024;

/// A message of the cloud, made fit for a condition, an event and a log.
pub(super) fn message(text: &str, credential: &Credential) -> String {
    // Cleaned first, so that no invisible letter hides a secret; cut last, so that no half of one stays.
    let text = without_string_to_sign(&clean(text));
    bounded(&without_secrets(&text, credential), MESSAGE_LIMIT)
}

/// A code, an ID or a state of the cloud: one short line.
pub(super) fn word(text: &str, credential: &Credential) -> String {
    bounded(&without_secrets(&clean(text), credential), WORD_LIMIT)
}

const WORD_LIMIT: usize = 128;

/// Signature errors echo the whole string to sign, security token included, and differ in how they introduce it
/// (`server string to sign is:…`, `server StringToSign is […`): everything after the words goes, however they are spelled.
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
    for secret in secrets
        .into_iter()
        .flatten()
        .filter(|secret| secret.len() >= SHORTEST_SECRET)
    {
        let once = percent_encode(secret);
        for form in [percent_encode(&once).as_str(), once.as_str(), secret] {
            if text.contains(form) {
                text = text.replace(form, REDACTED);
            }
        }
    }
    text
}

/// Bytes. The cloud's own have 30 and more; one of three letters in a simulator would blot out half of every code.
const SHORTEST_SECRET: usize = 8;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        Credential::new("LTAI", "canary/secret+", Some("canary+token/=".into())).unwrap()
    }

    #[test]
    fn the_string_to_sign_goes_however_it_is_introduced() {
        for echo in [
            "server string to sign is:POST&%2F&SecurityToken%3Dcanary",
            "server StringToSign is [ACS3-HMAC-SHA256\ncanary]",
            "STRING_TO_SIGN=canary",
            "string-to-sign: canary",
            "string\nto\u{200b} sign canary",
            "stringToSign canary string to sign canary",
        ] {
            let shown = message(
                &format!("Specified signature is not matched. {echo}"),
                &credential(),
            );
            assert!(!shown.contains("canary"), "{shown}");
            assert!(
                shown.starts_with("Specified signature is not matched.")
                    && shown.ends_with(REDACTED),
                "{shown}"
            );
        }
    }

    #[test]
    fn secret_and_token_go_wherever_they_stand_and_however_they_are_encoded() {
        for secret in ["canary/secret+", "canary+token/="] {
            let once = percent_encode(secret);
            let twice = percent_encode(&once);
            let shown = message(&format!("a {secret} b {once} c {twice} d"), &credential());
            assert_eq!(shown, "a [redacted] b [redacted] c [redacted] d");
            assert_eq!(word(secret, &credential()), REDACTED);
        }
        // Taken out before the text is cut, or half a token would stay at the end.
        let late = format!("{}canary+token/=", "x".repeat(MESSAGE_LIMIT - 10));
        assert!(!message(&late, &credential()).contains("canary"));
        // Nor does an invisible letter inside save it.
        assert!(!message("canary+\u{200b}token/=", &credential()).contains("canary"));
    }

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        let shown = message(
            "a\u{0}b\nc\u{1b}[31m d\u{202e}e\u{feff}f  g\u{85}h",
            &credential(),
        );
        assert_eq!(shown, "a b c [31m def g h");
    }

    #[test]
    fn texts_are_bounded_at_whole_letters() {
        for letter in ["x", "节", "😀"] {
            let shown = message(&letter.repeat(5000), &credential());
            assert!(
                shown.len() <= MESSAGE_LIMIT
                    && shown.len() > MESSAGE_LIMIT - 8
                    && shown.ends_with('…'),
                "{}",
                shown.len()
            );
        }
        assert_eq!(word(&"x".repeat(128), &credential()), "x".repeat(128));
    }
}
