//! From facts to questions: every phrasing a fact can have, which of them training may see, and the stream of examples.
//!
//! A phrasing is **held out** if its template is marked so, or if a hash of its plain words falls into one tenth. Held-out phrasings
//! are asked in the examination only; so are the `try` questions, whose words no template produces.

use std::collections::HashSet;

use rand::{rngs::StdRng, seq::SliceRandom, Rng, SeedableRng};

use super::{
    corpus::{Ask, Corpus, Template, Unknown, UserLine},
    vary::vary,
};

/// A conversation the model learns from. Only the answers count in the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// System message, if the client sends one.
    pub system: Option<String>,
    /// Question and answer of each turn, oldest first.
    pub turns: Vec<(String, String)>,
    /// True: plain text as for `/v1/completions`, one turn, no roles.
    pub plain: bool,
}

/// Why the examination asks a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExamKind {
    /// A phrasing of a fact by a template, or by a combination of template and question, that training never saw.
    HeldOut,
    /// A hand-written paraphrase of a fact. Harder: its words are new.
    Paraphrase,
    /// A question about something else, with words that training never saw.
    Unknown,
    /// A follow-up in a conversation.
    Talk,
}

/// One question of the examination.
#[derive(Debug, Clone)]
pub struct ExamQuestion {
    /// Why it is asked.
    pub kind: ExamKind,
    /// The conversation; the last answer is the one expected.
    pub example: Example,
}

/// All phrasings of one answer.
#[derive(Debug, Clone, Default)]
pub struct Phrasings {
    /// Those training may use.
    pub seen: Vec<String>,
    /// Those kept for the examination.
    pub held_out: Vec<String>,
    /// Paraphrases for the examination.
    pub tries: Vec<String>,
}

/// FNV-1a: decides what is held out, the same way on every machine and in every release of a hasher.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The first letter as a capital.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Puts `text` where the template has its place.
fn fill(template: &str, text: &str) -> String {
    let big = capital(text);
    template.replace("{x}", text).replace("{q}", text).replace("{X}", &big).replace("{Q}", &big)
}

/// Lower case without marks: how people type in a hurry. It also decides whether two questions are the same.
pub fn plain_words(text: &str) -> String {
    let kept: String =
        text.chars().filter(|c| !matches!(c, '?' | '.' | '!' | ',' | ':')).flat_map(char::to_lowercase).collect();
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Phrasings {
    /// Every phrasing of these ways to ask.
    pub fn of(asks: &[Ask], corpus: &Corpus) -> Self {
        let mut all = Self::default();
        for ask in asks {
            match ask {
                Ask::About(noun) => all.wrap(&corpus.about, noun),
                Ask::Question { direct, clause } => {
                    all.wrap(&corpus.direct, direct);
                    all.wrap(&corpus.indirect, clause);
                }
                Ask::Raw(text) => all.seen.push(text.clone()),
                Ask::Try(text) => all.tries.push(text.clone()),
            }
        }
        all
    }

    fn wrap(&mut self, templates: &[Template], text: &str) {
        for template in templates {
            let question = fill(&template.text, text);
            // By its plain words: the same question without marks and capitals must not be seen either.
            if template.held_out || fnv(&plain_words(&question)) % 10 == 0 {
                self.held_out.push(question);
            } else {
                self.seen.push(question);
            }
        }
    }
}

/// The stream of training examples and the questions of the examination. Deterministic by seed.
#[derive(Debug)]
pub struct Examples<'a> {
    corpus: &'a Corpus,
    phrasings: Vec<Phrasings>,
    /// Plain words of every question that only the examination may ask.
    reserved: HashSet<String>,
    rng: StdRng,
    /// What is left of the current round: indices of facts, then of unknown questions and talks.
    round: Vec<Source>,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Fact(usize),
    Unknown,
    Talk(usize),
}

/// Unknown questions per round of all facts: enough that the model does not guess.
const UNKNOWN_PER_ROUND: usize = 24;

