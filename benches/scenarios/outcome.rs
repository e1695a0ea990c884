//! The result of a scenario for one candidate, as stored in JSON. Only types and arithmetic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Figures by name, lines of the plots, and notes for the reader.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Numbers by the names that the table uses.
    pub figures: BTreeMap<String, f64>,
    /// Lines of the plots: points of (seconds, value).
    #[serde(default)]
    pub lines: BTreeMap<String, Vec<(f64, f64)>>,
    /// Facts that the numbers alone do not show.
    #[serde(default)]
    pub notes: Vec<String>,
    /// All counts.
    #[serde(default)]
    pub raw: Value,
}

impl Outcome {
    /// Adds a number.
    pub fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// Adds a count.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a benchmark are far below 2^52"
    )]
    pub fn count(&mut self, name: &str, value: u64) {
        self.figure(name, value as f64);
    }
}

/// The value below which this share of the values lies; 0 without values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index made from a length and a share of it"
)]
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share).ceil() as usize;
    values.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// A count as a number for divisions.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
pub const fn number(count: u64) -> f64 {
    count as f64
}
