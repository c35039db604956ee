//! Honest answers pass, dishonest ones do not (`design/inference.md`, the list of attacks), on a model made of hashes.

mod verify_support;

use codec::Encode;
use pacer_artifact::bounded::Capped;
use pacer_artifact::{
    Artifact, AttentionPath, Candidate, Constraint, DType, Fault, FinishReason, KeyKind, LogProb, Position, Profile,
    SamplingKey, SamplingParams, TokenId, Verdict,
};
use pacer_engine::grammar::constraint;
use pacer_engine::verify::{verify, Claim, VerifyError};
use verify_support::*;

/// Prefill and decode of one f32 build differ about this much.
const HONEST_NOISE: f64 = 1e-4;

fn judge(claim: &Claim) -> Verdict {
    verify(claim, &facts(), &FakeFrontend, &FakeModel { noise: HONEST_NOISE, run: 5, ..FakeModel::REAL }).unwrap()
}

fn honest(seed: u64, params: SamplingParams) -> Served {
    serve(&FakeModel { noise: HONEST_NOISE, run: seed, ..FakeModel::REAL }, header(seed, params), &Deviation::NONE)
}

fn serve_with(deviation: &Deviation, tokens: u32) -> Vec<Served> {
    (0..5).map(|seed| serve(&FakeModel::REAL, header(seed, params(1.0, tokens)), deviation)).collect()
}

/// Changes an artifact and brings the hash on chain in line, as an executor could.
fn forge(served: &Served, change: impl FnOnce(&mut Artifact)) -> Claim {
    let mut artifact = Artifact::from_bytes(&served.sealed.bytes).unwrap();
    change(&mut artifact);
    Claim { artifact: artifact.encode(), artifact_hash: Some(artifact.hash()), ..claim(served) }
}

#[test]
fn honest_answers_should_pass_when_only_float_noise_differs() {
    let mut worst = (0, 0, 0);
    for seed in 0..300 {
        let length = 1 + (mix(seed) % 100) as u32;
        let temperature = [0.0, 0.3, 0.7, 1.0, 1.5][(seed % 5) as usize];
        let filtered = SamplingParams {
            top_p: [1.0, 0.9, 0.5][(seed % 3) as usize].into(),
            top_k: [None, Some(40), Some(3)][(seed / 3 % 3) as usize],
            min_p: [0.0, 0.05][(seed / 9 % 2) as usize].into(),
            repetition_penalty: [1.0, 1.2][(seed / 18 % 2) as usize].into(),
            frequency_penalty: [0.0, 0.5][(seed / 36 % 2) as usize].into(),
            ..params(temperature, length)
        };
        let verdict = judge(&claim(&honest(seed, filtered)));
        assert!(verdict.pass && verdict.calibrated, "{seed}: {verdict:?}");
        worst = (worst.0.max(verdict.choice), worst.1.max(verdict.distribution), worst.2.max(verdict.level));
    }
    println!(
        "largest honest statistics in millionths: choice {}, distribution {}, level {}",
        worst.0, worst.1, worst.2
    );
}

#[test]
fn other_models_should_fail_when_they_write_and_record() {
    // Deviations in logits as fp8, int8-like and small-model errors would make them.
    for (error, tokens) in [(0.02, 32), (0.1, 32), (1.0, 32)] {
        for seed in 0..20 {
            let other = FakeModel { error, ..FakeModel::REAL };
            let served = serve(&other, header(seed, params(1.0, tokens)), &Deviation::NONE);
            assert!(!judge(&claim(&served)).pass, "{error} {seed}");
        }
    }
    let foreign = FakeModel { weights: 2, ..FakeModel::REAL };
    for seed in 0..20 {
        let verdict = judge(&claim(&serve(&foreign, header(seed, params(1.0, 8)), &Deviation::NONE)));
        assert!(!verdict.pass && verdict.fault.is_none(), "hard margins decide short answers: {verdict:?}");
    }
}

#[test]
fn prefill_forgery_should_fail_by_choice_when_a_cheap_model_writes() {
    let deviation = Deviation { recorded: Some(FakeModel::REAL), ..Deviation::NONE };
    for seed in 0..20 {
        let cheap = FakeModel { error: 0.5, ..FakeModel::REAL };
        let verdict = judge(&claim(&serve(&cheap, header(seed, params(1.0, 64)), &deviation)));
        let limits = pacer_artifact::Thresholds::first_values(&facts().profile, &facts().profile).unwrap();
        assert!(verdict.distribution <= limits.at(64).unwrap().distribution, "the numbers look right");
        assert!(!verdict.pass && verdict.choice > 5_000, "{verdict:?}");
    }
}

