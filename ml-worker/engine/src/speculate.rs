//! Guessing what comes next from what was said before (prompt lookup).
//!
//! Where a text repeats itself (a quotation, code, a list), the last few tokens occurred before, and what followed them
//! then is a cheap guess of what follows now. A guess is computed together with the token it follows, and kept only
//! if the sampler would have chosen it: the answer does not change. A few rows cost a CPU hardly more than one, but
//! wrong guesses are not free either, so a text that was guessed badly is left alone for a while.

/// Longest and shortest end of the text that is looked for.
const LONGEST_MATCH: usize = 4;
const SHORTEST_MATCH: usize = 2;
/// How far back is searched, in tokens.
const WINDOW: usize = 8192;
/// Longest pause after guesses that were all wrong, in steps.
const LONGEST_PAUSE: u32 = 64;

/// `count` tokens that may follow `tokens`, or none.
pub fn propose(tokens: &[u32], count: usize) -> Vec<u32> {
    let text = &tokens[tokens.len().saturating_sub(WINDOW)..];
    for length in (SHORTEST_MATCH..=LONGEST_MATCH).rev() {
        let Some(split) = text.len().checked_sub(length) else { continue };
        let end = &text[split..];
        // The latest occurrence: what was said last is said again soonest.
        if let Some(at) = (0..split).rev().find(|at| text[*at..*at + length] == *end) {
            let mut guess = Vec::with_capacity(count);
            for next in at + length..at + length + count {
                // What follows may reach the end of the text; then it goes on with itself.
                guess.push(text.get(next).copied().unwrap_or_else(|| guess[next - text.len()]));
            }
            return guess;
        }
    }
    Vec::new()
}

/// How well one text was guessed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speculation {
    // Steps to go without a guess.
    pause: u32,
    // Guesses in a row that were wrong from the first token on.
    misses: u32,
}

impl Speculation {
    /// Whether a guess is worth trying in this step. Counts the step.
    pub fn due(&mut self) -> bool {
        let due = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        due
    }

    /// Learns that the first `accepted` of `guessed` tokens were right.
    pub fn learn(&mut self, guessed: usize, accepted: usize) {
        if guessed == 0 {
            return;
        }
        self.misses = if accepted == 0 { (self.misses + 1).min(16) } else { 0 };
        self.pause = if accepted == 0 { (1 << self.misses.min(16)).min(LONGEST_PAUSE) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guess_should_be_what_followed_when_the_end_occurred_before() {
        assert_eq!(propose(&[1, 2, 3, 4, 5, 1, 2, 3], 3), [4, 5, 1]);
        assert_eq!(propose(&[1, 2, 3, 4, 5, 1, 2, 3], 1), [4]);
        // The longest end wins over a later, shorter one.
        assert_eq!(propose(&[7, 1, 2, 8, 9, 1, 2, 5, 7, 1, 2], 2), [8, 9]);
        // Something said over and over is expected to go on.
        assert_eq!(propose(&[5, 6, 5, 6, 5, 6], 4), [5, 6, 5, 6]);
        assert_eq!(propose(&[6, 6, 6, 6], 4), [6, 6, 6, 6]);
        for text in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4]] {
            assert!(propose(text, 4).is_empty());
        }
    }

    #[test]
    fn guessing_should_pause_longer_when_it_keeps_failing() {
        let mut state = Speculation::default();
        let mut tried = 0;
        for _ in 0..1_000 {
            if state.due() {
                tried += 1;
                state.learn(3, 0);
            }
        }
        assert!((5..30).contains(&tried), "{tried}");
        while !state.due() {}
        state.learn(3, 1);
        assert!(state.due(), "one right token ends the pause");
    }
}
