//! Makes text from the cloud safe to show: no secrets, no string to sign, no control characters, limited length. Pure.

use std::ops::Range;

use zeroize::Zeroizing;

use super::access_key::Credential;
use crate::condition::truncate;

/// Replaces a removed secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Longest message in bytes.
pub(super) const MESSAGE_LIMIT: usize = 1024;

const WORD_LIMIT: usize = 128;

/// The secret parts of a credential: all pieces of its secret and its token, sorted. Zeroized on drop.
pub(super) struct Secrets(Zeroizing<Vec<Piece>>);

/// Eight letters in a row that match are taken for part of a secret: a message may have cut the secret off. A shorter secret
/// is not searched for (real ones have 30 letters or more): it would redact half of every code.
type Piece = [u8; 8];

impl Secrets {
    pub(super) fn of(credential: &Credential) -> Self {
        let secrets = [
            Some(credential.access_key_secret()),
            credential.security_token(),
        ]
        .map(Option::unwrap_or_default);
        Self::in_texts(secrets.into_iter())
    }

    /// The same for other secret texts, such as a service account token.
    pub(super) fn in_texts<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let secrets: Vec<_> = texts
            .map(|secret| Zeroizing::new(Letters::of(secret).plain))
            .collect();
        let count = secrets.iter().map(|secret| secret.len()).sum();
        let mut pieces = Zeroizing::new(Vec::with_capacity(count));
        pieces.extend(secrets.iter().flat_map(|secret| pieces_of(secret)));
        pieces.sort_unstable();
        Self(pieces)
    }

    /// A message of the cloud, safe for conditions, events and logs.
    pub(super) fn message(&self, text: &str) -> String {
        let text = without_string_to_sign(&clean(text));
        // Truncated last, so that no part of a secret remains.
        truncate(&self.taken_out_of(&text), MESSAGE_LIMIT)
    }

    /// A code, an ID or a state from the cloud, as one short line.
    pub(super) fn word(&self, text: &str) -> String {
        truncate(&self.taken_out_of(&clean(text)), WORD_LIMIT)
    }

    /// Replaces every part of a secret, plain or escaped.
    fn taken_out_of(&self, text: &str) -> String {
        let letters = Letters::of(text);
        let places = letters.places.windows(size_of::<Piece>());
        let mut shown = String::with_capacity(text.len());
        let mut end = 0;
        for (piece, place) in pieces_of(&letters.plain).zip(places) {
            if let [first, .., last] = place
                && self.0.binary_search(&piece).is_ok()
            {
                if first.start >= end {
                    shown.push_str(text.get(end..first.start).unwrap_or_default());
                    shown.push_str(REDACTED);
                }
                end = last.end;
            }
        }
        shown.push_str(text.get(end..).unwrap_or_default());
        shown
    }
}

fn pieces_of(plain: &[u8]) -> impl Iterator<Item = Piece> {
    plain
        .windows(size_of::<Piece>())
        .filter_map(|window| window.try_into().ok())
}

/// Removes the string to sign. Signature errors echo all of it, security token included, with different introductions
/// (`server string to sign is:…`, `server StringToSign is […`): everything after these words is cut, in any spelling or
/// escaping. Without these words, everything is cut from the `&/&` between method and parameters on.
fn without_string_to_sign(text: &str) -> String {
    let letters = Letters::of(text);
    let (word_ends, words): (Vec<usize>, Vec<u8>) = letters
        .places
        .iter()
        .zip(&letters.plain)
        .filter(|(_, byte)| byte.is_ascii_alphanumeric())
        .map(|(place, byte)| (place.end, byte.to_ascii_lowercase()))
        .unzip();
    let after_words =
        find(&words, WORDS).and_then(|at| word_ends.get(at + WORDS.len() - 1).copied());
    let root = find(&letters.plain, ROOT)
        .and_then(|at| letters.places.get(at))
        .map(|place| place.start);
    let end = after_words.into_iter().chain(root).min();
    match end.and_then(|end| text.get(..end)) {
        Some(kept) => format!("{kept} {REDACTED}"),
        None => text.to_owned(),
    }
}

const WORDS: &[u8] = b"stringtosign";
const ROOT: &[u8] = b"&/&";

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The letters of a text that a secret can contain (ASCII, no blanks), with the escapes of queries, JSON and XML undone
/// repeatedly. Other characters are skipped: a blank or an invisible mark inside a secret does not hide it.
struct Letters {
    plain: Vec<u8>,
    /// Byte range of each letter in the text, escapes included.
    places: Vec<Range<usize>>,
}

impl Letters {
    fn of(text: &str) -> Self {
        let mut letters = Self {
            plain: Vec::with_capacity(text.len()),
            places: Vec::with_capacity(text.len()),
        };
        for (at, byte) in text.bytes().enumerate() {
            letters.push(byte, at..at + 1);
            while let Some((length, byte)) = escape_at_end(&letters.plain) {
                let start = letters.plain.len() - length;
                let from = letters.places.get(start).map_or(at, |place| place.start);
                letters.plain.truncate(start);
                letters.places.truncate(start);
                letters.push(byte, from..at + 1);
            }
        }
        letters
    }

    fn push(&mut self, byte: u8, place: Range<usize>) {
        if byte.is_ascii_graphic() {
            self.plain.push(byte);
            self.places.push(place);
        }
    }
}