#[test]
fn wrong_seed_and_temperature_should_fail_when_16_tokens_are_there() {
    for seed in 0..20 {
        let header = header(seed, params(1.0, 16));
        let other_key = SamplingKey::derive(KeyKind::Seed(seed as i64), &header.inference_id, 0);
        let wrong_seed = Deviation { sampling: Some((header.params.clone(), other_key)), ..Deviation::NONE };
        assert!(!judge(&claim(&serve(&FakeModel::REAL, header.clone(), &wrong_seed))).pass);
        for temperature in [0.0, 0.7, 1.3] {
            let sampling = Some((params(temperature, 64), header.sampling_key()));
            let header = self::header(seed, params(1.0, 64));
            let verdict = judge(&claim(&serve(&FakeModel::REAL, header, &Deviation { sampling, ..Deviation::NONE })));
            assert!(!verdict.pass, "{seed} {temperature}: {verdict:?}");
        }
    }
}

#[test]
fn edited_and_inserted_text_should_fail_wherever_it_is() {
    for at in [0, 7, 31] {
        let edit = Deviation {
            pick: &|i, token| if i == at { (token + 1) % USABLE as u32 } else { token },
            ..Deviation::NONE
        };
        for served in serve_with(&edit, 32) {
            let verdict = judge(&claim(&served));
            assert!(!verdict.pass && verdict.hard >= 1, "{at}: {verdict:?}");
        }
    }
    // Ids edited after the fact, with everything else brought in line.
    let served = honest(3, params(1.0, 32));
    let edited = forge(&served, |artifact| {
        let mut list = artifact.positions.to_vec();
        let other = list[10].top().iter().copied().find(|c| c.id.get() != list[10].token()).unwrap();
        list[10] = Position::new(other, 0, *list[10].top());
        artifact.positions = Capped::new(list).unwrap();
    });
    assert_eq!(judge(&edited).fault, Some(Fault::Text), "the client got other ids");
    let text = Claim { response_text: Some(served.text.replace("t1", "t2")), response_ids: None, ..claim(&served) };
    assert_eq!(judge(&text).fault, Some(Fault::Text));
    let blind = Claim { response_text: None, response_ids: None, ..edited };
    assert_eq!(judge(&blind).fault, Some(Fault::ResponseHash));
}

#[test]
fn best_of_n_should_fail_when_the_executor_picks_among_seeds() {
    for seed in 0..10 {
        let header = header(seed, params(1.0, 32));
        let best = (1..5u32)
            .map(|choice| {
                let key = SamplingKey::derive(KeyKind::InferenceId, &header.inference_id, choice);
                let sampling = Some((header.params.clone(), key));
                serve(&FakeModel::REAL, header.clone(), &Deviation { sampling, ..Deviation::NONE })
            })
            .min_by_key(|served| served.text.len())
            .unwrap();
        assert!(!judge(&claim(&best)).pass);
        let relabelled = forge(&best, |artifact| artifact.choice = 3);
        assert_eq!(judge(&relabelled).fault, Some(Fault::Choice));
    }
}

#[test]
fn truncated_answers_should_fail_whatever_reason_they_give() {
    let reasons = [FinishReason::Eos, FinishReason::StopToken, FinishReason::StopText, FinishReason::Length];
    for reason in reasons.into_iter().chain([FinishReason::Aborted]) {
        for served in serve_with(&Deviation { end: Some((20, reason)), ..Deviation::NONE }, 40) {
            assert_eq!(judge(&claim(&served)).fault, Some(Fault::Finish), "{reason:?}");
            if reason == FinishReason::Aborted {
                assert!(judge(&Claim { aborted: true, ..claim(&served) }).pass, "the transfer agent confirms it");
            }
        }
    }
    // An end token where the model would not have put one.
    let cut = Deviation { pick: &|i, token| if i == 19 { EOS } else { token }, ..Deviation::NONE };
    for served in serve_with(&cut, 40) {
        let verdict = judge(&claim(&served));
        assert!(served.finish == FinishReason::Eos && !verdict.pass && verdict.hard >= 1, "{verdict:?}");
    }
    let served = honest(1, params(1.0, 40));
    let shorter = forge(&served, |artifact| {
        artifact.positions = Capped::new(artifact.positions[..30].to_vec()).unwrap();
    });
    let shorter = Claim { response_ids: None, ..shorter };
    assert_eq!(judge(&shorter).fault, Some(Fault::TokenCount));
    assert_eq!(judge(&Claim { counts: None, ..shorter }).fault, Some(Fault::Finish));
}

