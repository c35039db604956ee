//! Stop texts and ends of answers, where tokens and characters do not line up.

use pacer_artifact::{
	artifact::token_ids,
	bounded::Capped,
	preimage::response_hash,
	row,
	structure::{check_text, find_stop},
	Artifact, Fault, FinishReason, KeyKind, Profile, SamplingParams,
};

fn artifact(finish: FinishReason, stops: &[&[u8]], text: &[u8]) -> Artifact {
	let stops = stops.iter().map(|stop| Capped::new(stop.to_vec()).unwrap()).collect();
	Artifact {
		version: 1,
		salt: [0; 32],
		inference_id: [0; 32],
		request: None,
		response: response_hash(&[1; 32], text),
		response_salt: [1; 32],
		choice: 0,
		model: Capped::default(),
		weights: [0; 32],
		profile: Profile::CPU_F32,
		params: SamplingParams { stop: Capped::new(stops).unwrap(), ..SamplingParams::default() },
		key: KeyKind::InferenceId,
		prompt: token_ids(&[1]).unwrap(),
		positions: Capped::new(vec![row::record(&[1.0; 8], 3).unwrap()]).unwrap(),
		finish,
	}
}

#[test]
fn stop_should_be_the_earliest_match_of_any_text() {
	let params = artifact(FinishReason::StopText, &[b"cd", b"bc"], b"").params;
	assert_eq!(find_stop(b"abcd", &params), Some(1));
	assert_eq!(find_stop(b"ab", &params), None);
	assert_eq!(find_stop(b"", &params), None);
}

#[test]
fn text_should_be_accepted_when_the_stop_came_to_light_with_the_last_token() {
	use FinishReason::*;
	// reason, text of the visible ids, settled text, text the client got, finding
	let cases: [(FinishReason, &[u8], &[u8], &[u8], Result<(), Fault>); 9] = [
		(StopText, b"one. two", b"one", b"one", Ok(())),
		(StopText, b"one. two", b"one.", b"one", Err(Fault::Finish)),
		(StopText, b"one", b"on", b"one", Err(Fault::Finish)),
		(Length, b"one", b"on", b"one", Ok(())),
		(Length, b"one.", b"one", b"one", Err(Fault::Finish)),
		(Eos, b"one", b"one", b"one", Ok(())),
		// The full stop shared a token with half a character, so it was seen only when the answer ended.
		(Eos, b"one.\xEF\xBF\xBD", b"one", b"one", Ok(())),
		(Eos, b"one.\xEF\xBF\xBD", b"one", b"one.", Err(Fault::Text)),
		(Aborted, b"one", b"on", b"one", Ok(())),
	];
	for (finish, full, settled, answered, finding) in cases {
		let artifact = artifact(finish, &[b"."], answered);
		assert_eq!(check_text(&artifact, full, settled, Some(answered)), finding, "{finish:?} {full:?}");
	}
	let artifact = artifact(Length, &[], b"one");
	assert_eq!(check_text(&artifact, b"two", b"", None), Err(Fault::ResponseHash));
}
