//! Lanes that are wrong, missing, failing or always asked to wait.

use super::*;
use crate::{
    handle::EngineHandle,
    request::Score,
    sprint::host_kernels::{add_fold, Block},
};
use futures::executor::block_on;
use std::sync::atomic::{AtomicBool, Ordering};

fn spec() -> RaceSpec {
    RaceSpec { preset: Preset::Dev, seed: [1; 32], host: [2; 32], threshold: 0, first_nonce: 0, max_rate: None }
}

#[test]
fn engine_should_refuse_to_race_and_to_verify_when_its_kernel_is_wrong() {
    tch::set_num_threads(1);
    let wrong: super::super::network::AddFold = |block, x| {
        let off: Vec<i32> = block.acc.iter().map(|acc| acc + 1).collect();
        add_fold(Block { acc: &off, ..block }, x);
    };
    let setup = Setup { wrong_kernel: Some(wrong), threads: 2, ..Setup::new(vec![Device::Cpu], 1 << 20) };
    let service = Service::new(&setup, |_| {}).expect("threads");
    // The verification is answered after the self-test.
    let ask = Verification { preset: Preset::Dev, seed: [1; 32], host: [2; 32], threshold: 0, nonces: vec![1, 2] };
    let refused = block_on(service.verify(ask)).expect_err("inexact");
    assert!(matches!(refused, SprintError::Inexact(_)), "{refused}");
    let refused = service.start(spec()).expect_err("inexact").to_string();
    assert!(refused.contains("does not compute the Sprint exactly"), "{refused}");
    let status = service.status();
    assert_eq!(status.state, State::Failed);
    assert!(status.devices.iter().all(|device| device.error.is_some()));
}

#[test]
fn engine_should_race_on_the_devices_that_work_when_another_does_not() {
    tch::set_num_threads(1);
    // There is no such GPU here, so opening it fails; with GPUs this would need more than a thousand.
    let setup = Setup { threads: 1, ..Setup::new(vec![Device::Cuda(1000), Device::Cpu], 1 << 20) };
    let (stepped, steps) = mpsc::channel();
    let stepped = std::sync::Mutex::new(stepped);
    let service = Service::new(&setup, move |_| drop(stepped.lock().map(|stepped| stepped.send(())))).expect("threads");
    service.start(spec()).expect("started");
    while service.status().tried < 50 {
        steps.recv_timeout(Duration::from_secs(60)).expect("a step");
    }
    let status = service.stop();
    assert_eq!(status.error, None);
    assert!(status.devices[0].error.is_some() && status.devices[1].error.is_none(), "{status:?}");
    let (found, _) = service.nonces(0);
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]) && !found.is_empty());
}

/// Set, the lane of this name panics in the middle of a layer.
static BROKEN: AtomicBool = AtomicBool::new(false);
const BROKEN_LANE: &str = "sprint-1";

fn breaking_add_fold(block: Block<'_>, x: &mut [i8]) {
    let theirs = std::thread::current().name() == Some(BROKEN_LANE);
    assert!(!theirs || !BROKEN.load(Ordering::SeqCst), "broken on purpose");
    add_fold(block, x);
}

fn appropriate(threshold: u64, nonce: u64) -> bool {
    pacer_sprint::is_appropriate(&Preset::Dev.config(), &[1; 32], threshold, &[2; 32], nonce).expect("valid")
}

