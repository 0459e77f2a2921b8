//! See `mcp_proxy_tests::fuzz::sse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_proxy_tests::fuzz::sse(bytes));