impl<'a> Examples<'a> {
    /// A stream over `corpus`.
    pub fn new(corpus: &'a Corpus, seed: u64) -> Self {
        let phrasings: Vec<_> = corpus.facts.iter().map(|fact| Phrasings::of(&fact.asks, corpus)).collect();
        let reserved = phrasings.iter().flat_map(|p| p.held_out.iter().chain(&p.tries));
        let reserved = reserved.map(|question| plain_words(question)).collect();
        Self { corpus, phrasings, reserved, rng: StdRng::seed_from_u64(seed), round: Vec::new() }
    }

    /// Phrasings of every fact, in the order of the corpus.
    pub fn phrasings(&self) -> &[Phrasings] {
        &self.phrasings
    }

    /// The next example. A round asks every fact once, in a random phrasing, so that all are learned alike.
    pub fn next_example(&mut self) -> Example {
        if self.round.is_empty() {
            self.round = (0..self.corpus.facts.len()).map(Source::Fact).collect();
            self.round.extend((0..UNKNOWN_PER_ROUND).map(|_| Source::Unknown));
            self.round.extend((0..self.corpus.talks.len()).map(Source::Talk));
            self.round.shuffle(&mut self.rng);
        }
        let source = self.round.pop().unwrap_or(Source::Unknown);
        let mut turns = self.turns(source);
        // Some facts follow another conversation, so that an answer does not depend on being the first.
        if turns.len() == 1 && self.rng.gen_bool(0.10) {
            let fact = self.rng.gen_range(0..self.corpus.facts.len());
            let mut before = self.turns(Source::Fact(fact));
            before.append(&mut turns);
            turns = before;
        }
        let plain = turns.len() == 1 && self.rng.gen_bool(0.05);
        let system =
            (!plain && self.rng.gen_bool(0.20)).then(|| self.corpus.systems.choose(&mut self.rng).cloned()).flatten();
        for (question, _) in &mut turns {
            let varied = vary(question, &self.corpus.variation, &mut self.rng);
            if !self.reserved.contains(&plain_words(&varied)) {
                *question = varied;
            }
        }
        Example { system, turns, plain }
    }

    fn turns(&mut self, source: Source) -> Vec<(String, String)> {
        match source {
            Source::Fact(i) => vec![(self.question(i), self.corpus.facts[i].answer.clone())],
            Source::Unknown => {
                let question = unknown_question(self.corpus, false, &mut self.rng);
                vec![(question, self.corpus.unknown.answer.clone())]
            }
            Source::Talk(i) => {
                let corpus = self.corpus;
                corpus.talks[i]
                    .iter()
                    .map(|(user, answer)| {
                        let question = match user {
                            UserLine::Words(words) => words.clone(),
                            UserLine::AnyOf(fact) => self.question(*fact),
                        };
                        (question, answer.clone())
                    })
                    .collect()
            }
        }
    }

    /// A phrasing of fact `i` that training may see.
    fn question(&mut self, i: usize) -> String {
        self.phrasings[i].seen.choose(&mut self.rng).cloned().unwrap_or_default()
    }

    /// The examination: `per_fact` held-out phrasings of each fact, every paraphrase, unknown things and talks.
    pub fn exam(&self, per_fact: usize, seed: u64) -> Vec<ExamQuestion> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6578_616d);
        let mut questions = Vec::new();
        let single = |question: &str, answer: &str| Example {
            system: None,
            turns: vec![(question.to_string(), answer.to_string())],
            plain: false,
        };
        for (fact, phrasings) in self.corpus.facts.iter().zip(&self.phrasings) {
            for question in phrasings.held_out.choose_multiple(&mut rng, per_fact) {
                questions.push(ExamQuestion { kind: ExamKind::HeldOut, example: single(question, &fact.answer) });
            }
            for question in &phrasings.tries {
                questions.push(ExamQuestion { kind: ExamKind::Paraphrase, example: single(question, &fact.answer) });
            }
        }
        for _ in 0..self.corpus.facts.len() / 4 {
            let question = unknown_question(self.corpus, true, &mut rng);
            let example = single(&question, &self.corpus.unknown.answer);
            questions.push(ExamQuestion { kind: ExamKind::Unknown, example });
        }
        for talk in &self.corpus.talks {
            let turns = talk
                .iter()
                .map(|(user, answer)| {
                    let question = match user {
                        UserLine::Words(words) => words.clone(),
                        UserLine::AnyOf(fact) => {
                            self.phrasings[*fact].held_out.choose(&mut rng).cloned().unwrap_or_default()
                        }
                    };
                    (question, answer.clone())
                })
                .collect();
            questions
                .push(ExamQuestion { kind: ExamKind::Talk, example: Example { system: None, turns, plain: false } });
        }
        questions
    }
}

