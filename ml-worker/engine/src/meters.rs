//! What the engine tells Prometheus. The list, with what each means, is in `docs/metrics.md`.

use crate::scheduler::Scheduler;
use std::time::Instant;

/// State of the queues and the cache, after every step.
pub(crate) fn state(scheduler: &Scheduler) {
    let (used, total) = scheduler.blocks();
    metrics::gauge!("pacer_engine_requests_waiting").set(scheduler.waiting() as f64);
    metrics::gauge!("pacer_engine_requests_running").set(scheduler.running() as f64);
    metrics::gauge!("pacer_engine_kv_blocks_used").set(used as f64);
    metrics::gauge!("pacer_engine_kv_blocks_idle").set(scheduler.idle_blocks() as f64);
    metrics::gauge!("pacer_engine_kv_blocks_total").set(total as f64);
    let stats = scheduler.stats();
    metrics::counter!("pacer_engine_prefix_asked_tokens_total").absolute(stats.prefix_asked_tokens);
    metrics::counter!("pacer_engine_prefix_found_tokens_total").absolute(stats.prefix_found_tokens);
    metrics::counter!("pacer_engine_preemptions_total").absolute(stats.preemptions);
    metrics::counter!("pacer_engine_block_copies_total").absolute(stats.block_copies);
    metrics::counter!("pacer_engine_guessed_tokens_total").absolute(stats.guessed_tokens);
    metrics::counter!("pacer_engine_accepted_tokens_total").absolute(stats.accepted_tokens);
}

/// A request's prompt came in.
pub(crate) fn prompt(tokens: usize) {
    metrics::counter!("pacer_engine_prompt_tokens_total").increment(tokens as u64);
}

/// `count` tokens of an answer came out of one step; `last` is when those before did.
pub(crate) fn tokens(count: usize, arrived: Instant, last: Option<Instant>, now: Instant) {
    if count == 0 {
        return;
    }
    metrics::counter!("pacer_engine_generation_tokens_total").increment(count as u64);
    match last {
        None => metrics::histogram!("pacer_engine_ttft_seconds").record(now.saturating_duration_since(arrived)),
        Some(last) => {
            let each = now.saturating_duration_since(last) / count as u32;
            metrics::histogram!("pacer_engine_inter_token_seconds").record_many(each, count);
        }
    }
}

/// An answer is complete.
pub(crate) fn finished(arrived: Instant) {
    metrics::histogram!("pacer_engine_request_seconds").record(arrived.elapsed());
}

/// Requests whose client went away, and requests that were not done in time.
pub(crate) fn dropped(cancelled: usize, late: usize) {
    metrics::counter!("pacer_engine_requests_cancelled_total").increment(cancelled as u64);
    metrics::counter!("pacer_engine_requests_late_total").increment(late as u64);
}

/// Names and meanings for `/metrics`.
pub(crate) fn describe() {
    use metrics::{describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram};
    gauge!("pacer_engine_requests_waiting", "Requests in the queue");
    gauge!("pacer_engine_requests_running", "Requests in the batch");
    gauge!("pacer_engine_kv_blocks_used", "Blocks of the KV cache in use");
    gauge!("pacer_engine_kv_blocks_idle", "Blocks of the KV cache kept for requests that begin alike");
    gauge!("pacer_engine_kv_blocks_total", "Blocks of the KV cache");
    counter!("pacer_engine_prompt_tokens_total", "Prompt tokens accepted");
    counter!("pacer_engine_generation_tokens_total", "Tokens generated");
    counter!("pacer_engine_prefix_asked_tokens_total", "Tokens looked for in the prefix cache");
    counter!("pacer_engine_prefix_found_tokens_total", "Tokens found in the prefix cache");
    counter!("pacer_engine_block_copies_total", "Shared blocks copied because one request had to write");
    counter!("pacer_engine_guessed_tokens_total", "Tokens guessed ahead");
    counter!("pacer_engine_accepted_tokens_total", "Tokens guessed ahead that were right");
    counter!("pacer_engine_requests_refused_total", "Requests refused because the queue was full");
    counter!("pacer_engine_requests_cancelled_total", "Requests whose client went away");
    counter!("pacer_engine_requests_late_total", "Requests not done by their deadline");
    counter!("pacer_engine_preemptions_total", "Times a request lost its blocks to an older one");
    counter!("pacer_engine_verifications_total", "Verdicts given, by outcome");
    histogram!("pacer_engine_ttft_seconds", "Time from arrival to the first token");
    histogram!("pacer_engine_inter_token_seconds", "Time from one token of an answer to the next");
    histogram!("pacer_engine_request_seconds", "Time from arrival to the end of an answer");
}
