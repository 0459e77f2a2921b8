//! Random runs for as long as wanted. Prints the kinds of failure it met, each with its shortest run; exits with 1 if there
//! was one.
//!
//! ```text
//! simulate [--seconds N] [--seed S]     runs from seed S on for N seconds (default: 10, from 0)
//! simulate --only S                     the run of one seed
//! simulate --bytes FILE                 the run that a fuzzer found
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mcp_proxy_tests::sim::{Choices, Failure, try_run};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seconds, mut seed, mut only, mut bytes) = (10, 0, false, None);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        match (&*arg, value.parse()) {
            ("--seconds", Ok(n)) => seconds = n,
            ("--seed", Ok(n)) => seed = n,
            ("--only", Ok(n)) => (seed, only) = (n, true),
            ("--bytes", _) => bytes = Some(value),
            _ => {
                eprintln!("simulate [--seconds N] [--seed S] [--only S] [--bytes FILE]");
                return ExitCode::from(2);
            }
        }
    }
    // What a failure says is printed at the end.
    std::panic::set_hook(Box::new(|_| {}));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut failures: BTreeMap<String, (usize, String, Box<Failure>)> = BTreeMap::new();
    let (mut runs, mut calls) = (0, 0);
    loop {
        let (name, result) = match &bytes {
            Some(file) => {
                let bytes = std::fs::read(file).unwrap_or_else(|e| {
                    eprintln!("{file}: {e}");
                    std::process::exit(2)
                });
                (format!("the bytes of {file}"), try_run(&Choices::Bytes(&bytes)))
            }
            None => (format!("seed {seed}"), try_run(&Choices::Seed(seed))),
        };
        runs += 1;
        match result {
            Ok(summary) => calls += summary.calls,
            Err(failure) => {
                let kind: String = failure.what.chars().take(100).filter(|c| !c.is_ascii_digit()).collect();
                let steps = failure.recording.events.len();
                let entry = failures.entry(kind).or_insert_with(|| (0, name.clone(), failure));
                entry.0 += 1;
                if steps < entry.2.recording.events.len()
                    && let Err(shorter) = try_run(&Choices::Seed(seed))
                {
                    (entry.1, entry.2) = (name, shorter);
                }
            }
        }
        seed += 1;
        if only || bytes.is_some() || Instant::now() >= end {
            break;
        }
    }
    for (count, name, failure) in failures.values() {
        eprintln!("\n{name}, the shortest of {count}:\n{failure}");
    }
    eprintln!("{runs} runs, {calls} calls, {} kinds of failure", failures.len());
    for (count, name, failure) in failures.values() {
        eprintln!("{count:6} x {name}: {}", failure.what.lines().next().unwrap_or_default());
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}