#[test]
fn profiles_should_not_excuse_an_answer_when_no_registration_allows_them() {
    let served = honest(1, params(1.0, 40));
    assert!(judge(&claim(&served)).pass);
    let quantised = [DType::Int8, DType::W8A8, DType::Fp8, DType::Int4];
    let declared = quantised.map(|weights| Profile { weights, ..Profile::CPU_F32 }).into_iter();
    let external = Profile { attention: AttentionPath::External, ..Profile::CPU_F32 };
    for profile in declared.chain([external, Profile { kv: DType::Int8, ..Profile::CPU_F32 }]) {
        let excused = forge(&served, |artifact| artifact.profile = profile);
        assert_eq!(judge(&excused).fault, Some(Fault::Profile), "{profile:?}");
    }
}

#[test]
fn replayed_artifacts_should_fail_when_they_are_of_another_inference() {
    let (old, new) = (honest(1, params(1.0, 24)), honest(2, params(1.0, 24)));
    let replay = Claim { artifact_hash: Some(old.sealed.hash), ..claim(&new) };
    let replay = Claim { artifact: old.sealed.bytes.clone(), ..replay };
    assert_eq!(judge(&replay).fault, Some(Fault::InferenceId));
    assert_eq!(judge(&Claim { artifact_hash: Some(new.sealed.hash), ..replay }).fault, Some(Fault::ArtifactHash));
    // The same request again, the old answer relabelled: the key betrays it.
    let mut again = old.header.clone();
    again.inference_id = [77; 32];
    let relabelled = forge(&old, |artifact| artifact.inference_id = [77; 32]);
    let verdict = judge(&Claim { inference_id: Some([77; 32]), ..relabelled });
    assert!(!verdict.pass && verdict.fault.is_none() && verdict.choice > 100_000, "{verdict:?}");
    let other_request = Claim { request_hash: Some([200; 32]), ..claim(&old) };
    assert_eq!(judge(&other_request).fault, Some(Fault::RequestHash));
}

#[test]
fn forged_log_probabilities_should_fail_when_made_up_or_shifted() {
    type Forgery = fn(usize, Candidate) -> Candidate;
    let forgeries: [(&str, Forgery); 3] = [
        ("flat", |_, c| Candidate { lp: LogProb::from_nats(-3.0), ..c }),
        ("steps", |i, c| Candidate { lp: LogProb::from_nats(-0.5 - i as f64), ..c }),
        ("shifted", |_, c| Candidate { lp: LogProb(c.lp.0.saturating_add(50)), ..c }),
    ];
    for (name, forgery) in forgeries {
        for served in serve_with(&Deviation::NONE, 32) {
            let forged = forge(&served, |artifact| {
                let change = |p: &Position| {
                    let mut top = *p.top();
                    top.iter_mut().enumerate().for_each(|(i, c)| *c = forgery(i, *c));
                    let own = Candidate { lp: LogProb(p.chosen().lp.0.max(top[4].lp.0)), ..p.chosen() };
                    Position::new(own, u32::from(p.rank()), top)
                };
                artifact.positions = Capped::new(artifact.positions.iter().map(change).collect()).unwrap();
            });
            let verdict = judge(&forged);
            assert!(!verdict.pass && verdict.fault.is_none() && verdict.choice == 0, "{name}: {verdict:?}");
        }
    }
    let served = honest(4, params(1.0, 8));
    let twice = forge(&served, |artifact| {
        let mut list = artifact.positions.to_vec();
        let mut top = *list[2].top();
        top[1] = top[0];
        list[2] = Position::new(list[2].chosen(), 9, top);
        artifact.positions = Capped::new(list).unwrap();
    });
    assert_eq!(judge(&twice).fault, Some(Fault::Values));
}

