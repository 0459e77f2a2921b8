//! The log: lines on stderr, for people or for programs.

use std::io::Write;

use log::LevelFilter;
use serde_json::json;

use crate::flags::LogFormat;

/// Sends the log to stderr, whatever the front: stdout is for the protocol.
///
/// Text has the format of the Python program: `[I 2026-11-24 09:00:01,123 mcp_proxy] text`. JSON is one object a line with
/// `time` (RFC 3339, UTC), `level`, `target` and `message`.
pub(crate) fn start(level: LevelFilter, format: LogFormat) {
    let mut builder = env_logger::Builder::new();
    // Other people's crates only speak up when something is wrong.
    builder.filter_level(level.min(LevelFilter::Warn)).filter_module("mcp_proxy", level);
    match format {
        LogFormat::Text => builder.format(|out, record| {
            let letter = &record.level().as_str()[..1];
            let time = out.timestamp_millis().to_string().replace('T', " ").replace('.', ",");
            let time = time.trim_end_matches('Z');
            let mut text = record.args().to_string();
            // What a server or a client sent must not move the cursor or forge a line of the log.
            if text.contains(|c: char| c.is_control() && c != '\t') {
                let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
                text = text.chars().map(escape).collect();
            }
            writeln!(out, "[{letter} {time} {}] {text}", record.target())
        }),
        LogFormat::Json => builder.format(|out, record| {
            let line = json!({
                "time": out.timestamp_millis().to_string(),
                "level": record.level().as_str(),
                "target": record.target(),
                "message": record.args().to_string(),
            });
            writeln!(out, "{line}")
        }),
    };
    builder.init();
}
