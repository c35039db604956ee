//! Varies a question as people do: greetings and thanks around it, other words for the same, missing words, typing errors.
//!
//! A model that saw few templates takes an unknown wrapper for an unknown subject. Variation teaches it which words
//! matter. It applies to training only; the examination asks what is written.

use rand::{rngs::StdRng, seq::SliceRandom, Rng};

use super::{corpus::Variation, phrasing::plain_words};

/// Share of questions with an opener, and of those with a closer.
const AROUND: f64 = 0.2;
/// Share of questions with a phrase replaced.
const SWAP: f64 = 0.4;
/// Share of questions with a small word left out.
const DROP: f64 = 0.15;
/// Share of questions with a typing error.
const TYPO: f64 = 0.1;
/// Share of questions in lower case without marks.
const PLAIN: f64 = 0.1;

/// A variation of `question` with the same meaning.
pub fn vary(question: &str, variation: &Variation, rng: &mut StdRng) -> String {
    let mut text = question.to_string();
    if rng.gen_bool(SWAP) {
        text = swap(&text, &variation.swaps, rng);
    }
    if rng.gen_bool(DROP) {
        text = drop_word(&text, &variation.drops, rng);
    }
    if rng.gen_bool(AROUND) {
        if let Some(opener) = variation.openers.choose(rng) {
            text = format!("{opener} {text}");
        }
    }
    if rng.gen_bool(AROUND) {
        if let Some(closer) = variation.closers.choose(rng) {
            text = format!("{text} {closer}");
        }
    }
    if rng.gen_bool(TYPO) {
        text = mistype(&text, rng);
    }
    if rng.gen_bool(PLAIN) {
        text = plain_words(&text);
    }
    text
}

/// Every text that one replacement can make. A phrase is found between word borders, whatever its first letter's case.
pub fn swapped(text: &str, swaps: &[Vec<String>]) -> Vec<String> {
    let lower = text.to_lowercase();
    // Lower case of other alphabets can change the length; such texts stay as they are.
    if lower.len() != text.len() {
        return Vec::new();
    }
    let border = |at: Option<u8>| at.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let mut found = Vec::new();
    for line in swaps {
        for phrase in line {
            let Some(start) = lower.find(&phrase.to_lowercase()) else { continue };
            let end = start + phrase.len();
            let bytes = lower.as_bytes();
            let before = start.checked_sub(1).and_then(|at| bytes.get(at).copied());
            if !border(before) || !border(bytes.get(end).copied()) {
                continue;
            }
            for other in line.iter().filter(|other| *other != phrase) {
                found.push(format!("{}{other}{}", &text[..start], &text[end..]));
            }
        }
    }
    found
}

fn swap(text: &str, swaps: &[Vec<String>], rng: &mut StdRng) -> String {
    swapped(text, swaps).choose(rng).cloned().unwrap_or_else(|| text.to_string())
}

fn drop_word(text: &str, drops: &[String], rng: &mut StdRng) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let small: Vec<usize> =
        (0..words.len()).filter(|at| drops.iter().any(|drop| drop.eq_ignore_ascii_case(words[*at]))).collect();
    match small.choose(rng) {
        Some(gone) if words.len() > 3 => {
            let kept: Vec<&str> =
                words.iter().enumerate().filter(|(at, _)| at != gone).map(|(_, word)| *word).collect();
            kept.join(" ")
        }
        _ => text.to_string(),
    }
}

/// Swaps, loses or doubles one letter inside a word of five letters or more.
fn mistype(text: &str, rng: &mut StdRng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let inside: Vec<usize> = (2..chars.len().saturating_sub(2))
        .filter(|at| chars[at - 2..=at + 2].iter().all(|letter| letter.is_ascii_alphabetic()))
        .collect();
    if let Some(at) = inside.choose(rng) {
        match rng.gen_range(0..3) {
            0 => chars.swap(*at, at + 1),
            1 => {
                chars.remove(*at);
            }
            _ => chars.insert(*at, chars[*at]),
        }
    }
    chars.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;

    use super::*;
    use crate::train::{corpus::Corpus, phrasing::Phrasings};

    #[test]
    fn swap_should_keep_the_answer_when_any_phrase_is_replaced() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let all: Vec<_> = corpus.facts.iter().map(|fact| (fact, Phrasings::of(&fact.asks, &corpus))).collect();
        let mut owner: BTreeMap<String, &str> = BTreeMap::new();
        for (fact, phrasings) in &all {
            for question in phrasings.seen.iter().chain(&phrasings.held_out).chain(&phrasings.tries) {
                owner.insert(plain_words(question), &fact.name);
            }
        }
        for (fact, phrasings) in &all {
            for question in &phrasings.seen {
                for varied in swapped(question, &corpus.variation.swaps) {
                    let other = owner.get(&plain_words(&varied));
                    assert!(other.is_none_or(|name| *name == fact.name), "{question} -> {varied}: {other:?}");
                }
            }
        }
    }

    #[test]
    fn swap_should_respect_word_borders_when_searching() {
        let swaps = vec![vec!["can I".to_string(), "may I".to_string()]];
        assert_eq!(swapped("Can I leave?", &swaps), ["may I leave?"]);
        assert!(swapped("can Ivan leave?", &swaps).is_empty());
    }

    #[test]
    fn typo_should_spare_short_words_when_made() {
        let mut rng = StdRng::seed_from_u64(4);
        for _ in 0..50 {
            assert_eq!(mistype("an is the slot?", &mut rng), "an is the slot?");
            assert_ne!(mistype("certify", &mut rng).len(), 0);
        }
        assert_eq!(drop_word("what is a nonce", &["is".into()], &mut rng), "what a nonce");
    }
}