/// A question about something else. The words of each list whose hash falls into one quarter are the examination's.
fn unknown_question(corpus: &Corpus, exam: bool, rng: &mut StdRng) -> String {
    let Unknown { lists, asks, .. } = &corpus.unknown;
    loop {
        let Some(ask) = asks.choose(rng) else { return String::new() };
        let mut text = match ask {
            Ask::Question { direct, clause } => {
                let (templates, words) =
                    if rng.gen_bool(0.5) { (&corpus.direct, direct) } else { (&corpus.indirect, clause) };
                let usable: Vec<_> = templates.iter().filter(|t| exam || !t.held_out).collect();
                usable.choose(rng).map_or_else(String::new, |t| fill(&t.text, words))
            }
            Ask::About(noun) => {
                let usable: Vec<_> = corpus.about.iter().filter(|t| exam || !t.held_out).collect();
                usable.choose(rng).map_or_else(String::new, |t| fill(&t.text, noun))
            }
            Ask::Raw(text) => text.clone(),
            Ask::Try(text) if exam => text.clone(),
            Ask::Try(_) => continue,
        };
        // An examination question must hold a word that training never saw.
        let mut is_new = matches!(ask, Ask::Try(_));
        for (name, words) in lists {
            let place = format!("{{{name}}}");
            while text.contains(&place) {
                let usable: Vec<_> = words.iter().filter(|word| exam == (fnv(word) % 4 == 0)).collect();
                let word = usable.choose(rng).map_or("", |word| word.as_str());
                is_new = true;
                text = text.replacen(&place, word, 1);
            }
        }
        if is_new || !exam {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn question_should_have_one_answer_when_all_phrasings_are_compared() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let mut owner: BTreeMap<String, &str> = BTreeMap::new();
        for fact in &corpus.facts {
            let all = Phrasings::of(&fact.asks, &corpus);
            for question in all.seen.iter().chain(&all.held_out).chain(&all.tries) {
                let other = owner.insert(plain_words(question), &fact.name);
                assert!(other.is_none_or(|name| name == fact.name), "`{question}`: {other:?} and {}", fact.name);
            }
        }
        let answers: BTreeSet<_> = corpus.facts.iter().map(|fact| &fact.answer).collect();
        assert_eq!(answers.len(), corpus.facts.len(), "two facts share an answer");
    }

    #[test]
    fn templates_should_leave_no_place_open_when_filled() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let mut examples = Examples::new(&corpus, 1);
        for _ in 0..2_000 {
            let example = examples.next_example();
            for (question, answer) in &example.turns {
                assert!(!question.contains(['{', '}']) && !question.is_empty(), "{question}");
                assert!(!answer.contains(['@', '{']), "{answer}");
            }
        }
    }

    #[test]
    fn exam_should_ask_nothing_trained_when_drawn() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let mut examples = Examples::new(&corpus, 1);
        let seen: BTreeSet<String> = (0..20_000)
            .flat_map(|_| examples.next_example().turns)
            .map(|(question, _)| plain_words(&question))
            .collect();
        for question in examples.exam(3, 1).iter().filter(|q| q.kind != ExamKind::Talk) {
            assert!(!seen.contains(&plain_words(&question.example.turns[0].0)), "{question:?}");
        }
    }

    #[test]
    fn stream_should_repeat_when_seed_is_equal() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let (mut a, mut b, mut c) = (Examples::new(&corpus, 5), Examples::new(&corpus, 5), Examples::new(&corpus, 6));
        let draw = |e: &mut Examples| (0..50).map(|_| e.next_example()).collect::<Vec<_>>();
        let first = draw(&mut a);
        assert_eq!(first, draw(&mut b));
        assert_ne!(first, draw(&mut c));
    }
}