#[test]
fn race_and_verification_should_go_on_when_a_lane_panics() {
    tch::set_num_threads(1);
    let setup = Setup { wrong_kernel: Some(breaking_add_fold), threads: 2, ..Setup::new(vec![Device::Cpu], 1 << 24) };
    let (stepped, steps) = mpsc::channel();
    let stepped = std::sync::Mutex::new(stepped);
    let service = Service::new(&setup, move |_| drop(stepped.lock().map(|stepped| stepped.send(())))).expect("threads");
    let until = |wanted: &dyn Fn(&Status) -> bool| {
        while !wanted(&service.status()) {
            steps.recv_timeout(Duration::from_secs(60)).expect("a step");
        }
    };
    let threshold = pacer_sprint::threshold_for_one_in(4, 256).expect("in table");
    service.start(RaceSpec { threshold, ..spec() }).expect("started");
    // Both lanes have begun, so the broken one has nonces that the frontier waits for.
    until(&|status| status.devices.iter().all(|device| device.batch > 0));
    BROKEN.store(true, Ordering::SeqCst);
    until(&|status| status.devices[1].error.is_some());
    let status = service.status();
    assert!(status.devices[1].error.as_ref().is_some_and(|error| error.contains("broken on purpose")), "{status:?}");
    assert_eq!((status.error.clone(), status.devices[0].error.clone()), (None, None));
    let goal = status.tried + 300;
    until(&|status| status.tried > goal);
    let status = service.stop();
    let (found, _) = service.nonces(0);
    let expected: Vec<u64> = (0..goal).filter(|nonce| appropriate(threshold, *nonce)).collect();
    assert_eq!(found.iter().copied().take_while(|nonce| *nonce < goal).collect::<Vec<_>>(), expected);
    assert_eq!(status.next_nonce, Some(status.tried.to_string()));

    // Shares for two lanes again, of which one fails.
    BROKEN.store(false, Ordering::SeqCst);
    service.start(RaceSpec { threshold, ..spec() }).expect("resumed");
    assert!(service.status().devices.iter().all(|device| device.error.is_none()));
    service.stop();
    BROKEN.store(true, Ordering::SeqCst);
    let nonces: Vec<u64> = (5000..5200).collect();
    let ask = Verification { preset: Preset::Dev, seed: [1; 32], host: [2; 32], threshold, nonces: nonces.clone() };
    while service.status().devices[1].error.is_none() {
        let valid = block_on(service.verify(ask.clone())).expect("the other lane verifies");
        assert_eq!(valid, nonces.iter().map(|nonce| appropriate(threshold, *nonce)).collect::<Vec<_>>());
    }
    assert!(service.status().error.is_none());
}

#[test]
fn verification_should_fail_when_no_lane_is_left_and_work_again_when_the_failure_is_over() {
    tch::set_num_threads(1);
    static ALL_BROKEN: AtomicBool = AtomicBool::new(false);
    let kernel: super::super::network::AddFold = |block, x| {
        assert!(!ALL_BROKEN.load(Ordering::SeqCst), "broken on purpose");
        add_fold(block, x);
    };
    let setup = Setup { wrong_kernel: Some(kernel), threads: 2, ..Setup::new(vec![Device::Cpu], 1 << 24) };
    let service = Service::new(&setup, |_| {}).expect("threads");
    let ask = |nonces| Verification { preset: Preset::Dev, seed: [1; 32], host: [2; 32], threshold: 1, nonces };
    let before = block_on(service.verify(ask(vec![3, 4]))).expect("verified");
    ALL_BROKEN.store(true, Ordering::SeqCst);
    let failed = block_on(service.verify(ask(vec![3, 4]))).expect_err("failed").to_string();
    assert!(failed.contains("broken on purpose"), "{failed}");
    assert!(service.status().devices.iter().all(|device| device.error.is_some()));
    ALL_BROKEN.store(false, Ordering::SeqCst);
    assert_eq!(block_on(service.verify(ask(vec![3, 4]))).expect("tried again"), before);
}

#[test]
fn sprint_should_get_on_when_a_request_is_always_in_flight() {
    tch::set_num_threads(1);
    // Nobody answers it, so it stays in flight.
    let (engine, _commands) = EngineHandle::new(1);
    let (done, _answer) = tokio::sync::oneshot::channel();
    engine
        .score(Score {
            tokens: vec![1],
            from: 0,
            tenant: Default::default(),
            adapter: None,
            rows: Box::new(|_, _| {}),
            done,
        })
        .expect("admitted");
    let (load, (stepped, steps)) = (engine.load(), mpsc::channel());
    let stepped = std::sync::Mutex::new(stepped);
    let gate = move |patience| {
        load.wait_idle_for(patience);
        drop(stepped.lock().map(|stepped| stepped.send(())));
    };
    let setup = Setup { threads: 1, ..Setup::new(vec![Device::Cpu], 1 << 24) };
    let service = Service::new(&setup, gate).expect("thread");
    let threshold = pacer_sprint::threshold_for_one_in(4, 256).expect("in table");
    service.start(RaceSpec { threshold, ..spec() }).expect("started");
    let nonces = vec![7, 8, 9];
    let ask = Verification { preset: Preset::Dev, seed: [1; 32], host: [2; 32], threshold, nonces: nonces.clone() };
    let valid = block_on(service.verify(ask)).expect("verified");
    assert_eq!(valid, nonces.iter().map(|nonce| appropriate(threshold, *nonce)).collect::<Vec<_>>());
    while service.status().tried == 0 {
        steps.recv_timeout(Duration::from_secs(60)).expect("a step");
    }
    assert_eq!(engine.load().in_flight(), 1);
}

