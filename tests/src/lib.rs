//! Harness, simulator, scenarios, fuzz bodies and fake peers of mcp-proxy.
