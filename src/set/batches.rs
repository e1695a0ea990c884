//! Writes in batches that double, until the API server refuses. Pure.

use crate::kubernetes::Error;

use super::refusal::Refusal;

/// How a write of one membership ended.
pub(super) enum Written {
    Done,
    /// The next pass goes by what the watch has shown by then.
    Waits,
    /// An object of the name is about to go.
    Held,
    Refused(Refusal),
    /// The namespace is being deleted.
    Over,
}

/// What has become of many writes.
pub(super) struct Batches<T> {
    /// What the API server has stored or deleted.
    pub done: Vec<T>,
    /// What refused some, or what failed.
    pub end: Result<Option<Refusal>, Error>,
    /// Whether the rest is not tried.
    pub ended: bool,
    pub over: bool,
    /// How many were held back by an object that is about to go.
    pub held: usize,
    /// How many writes the next batch has at most.
    size: usize,
    /// How many writes were refused for another reason than their one target.
    refused: usize,
}

impl<T> Default for Batches<T> {
    fn default() -> Self {
        Self {
            done: Vec::new(),
            end: Ok(None),
            ended: false,
            over: false,
            held: 0,
            size: 1,
            refused: 0,
        }
    }
}

impl<T> Batches<T> {
    fn take(&mut self, item: T, outcome: Result<Written, Error>) {
        match outcome {
            Ok(Written::Done) => self.done.push(item),
            Ok(Written::Waits) => {}
            Ok(Written::Held) => self.held += 1,
            Ok(Written::Over) => (self.ended, self.over) = (true, true),
            Ok(Written::Refused(refusal)) => self.refused(refusal),
            // Of one object: the others may be written.
            Err(error) if error.code() == Some(409) => {
                self.refused += 1;
                self.end = Err(error);
            }
            Err(error) => self.failed(error),
        }
    }

    /// Keeps the last error. It goes before every refusal.
    pub fn failed(&mut self, error: Error) {
        self.ended = true;
        self.end = Err(error);
    }

    /// Takes the next batch from `rest`: twice the size of the one before, and `most` items at most.
    pub fn next<'a, I>(&self, rest: &mut &'a [I], most: usize) -> Option<&'a [I]> {
        let (batch, later) = rest.split_at(self.size.min(most).min(rest.len()));
        *rest = later;
        (!self.ended && !batch.is_empty()).then_some(batch)
    }

    /// Takes the outcomes of a batch. After a refusal the next batch is a single write. A batch of which nothing but refusals has come is
    /// the last one: what refuses these refuses ten thousand.
    pub fn take_batch(&mut self, outcomes: Vec<(T, Result<Written, Error>)>) {
        let (done, refused) = (self.done.len(), self.refused);
        for (item, outcome) in outcomes {
            self.take(item, outcome);
        }
        let is_refused = self.refused > refused;
        self.ended |= is_refused && self.done.len() == done;
        self.size = if is_refused {
            1
        } else {
            self.size.saturating_mul(2)
        };
    }

    /// Keeps the first refusal; one of all goes before one of a single target.
    fn refused(&mut self, refusal: Refusal) {
        self.refused += usize::from(!refusal.is_of_one_target());
        let Ok(told) = &mut self.end else {
            return;
        };
        let goes_before = |told: &Refusal| told.is_of_one_target() && !refusal.is_of_one_target();
        if told.as_ref().is_none_or(goes_before) {
            *told = Some(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a batch, of which those at `refuses` are refused. Returns its size; `None` after the last one.
    fn write(all: &mut Batches<usize>, rest: &mut &[usize], refuses: &[usize]) -> Option<usize> {
        let batch = all.next(rest, 64)?;
        let written = |item: &usize| {
            if refuses.contains(item) {
                Written::Refused(Refusal::Write("no".to_owned()))
            } else {
                Written::Done
            }
        };
        let outcomes = batch.iter().map(|item| (*item, Ok(written(item))));
        all.take_batch(outcomes.collect());
        Some(batch.len())
    }

    #[test]
    fn batches_double_and_begin_anew_with_one_after_a_refusal() {
        let (mut all, many) = (Batches::default(), (0..100).collect::<Vec<_>>());
        let mut rest = many.as_slice();
        let mut sizes = Vec::new();
        while let Some(size) = write(&mut all, &mut rest, &[9, 15]) {
            sizes.push(size);
        }
        // The tenth is refused among others, the sixteenth alone.
        assert_eq!(sizes, [1, 2, 4, 8, 1]);
        assert_eq!(all.done.len(), 14);
    }

    /// Each batch doubles the size of the next one: after 63 of them the size is the greatest number, and not 0.
    #[test]
    fn any_number_of_batches_is_written() {
        let (mut all, many) = (Batches::default(), (0..10_000).collect::<Vec<_>>());
        let mut rest = many.as_slice();
        while write(&mut all, &mut rest, &[]).is_some() {}
        assert_eq!(all.done, many);
    }
}