/// Number of letters at the end that form an escape, and the escaped letter.
fn escape_at_end(letters: &[u8]) -> Option<(usize, u8)> {
    match letters {
        [.., b'%', high, low] => Some((3, hex(&[*high, *low])?)),
        [.., b'\\', b'u', b'0', b'0', high, low] => Some((6, hex(&[*high, *low])?)),
        [.., b'\\', letter @ (b'/' | b'"' | b'\\')] => Some((2, *letter)),
        [earlier @ .., b';'] => {
            let length = 1 + earlier
                .iter()
                .rev()
                .take(7)
                .position(|byte| *byte == b'&')?;
            let name = earlier.get(earlier.len() - length + 1..)?;
            let byte = match name {
                b"amp" => b'&',
                b"lt" => b'<',
                b"gt" => b'>',
                b"quot" => b'"',
                b"apos" => b'\'',
                [b'#', b'x' | b'X', digits @ ..] => hex(digits)?,
                [b'#', digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok()?,
                _ => return None,
            };
            Some((length + 1, byte))
        }
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 16).ok()
}

fn clean(text: &str) -> String {
    let spaced: String = text
        .chars()
        .take(READ_LIMIT)
        .filter(|letter| !is_invisible(*letter))
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Number of letters that are searched; text after them is never shown.
const READ_LIMIT: usize = 16 * MESSAGE_LIMIT;

/// Marks that reorder or hide text in a terminal.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::super::sign::percent_encode;
    use super::*;

    fn secrets() -> Secrets {
        let token = Some("canary+token/=".into());
        Secrets::of(&Credential::new("LTAI", "canary/secret+", token).unwrap())
    }

    fn message(text: &str) -> String {
        secrets().message(text)
    }

    #[test]
    fn string_to_sign_is_redacted_in_every_spelling() {
        for echo in [
            "server string to sign is:POST&%2F&SecurityToken%3Dcanary",
            "server StringToSign is [ACS3-HMAC-SHA256\ncanary]",
            "STRING_TO_SIGN=canary",
            "string-to-sign: canary",
            "string\nto\u{200b} sign canary",
            "stringToSign canary string to sign canary",
            "server%20string%20to%20sign%20is%3Acanary",
            "server\\u0020string\\u0020to\\u0020sign canary",
            "POST&%2F&SecurityToken%3Dcanary",
            "POST%26%252f%26SecurityToken%253Dcanary",
            "POST&amp;%2F&amp;SecurityToken%3Dcanary",
        ] {
            let shown = message(&format!("Specified signature is not matched. {echo}"));
            assert!(!shown.contains("canary"), "{shown}");
            assert!(
                shown.starts_with("Specified signature is not matched.")
                    && shown.ends_with(REDACTED),
                "{shown}"
            );
        }
    }

    #[test]
    fn secrets_are_redacted_in_every_encoding() {
        for secret in ["canary/secret+", "canary+token/="] {
            let once = percent_encode(secret);
            let twice = percent_encode(&once);
            let shown = message(&format!("a {secret} b {once} c {twice} d"));
            assert_eq!(shown, "a [redacted] b [redacted] c [redacted] d");
            let escaped = |plus: &str, slash: &str, equals: &str| {
                let secret = secret.replace('+', plus).replace('=', equals);
                message(&secret.replace('/', slash))
            };
            for shown in [
                escaped("%2b", "%2f", "%3d"),
                escaped("%25252B", "%25252F", "%25253D"),
                escaped("\\u002b", "\\/", "\\u003d"),
                escaped("\\\\u002B", "\\\\/", "\\\\u003D"),
                escaped("&#43;", "&#x2F;", "&#61;"),
                escaped("&amp;#x2b;", "%26%2347%3B", "&amp;amp;#061;"),
                escaped("+\n", "/\u{ad}", "="),
            ] {
                assert_eq!(shown, REDACTED);
            }
            assert_eq!(secrets().word(secret), REDACTED);
        }
        // Removed before the text is truncated; otherwise half a token would remain at the end.
        let late = format!("{}canary+token/=", "x".repeat(MESSAGE_LIMIT - 10));
        assert!(!message(&late).contains("canary"));
        // An invisible letter inside does not hide it either.
        assert!(!message("canary+\u{200b}token/=").contains("canary"));
    }

    #[test]
    fn partial_secret_is_redacted() {
        assert_eq!(
            message("the token is canary+toke"),
            "the token is [redacted]"
        );
        assert_eq!(message("…ry%2Btoken%2F%3D, it is"), "…[redacted], it is");
        assert_eq!(message("canary+t canary+"), "[redacted] canary+");
    }

    #[test]
    fn text_without_secrets_is_unchanged() {
        for text in [
            "a % b %2 %zz %+5 &; &#; &#x; &#300; &nosuch; \\ \\u00 \\u00zz;",
            "InvalidInstanceId.NotFound",
            "Tom &amp; Jerry %41",
            "节点 & 组",
        ] {
            assert_eq!(message(text), text);
        }
    }

    #[test]
    fn short_secret_is_not_redacted_inside_other_words() {
        let secrets = Secrets::of(&Credential::new("LTAI", "stance", None).unwrap());
        assert_eq!(secrets.word("InstanceId"), "InstanceId");
    }

    #[test]
    fn terminal_control_characters_are_removed() {
        let shown = message("a\u{0}b\nc\u{1b}[31m d\u{202e}e\u{feff}f\u{61c}  g\u{85}h");
        assert_eq!(shown, "a b c [31m def g h");
    }

    #[test]
    fn long_texts_are_truncated_at_a_character() {
        for letter in ["x", "节", "😀"] {
            let shown = message(&letter.repeat(100_000));
            assert!(
                shown.len() <= MESSAGE_LIMIT
                    && shown.len() > MESSAGE_LIMIT - 8
                    && shown.ends_with('…'),
                "{}",
                shown.len()
            );
        }
        assert_eq!(secrets().word(&"x".repeat(128)), "x".repeat(128));
    }
}
