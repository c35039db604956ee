//! The demo model's tokenizer: byte-level BPE trained on the corpus, and the chat format.
//!
//! A conversation is `<|bos|>`, then for each message its role token, the text, and `<|im_end|>`; a reply begins after
//! `<|assistant|>`. Role tokens cannot be typed by a user only if the server encodes text without special tokens;
//! servers that render the chat template as text (all of them today) share this limit of the format.

use tokenizers::{
    decoders::byte_level::ByteLevel as ByteLevelDecoder, models::bpe::BpeTrainerBuilder, models::bpe::BPE,
    models::TrainerWrapper, pre_tokenizers::byte_level::ByteLevel, processors::template::TemplateProcessing,
    AddedToken, Tokenizer,
};

use super::{corpus::Corpus, phrasing::Example, phrasing::Phrasings, TrainError};

/// Beginning of every sequence.
pub const BOS: &str = "<|bos|>";
/// End of every message, and of a reply.
pub const EOS: &str = "<|im_end|>";
/// Filler of short rows.
pub const PAD: &str = "<|pad|>";
/// Begins a system message.
pub const SYSTEM: &str = "<|system|>";
/// Begins a user's message.
pub const USER: &str = "<|user|>";
/// Begins a reply.
pub const ASSISTANT: &str = "<|assistant|>";

/// Special tokens in the order of their ids, from 0.
pub const SPECIAL: [&str; 6] = [PAD, BOS, EOS, SYSTEM, USER, ASSISTANT];

/// The chat template (Jinja) that Hugging Face tokenizers and the engine render.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'system' or message['role'] == 'developer' %}{{ '<|system|>' }}\
{% elif message['role'] == 'user' %}{{ '<|user|>' }}\
{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' }}\
{% else %}{{ raise_exception('unknown role ' + message['role']) }}{% endif %}\
{{ message['content'] | trim }}{{ '<|im_end|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// Token ids of a conversation and which of them the loss counts.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// All ids.
    pub ids: Vec<i64>,
    /// True where the token belongs to an answer, its end token included.
    pub is_answer: Vec<bool>,
}

fn failed(error: impl std::fmt::Display) -> TrainError {
    TrainError::Tokenizer(error.to_string())
}

/// Trains a byte-level BPE of at most `vocab_size` tokens on all texts of the corpus.
///
/// # Errors
/// [`TrainError::Tokenizer`] if the library refuses; the corpus compiled in never makes it.
pub fn train(corpus: &Corpus, vocab_size: usize) -> Result<Tokenizer, TrainError> {
    let special: Vec<AddedToken> = SPECIAL.iter().map(|token| AddedToken::from(*token, true)).collect();
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .min_frequency(1)
        .show_progress(false)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), texts(corpus).into_iter()).map_err(failed)?;
    let bos = tokenizer.token_to_id(BOS).ok_or_else(|| failed("no token for the beginning"))?;
    let processor = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))
        .map_err(failed)?
        .special_tokens(vec![(BOS, bos)])
        .build()
        .map_err(failed)?;
    tokenizer.with_post_processor(Some(processor));
    Ok(tokenizer)
}

/// What the vocabulary is learned from: answers, a few phrasings of every question, and the words of the unknown.
fn texts(corpus: &Corpus) -> Vec<String> {
    let mut texts: Vec<String> = corpus.systems.clone();
    texts.extend(corpus.variation.openers.iter().chain(&corpus.variation.closers).cloned());
    texts.extend(corpus.variation.swaps.iter().flatten().map(|phrase| format!(" {phrase}")));
    for fact in &corpus.facts {
        texts.push(fact.answer.clone());
        texts.extend(Phrasings::of(&fact.asks, corpus).seen.into_iter().step_by(6));
    }
    texts.extend(corpus.unknown.lists.values().flatten().map(|word| format!(" {word}")));
    texts.push(corpus.unknown.answer.clone());
    texts
}

/// Encodes a conversation as the chat template would render it.
///
/// # Errors
/// [`TrainError::Tokenizer`] if the tokenizer lacks a special token.
pub fn encode(tokenizer: &Tokenizer, example: &Example) -> Result<Encoded, TrainError> {
    let mut encoded = Encoded { ids: Vec::new(), is_answer: Vec::new() };
    let mut push = |text: &str, is_answer: bool| -> Result<(), TrainError> {
        let encoding = tokenizer.encode_fast(text, false).map_err(failed)?;
        encoded.ids.extend(encoding.get_ids().iter().map(|id| i64::from(*id)));
        encoded.is_answer.resize(encoded.ids.len(), is_answer);
        Ok(())
    };
    push(BOS, false)?;
    if let Some(system) = &example.system {
        push(&format!("{SYSTEM}{system}{EOS}"), false)?;
    }
    for (question, answer) in &example.turns {
        if example.plain {
            push(&format!("Question: {question}\nAnswer:"), false)?;
            push(&format!(" {answer}{EOS}"), true)?;
        } else {
            push(&format!("{USER}{question}{EOS}{ASSISTANT}"), false)?;
            push(&format!("{answer}{EOS}"), true)?;
        }
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokenizer_should_return_the_text_when_decoding() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let tokenizer = train(&corpus, 2048).expect("trains");
        assert_eq!(tokenizer.get_vocab_size(true), 2048);
        for (id, token) in SPECIAL.iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(token), Some(id as u32));
        }
        let odd = ["", " two  spaces ", "Ünïcödé → 東京 🦀", "tabs\tand\nlines\r\n", "1 - (1 - c)^(w/W)"];
        for text in odd.into_iter().chain(corpus.facts.iter().map(|fact| fact.answer.as_str())) {
            let ids = tokenizer.encode(text, false).expect("encodes").get_ids().to_vec();
            assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), text);
        }
    }

    #[test]
    fn tokenizer_should_be_equal_when_trained_twice() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let make = || train(&corpus, 2048).expect("trains").to_string(false).expect("serialises");
        assert_eq!(make(), make());
    }

    #[test]
    fn encoding_should_equal_the_rendered_template_when_whole() {
        let corpus = Corpus::builtin().expect("the corpus parses");
        let tokenizer = train(&corpus, 2048).expect("trains");
        let example = Example {
            system: Some("Be concise.".into()),
            turns: vec![("What is a nonce?".into(), "A number.".into()), ("Thanks!".into(), "Welcome.".into())],
            plain: false,
        };
        let mut env = minijinja::Environment::new();
        env.add_template("chat", CHAT_TEMPLATE).expect("compiles");
        let rendered = env
            .get_template("chat")
            .expect("is there")
            .render(minijinja::context! {
                bos_token => BOS,
                add_generation_prompt => false,
                messages => [("system", "Be concise."), ("user", "What is a nonce?"), ("assistant", "A number."),
                             ("user", "Thanks!"), ("assistant", "Welcome.")]
                    .map(|(role, content)| minijinja::context! { role, content }),
            })
            .expect("renders");
        let whole = tokenizer.encode(rendered, false).expect("encodes");
        let ours = encode(&tokenizer, &example).expect("encodes");
        assert_eq!(whole.get_ids().iter().map(|id| i64::from(*id)).collect::<Vec<_>>(), ours.ids);
        let answers: Vec<u32> =
            ours.ids.iter().zip(&ours.is_answer).filter(|(_, a)| **a).map(|(id, _)| *id as u32).collect();
        assert_eq!(tokenizer.decode(&answers, false).expect("decodes"), "A number.<|im_end|>Welcome.<|im_end|>");
    }
}
