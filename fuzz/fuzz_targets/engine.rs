//! See `mcp_proxy_tests::fuzz::engine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_proxy_tests::fuzz::engine(bytes));
