//! The one error of the support code: a sentence for the person who reads a failed test. Pure.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error and its causes, as text. `Debug` prints the text too, because a failed test prints `Debug`.
///
/// It does not implement `std::error::Error`, so that `?` can convert any error.
pub struct Error(String);

impl Error {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Adds the attempted action to an error.
pub trait Context<T> {
    fn context(self, tried: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, tried: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("{tried}: {}", error.into())))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, tried: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error(tried.to_string()))
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
