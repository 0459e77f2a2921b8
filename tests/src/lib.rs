//! Harness, simulator, scenarios, fuzz bodies and fake peers of mcp-proxy.

pub mod fake;
pub mod fuzz;
pub mod rig;
pub mod scenario;
pub mod sim;