#[test]
fn structure_should_fail_when_prompt_parameters_model_or_weights_differ() {
    let served = honest(6, params(0.8, 20));
    let cases: [(fn(&mut Artifact), Fault); 6] = [
        (|a| a.prompt = Capped::new(a.prompt[1..].to_vec()).unwrap(), Fault::Prompt),
        (|a| a.params.temperature = 0.7.into(), Fault::Parameters),
        (|a| a.key = KeyKind::Seed(0), Fault::Key),
        (|a| a.model = Capped::new(b"cheap".to_vec()).unwrap(), Fault::Model),
        (|a| a.weights = [1; 32], Fault::Weights),
        (|a| a.version = 2, Fault::Encoding),
    ];
    for (change, fault) in cases {
        assert_eq!(judge(&forge(&served, change)).fault, Some(fault));
    }
    let padding = Candidate { id: TokenId::new(USABLE as u32).unwrap(), lp: LogProb(60_000) };
    let padded = forge(&served, |a| {
        let mut list = a.positions.to_vec();
        list[3] = Position::new(padding, 900, *list[3].top());
        a.positions = Capped::new(list).unwrap();
    });
    assert_eq!(judge(&Claim { response_ids: None, ..padded }).fault, Some(Fault::Token));
}

#[test]
fn end_of_answer_should_be_accepted_when_it_is_honest() {
    let mut seen = [0; 3];
    for seed in 0..40 {
        let eager = SamplingParams {
            logit_bias: Capped::new(vec![(TokenId::new(EOS).unwrap(), 12.0.into())]).unwrap(),
            min_tokens: 4,
            ..params(1.0, 60)
        };
        let stop = Capped::new(b"t1".to_vec()).unwrap();
        let texts = SamplingParams { stop: Capped::new(vec![stop]).unwrap(), ..params(1.0, 60) };
        let tokens = SamplingParams { stop_tokens: all_below(100), ..params(1.0, 60) };
        for params in [eager, texts, tokens] {
            let served = honest(seed, params);
            match served.finish {
                FinishReason::Eos => seen[0] += 1,
                FinishReason::StopText => seen[1] += 1,
                FinishReason::StopToken => seen[2] += 1,
                _ => {}
            }
            let verdict = judge(&claim(&served));
            assert!(verdict.pass, "{seed} {:?}: {verdict:?}", served.finish);
            // Telling another reason is found out.
            let lie = forge(&served, |artifact| artifact.finish = FinishReason::Aborted);
            assert_eq!(judge(&Claim { response_text: None, ..lie }).fault, Some(Fault::Finish));
        }
    }
    assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
}

fn all_below(limit: u32) -> Capped<TokenId, 256> {
    Capped::new((0..limit).filter(|&id| id != EOS).map(|id| TokenId::new(id).unwrap()).collect()).unwrap()
}

fn of_form(pattern: &str, tokens: u32) -> SamplingParams {
    SamplingParams { constraint: constraint::regex(pattern).unwrap(), ..params(1.0, tokens) }
}

#[test]
fn answers_should_fail_when_the_form_that_was_asked_for_is_ignored() {
    let small = "(t[1-9][0-9]? )+";
    for seed in 0..10 {
        let asked = of_form(small, 40);
        let good = honest(seed, asked.clone());
        let verdict = judge(&claim(&good));
        assert!(verdict.pass && good.ids.iter().all(|id| *id < 100), "{verdict:?}");
        // The model writes as it likes, and the artifact says that the form was kept.
        let formless = Deviation { formless: true, ..Deviation::NONE };
        let served = serve(&FakeModel::REAL, header(seed, asked.clone()), &formless);
        assert_eq!(judge(&claim(&served)).fault, Some(Fault::Form));
        // Keeping the form only where it is convenient: one token outside, or an end before the form is complete.
        for (at, other) in [(0, 250), (17, 250), (0, EOS)] {
            let pick = |i: usize, token: u32| if i == at { other } else { token };
            let served =
                serve(&FakeModel::REAL, header(seed, asked.clone()), &Deviation { pick: &pick, ..Deviation::NONE });
            assert_eq!(judge(&claim(&served)).fault, Some(Fault::Form), "{at} {other}");
        }
        // Inside the form a token that the model did not choose is found as everywhere.
        let pick = |i: usize, token: u32| if i == 5 { 10 + (token + 1) % 80 } else { token };
        let edited =
            serve(&FakeModel::REAL, header(seed, asked.clone()), &Deviation { pick: &pick, ..Deviation::NONE });
        assert!(!judge(&claim(&edited)).pass);
        // Dropping the form from the artifact does not help: the request says it.
        let dropped = forge(&served, |artifact| artifact.params.constraint = Constraint::None);
        assert_eq!(judge(&dropped).fault, Some(Fault::Parameters));
    }
}