#[test]
fn thread_should_stay_alone_when_another_sets_the_usual_number() {
    let (ask, asked) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let lane = std::thread::spawn(move || {
        alone();
        ready.send(()).expect("heard");
        asked.recv().expect("asked");
        // Whatever libtorch sets when it first works in a thread.
        let _ = tch::Tensor::ones([64, 64], (tch::Kind::Float, Device::Cpu))
            .matmul(&tch::Tensor::ones([64, 64], (tch::Kind::Float, Device::Cpu)));
        tch::get_num_threads()
    });
    is_ready.recv().expect("set");
    tch::set_num_threads(3);
    ask.send(()).expect("heard");
    assert_eq!(lane.join().expect("ended"), 1);
    tch::set_num_threads(1);
}

/// Wrong in the last row of blocks of 200 rows or more. The comparison at start has 160.
fn short_add_fold(block: Block<'_>, x: &mut [i8]) {
    let rows = block.acc.len() / block.columns;
    let done = if rows >= 200 { rows - 1 } else { rows };
    add_fold(Block { acc: &block.acc[..done * block.columns], ..block }, x);
}

#[test]
fn engine_should_refuse_to_race_when_only_the_batch_that_it_races_with_goes_wrong() {
    tch::set_num_threads(1);
    let threshold = pacer_sprint::threshold_for_one_in(4, 256).expect("in table");
    // What was raced before the batch grew into the fault, with 16 and 32 nonces of four rows, stands; nothing else counts.
    for (batch, right) in [(None, 48), (Some(49), 49), (Some(50), 0)] {
        let setup =
            Setup { wrong_kernel: Some(short_add_fold), batch, threads: 1, ..Setup::new(vec![Device::Cpu], 1 << 24) };
        let (stepped, steps) = mpsc::channel();
        let stepped = std::sync::Mutex::new(stepped);
        let service =
            Service::new(&setup, move |_| drop(stepped.lock().map(|stepped| stepped.send(())))).expect("thread");
        service.start(RaceSpec { threshold, ..spec() }).expect("the comparison at start found nothing");
        let ends = |status: &Status| match batch {
            Some(49) => status.tried >= right,
            _ => status.state == State::Failed,
        };
        while !ends(&service.status()) {
            // A lane that gave up makes no more steps.
            let _ = steps.recv_timeout(Duration::from_millis(100));
        }
        let status = service.stop();
        assert_eq!(status.devices[0].error.is_some(), batch != Some(49), "{status:?}");
        assert!(batch == Some(49) || status.tried == right, "{status:?}");
        assert_eq!(status.devices[0].compared > 0, right > 0, "{status:?}");
        let found: Vec<u64> = service.nonces(0).0.into_iter().filter(|nonce| *nonce < right).collect();
        assert_eq!(found, (0..right).filter(|nonce| appropriate(threshold, *nonce)).collect::<Vec<_>>());
    }
}

#[test]
fn verification_should_be_refused_when_only_its_batch_goes_wrong() {
    tch::set_num_threads(1);
    let setup = Setup {
        wrong_kernel: Some(short_add_fold),
        batch: Some(64),
        threads: 1,
        ..Setup::new(vec![Device::Cpu], 1 << 24)
    };
    let service = Service::new(&setup, |_| {}).expect("thread");
    let ask = |count| Verification {
        preset: Preset::Dev,
        seed: [1; 32],
        host: [2; 32],
        threshold: 1,
        nonces: (0..count).collect(),
    };
    assert_eq!(block_on(service.verify(ask(30))).expect("small blocks are right").len(), 30);
    let refused = block_on(service.verify(ask(64))).expect_err("inexact");
    assert!(matches!(refused, SprintError::Inexact(_)), "{refused}");
}
