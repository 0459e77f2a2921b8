//! Random runs: see `sim`. A failure prints its seed and its events; `cargo run -p mcp-proxy-tests --bin simulate` looks for
//! more of them.

use mcp_proxy_tests::sim::{Replay, record_seed, run_seed};

const SEEDS: u64 = 1000;

#[test]
fn a_thousand_random_runs() {
    let mut total = [0; 5];
    for seed in 0..SEEDS {
        let run = run_seed(seed);
        for (sum, n) in total.iter_mut().zip([run.calls, run.answered, run.children, run.questions, run.resumed]) {
            *sum += n;
        }
    }
    println!("calls, answered, children, questions, resumed: {total:?}");
    // The runs must reach what they are there to test.
    for (sum, least) in total.into_iter().zip([10_000, 2000, 1000, 100, 100]) {
        assert!(sum > least, "{sum} is too few of {least}");
    }
}

#[test]
fn a_recording_replays_to_the_same_actions() {
    for seed in 0..50 {
        let (config, recording) = record_seed(seed);
        let mut replay = Replay::new(config);
        for (now, event) in &recording.events {
            replay.at(now.elapsed().as_millis() as u64, event.clone());
        }
        assert_eq!(replay.recording.events, recording.events);
        assert_eq!(replay.recording.actions, recording.actions, "seed {seed}");
    }
}