#[test]
fn answers_should_fail_when_no_honest_engine_takes_the_request() {
    // A client that plays along asks for what nobody can judge, and the executor answers as it likes.
    let formless = Deviation { formless: true, ..Deviation::NONE };
    for grammar in ["start: nowhere\n", "start: %json {\"type\": 5}\n", "start: \"x\"\n"] {
        let constraint = constraint::grammar(grammar).unwrap();
        let served = serve(&FakeModel::REAL, header(1, SamplingParams { constraint, ..params(1.0, 20) }), &formless);
        assert_eq!(judge(&claim(&served)).fault, Some(Fault::Request), "{grammar}");
    }
    let refused = Claim {
        rendered: None,
        refusal: Some("`temperature` is out of range".into()),
        ..claim(&honest(1, params(1.0, 20)))
    };
    for claim in [refused.clone(), Claim { artifact: Vec::new(), ..refused }] {
        assert_eq!(judge(&claim).fault, Some(Fault::Request), "whatever was answered");
    }
}

#[test]
fn tokens_under_a_single_token_mask_should_carry_no_weight() {
    let forced = "t1 t22 t333 t44 t5 ";
    let served = honest(3, of_form(forced, 40));
    let verdict = judge(&claim(&served));
    assert_eq!((served.finish, served.text.as_str(), served.ids.len()), (FinishReason::Eos, forced, 6));
    assert!(verdict.pass && verdict.informative == 0 && verdict.choice == 0 && verdict.tokens == 6, "{verdict:?}");
    // A cheap model is not seen in the choices then, but still in the distributions.
    let cheap = FakeModel { error: 0.5, ..FakeModel::REAL };
    let verdict = judge(&claim(&serve(&cheap, header(3, of_form(forced, 40)), &Deviation::NONE)));
    assert!(verdict.choice == 0 && verdict.distribution > 10_000, "{verdict:?}");
}

#[test]
fn floats_should_fail_coarse_lies_only_when_profiles_were_never_calibrated() {
    for (error, pass) in [(0.05, true), (0.3, false)] {
        let mut header = header(1, params(1.0, 40));
        header.profile.weights = DType::Bf16;
        let verdict = judge(&claim(&serve(&FakeModel { error, ..FakeModel::REAL }, header, &Deviation::NONE)));
        assert!(verdict.pass == pass && !verdict.calibrated && verdict.distribution > 10_000, "{verdict:?}");
    }
}

#[test]
fn verifier_should_blame_itself_when_its_own_model_is_broken() {
    struct Broken(Option<f32>);
    impl pacer_engine::verify::Forward for Broken {
        fn logits(&self, tokens: &[u32], from: usize, mut rows: pacer_engine::verify::RowSink) -> Result<(), String> {
            let Some(value) = self.0 else { return Err("out of memory".into()) };
            (from..tokens.len()).for_each(|position| rows(position, &[value; VOCAB]));
            Ok(())
        }
    }
    let served = honest(1, params(1.0, 20));
    for broken in [Broken(None), Broken(Some(f32::NAN)), Broken(Some(f32::INFINITY))] {
        let error = verify(&claim(&served), &facts(), &FakeFrontend, &broken).unwrap_err();
        assert!(matches!(error, VerifyError::Model(_)), "{error}");
    }
}

#[test]
fn verifier_should_come_to_the_same_verdict_when_it_was_interrupted_and_began_again() {
    struct Interrupted;
    impl pacer_engine::verify::Forward for Interrupted {
        fn logits(&self, tokens: &[u32], from: usize, mut rows: pacer_engine::verify::RowSink) -> Result<(), String> {
            for position in (from..from + 7).chain(from..tokens.len()) {
                rows(position, &FakeModel::REAL.row(&tokens[..=position]));
            }
            Ok(())
        }
    }
    let claim = claim(&honest(1, params(1.0, 20)));
    let verdict = verify(&claim, &facts(), &FakeFrontend, &Interrupted).unwrap();
    assert_eq!(verdict, verify(&claim, &facts(), &FakeFrontend, &FakeModel::REAL).unwrap());
    assert!(verdict.pass && verdict.tokens > 7, "{verdict:?}");
}
