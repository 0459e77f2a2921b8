//! `--named-server-config`: server lists as MCP clients keep them.
//!
//! Read are the `mcpServers` of Claude, Cursor, Windsurf, Cline, Gemini and others, and the `servers` of VS Code, with
//! comments and trailing commas. Whatever is wrong with one entry leaves that entry out and says why; only a file that
//! is no such list at all is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonc_parser::{ParseOptions, parse_to_serde_value};
use log::debug;
use mcp_proxy_engine::{Command, Credentials, Headers, Origin, Remote, RemoteTransport, Secret};
use serde_json::{Map, Value};

use crate::Failure;
use crate::flags::parse_transport;
use crate::local::{self, Environment, Variables};
use crate::remote;
use crate::settings::{name_is_good, reason};

/// What we use, under any of its names.
const USED: [&str; 15] = [
    "args",
    "command",
    "cwd",
    "disabled",
    "enabled",
    "env",
    "envFile",
    "headers",
    "httpUrl",
    "serverUrl",
    "timeout",
    "transport",
    "transportType",
    "type",
    "url",
];

/// A larger `timeout` is in milliseconds.
const LONGEST_SECONDS: f64 = 3600.0;

/// What concerns only the client that keeps the file: which tools it may call without asking, and how it shows them.
const CLIENT_ONLY: [&str; 8] =
    ["alwaysAllow", "autoApprove", "description", "dev", "gallery", "icon", "trust", "version"];

/// The servers of a file, in the order of their names, and what to tell the user.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) servers: Vec<(String, Origin)>,
    /// How long calls to them may take, where it is said.
    pub(crate) timeouts: BTreeMap<String, Duration>,
    pub(crate) warnings: Vec<String>,
}

/// What an entry may refer to.
pub(crate) struct Scope<'a> {
    /// The variables of the proxy, for `${NAME}`.
    pub(crate) environment: &'a Environment,
    /// What every server process gets.
    pub(crate) inherited: &'a Variables,
}

/// Reads a file.
///
/// # Errors
///
/// It cannot be read, or it is no JSON, or no list of servers.
pub(crate) fn read(path: &Path, scope: &Scope<'_>) -> Result<File, Failure> {
    let fail = |why: String| Failure::start(format!("cannot use {path:?} (--named-server-config): {why}"));
    let text = std::fs::read_to_string(path).map_err(|e| fail(reason(&e)))?;
    parse(&text, &workspace(path), scope).map_err(fail)
}

/// `${workspaceFolder}`: where the file is, or the folder above if it is in the folder of an editor.
fn workspace(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/"));
    let editor = [".vscode", ".cursor"].iter().any(|name| folder.file_name().is_some_and(|folder| folder == *name));
    folder.parent().filter(|_| editor).unwrap_or(folder).to_owned()
}

fn parse(text: &str, folder: &Path, scope: &Scope<'_>) -> Result<File, String> {
    let strict = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root: Value = parse_to_serde_value(text, &strict).map_err(|e| format!("it is not JSON: {e}"))?;
    let lists: Vec<&Value> = ["mcpServers", "servers"].iter().filter_map(|key| root.get(key)).collect();
    if lists.is_empty() {
        return Err("it has no \"mcpServers\" and no \"servers\"".into());
    }
    let mut file = File::default();
    for list in lists {
        let Value::Object(list) = list else { return Err("\"mcpServers\" must be an object of servers".into()) };
        for (name, value) in list {
            let mut entry = Entry { scope, folder, own: Vec::new(), timeout: None, warnings: Vec::new() };
            let origin = entry.origin(name, value);
            file.warnings.extend(entry.warnings.into_iter().map(|text| format!("server {name:?}: {text}")));
            match origin {
                Ok(None) => debug!("server {name:?} is switched off"),
                Ok(Some(_)) if file.servers.iter().any(|(earlier, _)| earlier == name) => {
                    file.warnings.push(format!("server {name:?} is left out: its name is used twice"));
                }
                Ok(Some(origin)) => {
                    file.servers.push((name.clone(), origin));
                    file.timeouts.extend(entry.timeout.map(|timeout| (name.clone(), timeout)));
                }
                Err(why) => file.warnings.push(format!("server {name:?} is left out: {why}")),
            }
        }
    }
    Ok(file)
}

struct Entry<'a> {
    scope: &'a Scope<'a>,
    folder: &'a Path,
    /// Variables that the entry sets itself.
    own: Vec<String>,
    timeout: Option<Duration>,
    warnings: Vec<String>,
}

impl Entry<'_> {
    /// Where the server is, or `None` if it is switched off.
    fn origin(&mut self, name: &str, value: &Value) -> Result<Option<Origin>, String> {
        let Value::Object(keys) = value else { return Err("it must be an object".into()) };
        if flag(keys, "disabled")?.unwrap_or(false) || !flag(keys, "enabled")?.unwrap_or(true) {
            return Ok(None);
        }
        if !name_is_good(name) {
            return Err("its name must be letters, digits, '-', '_' and '.', because it is part of a URL".into());
        }
        for key in keys.keys().filter(|key| !USED.contains(&&***key) && !CLIENT_ONLY.contains(&&***key)) {
            self.warnings.push(format!("{key:?} is unknown and has no effect"));
        }
        if let Some(timeout) = keys.get("timeout") {
            // Nobody waits for hours, and Gemini CLI counts milliseconds.
            let seconds = timeout.as_f64().map(|n| if n > LONGEST_SECONDS { n / 1000.0 } else { n });
            let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let wait = wait.filter(|wait| !wait.is_zero()).ok_or("its timeout must be a number above zero")?;
            self.timeout = Some(wait);
        }
        if let Some(Value::Object(env)) = keys.get("env") {
            self.own = env.keys().cloned().collect();
        }

        let kind = ["type", "transportType", "transport"].iter().find_map(|key| keys.get(*key));
        let kind = kind.map(|kind| kind.as_str().ok_or("its type must be a string")).transpose()?;
        let transport = kind.filter(|kind| *kind != "stdio").map(|kind| (kind, parse_transport(kind)));
        // Gemini gives `httpUrl` the preference, and means Streamable HTTP.
        let url = ["httpUrl", "url", "serverUrl"].iter().find(|key| keys.contains_key(**key));
        match (keys.contains_key("command"), url, transport) {
            (false, None, _) => Err("it has neither \"command\" nor \"url\"".into()),
            (true, Some(_), _) if kind.is_none() => {
                Err("it has both \"command\" and \"url\"; say which by \"type\"".into())
            }
            (true, Some(_), None) | (true, None, None) => self.local(keys).map(Some),
            (true, None, Some((kind, _))) => {
                self.warnings.push(format!("type {kind:?} has no effect on a command, which speaks stdio"));
                self.local(keys).map(Some)
            }
            (_, Some(_), Some((kind, Err(_)))) => Err(format!("its type {kind:?} is not supported")),
            (_, Some(key), Some((_, Ok(transport)))) => self.remote(keys, key, transport).map(Some),
            (false, Some(key), None) => {
                if kind.is_some() {
                    self.warnings.push("type \"stdio\" has no effect on a URL".into());
                }
                let streamable = *key == "httpUrl";
                let transport = if streamable { RemoteTransport::StreamableHttp } else { RemoteTransport::Detect };
                self.remote(keys, key, transport).map(Some)
            }
        }
    }

    fn local(&mut self, keys: &Map<String, Value>) -> Result<Origin, String> {
        self.no_effect(keys, &["headers"]);
        let program = self.text(keys, "command")?.filter(|program| !program.is_empty());
        let program = program.ok_or("its command is empty")?;
        let args = match keys.get("args") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(args)) => args
                .iter()
                .map(|arg| self.expand(&scalar(arg).ok_or("its args must be strings")?, true))
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err("its args must be a list of strings".into()),
        };
        let cwd = self.text(keys, "cwd")?.map(PathBuf::from);
        let mut env = self.scope.inherited.clone();
        if let Some(file) = self.text(keys, "envFile")? {
            let path = self.folder.join(&file);
            let text = std::fs::read_to_string(&path).map_err(|e| format!("its envFile {path:?}: {}", reason(&e)))?;
            for (name, value) in variables_of(&text) {
                local::set(&mut env, &name, &value);
            }
        }
        match keys.get("env") {
            None | Some(Value::Null) => {}
            Some(Value::Object(variables)) => {
                for (name, value) in variables {
                    if name.is_empty() || name.contains(['=', '\0']) {
                        return Err(format!("its env cannot have a variable {name:?}"));
                    }
                    // In VS Code `null` takes a variable away.
                    if value.is_null() {
                        env.retain(|(earlier, _)| earlier != &**name);
                        continue;
                    }
                    let value = scalar(value).ok_or_else(|| format!("its variable {name:?} must be a string"))?;
                    local::set(&mut env, name, &self.expand(&value, false)?);
                }
            }
            Some(_) => return Err("its env must be an object of strings".into()),
        }
        // The program is not looked up: it may be installed later, and the engine tries again.
        let args = args.into_iter().map(Into::into).collect();
        let command = Command { program: program.into(), args, env, cwd };
        let null = |word: &std::ffi::OsStr| word.as_encoded_bytes().contains(&0);
        if null(&command.program) || command.args.iter().any(|arg| null(arg)) {
            return Err("its command has a null character".into());
        }
        Ok(Origin::Local(command))
    }

    fn remote(&mut self, keys: &Map<String, Value>, key: &str, transport: RemoteTransport) -> Result<Origin, String> {
        self.no_effect(keys, &["args", "cwd", "env", "envFile"]);
        let url = self.text(keys, key)?.unwrap_or_default();
        remote::check_url(&url).map_err(|why| format!("its URL {:?}: {why}", remote::shown(&url)))?;
        let mut headers = Headers::new();
        match keys.get("headers") {
            None | Some(Value::Null) => {}
            Some(Value::Object(fields)) => {
                for (name, value) in fields {
                    let value = scalar(value).ok_or_else(|| format!("its header {name:?} must be a string"))?;
                    let value = self.expand(&value, false)?;
                    match remote::header(name, &value).map_err(|why| format!("its header {name:?}: {why}"))? {
                        Some((name, value)) => headers.push(name, value),
                        None => self.warnings.push(format!("header {name:?} is left out: the proxy writes it itself")),
                    }
                }
            }
            Some(_) => return Err("its headers must be an object of strings".into()),
        }
        let (url, in_url) = remote::without_user(&url);
        let credentials = if headers.get("authorization").is_some() { Credentials::None } else { in_url };
        Ok(Origin::Remote(Remote { url: Secret::new(url), transport, headers, credentials }))
    }

    /// Warns of keys that are for the other kind of server, unless they say nothing.
    fn no_effect(&mut self, keys: &Map<String, Value>, others: &[&str]) {
        for key in others {
            let says_nothing = match keys.get(*key) {
                None | Some(Value::Null) => true,
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                Some(value) => value == "",
            };
            if !says_nothing {
                self.warnings.push(format!("{key:?} has no effect on this kind of server"));
            }
        }
    }

    fn text(&mut self, keys: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
        match keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => self.expand(text, matches!(key, "command" | "cwd")).map(Some),
            Some(_) => Err(format!("its {key:?} must be a string")),
        }
    }

    /// Puts in the values of `${NAME}`, `${NAME:-default}`, `${env:NAME}`, `${userHome}` and `${workspaceFolder}`.
    ///
    /// What has no value stays as it is, with a warning: it may be meant for a shell, or for the server. In a command
    /// (`for_the_server`) a variable that the entry itself sets certainly is, so that one stays without a warning.
    fn expand(&mut self, text: &str, for_the_server: bool) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((inside, next)) = after.split_once('}') else {
                rest = &rest[before.len()..];
                break;
            };
            rest = next;
            if inside.starts_with("input:") {
                return Err(format!(
                    "${{{inside}}} asks for input, and nobody is there; use a variable, ${{env:NAME}}"
                ));
            }
            let (name, default) = match inside.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            let bare = name.strip_prefix("env:");
            let name = bare.unwrap_or(name);
            let environment = self.scope.environment;
            let value = match name {
                "userHome" if bare.is_none() => environment.get("HOME").map(str::to_owned),
                "workspaceFolder" if bare.is_none() => Some(self.folder.to_string_lossy().into_owned()),
                _ if for_the_server && bare.is_none() && self.own.iter().any(|own| own == name) => {
                    out.push_str(&format!("${{{inside}}}"));
                    continue;
                }
                // As in a shell, `:-` also stands in for what is empty.
                _ if default.is_some() => environment.get(name).or(default).map(str::to_owned),
                _ => environment.raw(name).map(str::to_owned),
            };
            match value {
                Some(value) => out.push_str(&value),
                None => {
                    self.warnings.push(format!("${{{inside}}} has no value and stays as it is"));
                    out.push_str(&format!("${{{inside}}}"));
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn flag(keys: &Map<String, Value>, key: &str) -> Result<Option<bool>, String> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(format!("its {key:?} must be true or false")),
    }
}

/// A string, or what people write without quotes though it is meant as one.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The lines of an environment file: `NAME=value`, `export NAME=value`, values in quotes, `#` comments.
fn variables_of(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || name.starts_with('#') || name.contains(char::is_whitespace) {
            return None;
        }
        let quoted = |quote: char| Some(value.strip_prefix(quote)?.split_once(quote)?.0);
        let value = match (quoted('\''), quoted('"')) {
            (Some(value), _) => value.to_owned(),
            (_, Some(value)) => value.replace("\\n", "\n"),
            _ => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
        };
        Some((name.to_owned(), value))
    };
    text.strip_prefix('\u{feff}').unwrap_or(text).lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file means: one line a server, then the warnings.
    fn meaning(text: &str) -> Vec<String> {
        let variables = [("TOKEN", "t0k"), ("EMPTY", ""), ("HOME", "/home/me"), ("REGION", "eu")];
        let environment = Environment::new(variables.map(|(n, v)| (n.into(), v.into())));
        let inherited = vec![("PATH".into(), Secret::new("/bin".into()))];
        let scope = Scope { environment: &environment, inherited: &inherited };
        let file = match parse(text, Path::new("/work/project"), &scope) {
            Ok(file) => file,
            Err(why) => return vec![format!("error: {why}")],
        };
        let server = |(name, origin): &(String, Origin)| match origin {
            Origin::Local(command) => {
                let words = std::iter::once(&command.program).chain(&command.args);
                let mut words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
                for (name, value) in command.env.iter().filter(|(name, _)| name != "PATH") {
                    words.push(format!("${}={}", name.display(), value.reveal().display()));
                }
                words.extend(command.cwd.iter().map(|cwd| format!("in {}", cwd.display())));
                format!("{name}: {}", words.join(" "))
            }
            Origin::Remote(remote) => {
                let headers: String = remote.headers.iter().map(|(n, v)| format!(" {n}={v}")).collect();
                format!("{name}: {:?} {}{headers}", remote.transport, remote.url.reveal())
            }
        };
        let timeout = |name: &String| file.timeouts.get(name).map(|t| format!(" within {t:?}")).unwrap_or_default();
        let servers: Vec<_> = file.servers.iter().map(|s| server(s) + &timeout(&s.0)).collect();
        [servers, file.warnings].concat()
    }

    fn check(client: &str, text: &str, expected: &[&str]) {
        assert_eq!(meaning(text), expected, "{client}");
    }

    #[test]
    fn the_files_of_every_client() {
        check(
            "Claude Desktop",
            r#"{"mcpServers": {"fs": {"command": "npx", "args": ["-y", "fs", "/tmp"], "env": {"K": "v"}}}}"#,
            &["fs: npx -y fs /tmp $K=v"],
        );
        check(
            "Claude Code",
            r#"{"mcpServers": {
                "a": {"type": "stdio", "command": "${HOME}/s", "args": ["--r=${REGION:-us}", "${NONE:-d}"], "env": {}},
                "b": {"type": "http", "url": "https://${NONE:-api.example}/mcp",
                      "headers": {"Authorization": "Bearer ${TOKEN}"}},
                "c": {"type": "sse", "url": "https://h/sse"}}}"#,
            &[
                "a: /home/me/s --r=eu d",
                "b: StreamableHttp https://api.example/mcp authorization=Bearer t0k",
                "c: Sse https://h/sse",
            ],
        );
        check(
            "Cursor",
            r#"{"mcpServers": {
                "a": {"command": "${workspaceFolder}/s", "args": ["${userHome}"], "env": {"K": "${env:TOKEN}"}},
                "b": {"url": "http://your-server:8000/sse?auth_key=your_auth_key", "env": {}},
                "c": {"url": "https://h/mcp", "headers": {"X-Key": "${env:TOKEN}"}}}}"#,
            &[
                "a: /work/project/s /home/me $K=t0k",
                "b: Detect http://your-server:8000/sse?auth_key=your_auth_key",
                "c: Detect https://h/mcp x-key=t0k",
            ],
        );
        check(
            "VS Code",
            r#"// comments, and commas at the end
            {"servers": {
                "a": {"type": "stdio", "command": "s", "cwd": "${workspaceFolder}", "env": {"N": 1, "PATH": null,},},
                /* the old one */
                "b": {"type": "sse", "url": "http://127.0.0.1:8080/sse"},
                "c": {"type": "http", "url": "http://127.0.0.1:8080/servers/fetch/mcp"},
                "d": {"type": "http", "url": "https://h", "headers": {"Authorization": "Bearer ${input:key}"}},
             }, "inputs": [{"type": "promptString", "id": "key", "description": "", "password": true}]}"#,
            &[
                "a: s $N=1 in /work/project",
                "b: Sse http://127.0.0.1:8080/sse",
                "c: StreamableHttp http://127.0.0.1:8080/servers/fetch/mcp",
                "server \"d\" is left out: ${input:key} asks for input, and nobody is there; use a variable, ${env:NAME}",
            ],
        );
        check(
            "Windsurf",
            r#"{"mcpServers": {"a": {"serverUrl": "https://h/mcp"}, "b": {"url": "https://h/mcp"}}}"#,
            &["a: Detect https://h/mcp", "b: Detect https://h/mcp"],
        );
        check(
            "Cline and Roo",
            r#"{"mcpServers": {
                "a": {"type": "streamableHttp", "url": "https://h", "disabled": false, "autoApprove": ["x"]},
                "b": {"type": "streamable-http", "url": "https://h", "alwaysAllow": []},
                "c": {"command": "x", "disabled": true},
                "d": {"command": "x", "timeout": 60}}}"#,
            &["a: StreamableHttp https://h", "b: StreamableHttp https://h", "d: x within 60s"],
        );
        check(
            "Gemini CLI",
            r#"{"theme": "x", "mcpServers": {
                "a": {"httpUrl": "https://h/mcp", "url": "https://h/sse"}, "b": {"url": "https://h/sse"},
                "c": {"command": "x", "cwd": "./d", "trust": true, "excludeTools": ["t"]}}}"#,
            &[
                "a: StreamableHttp https://h/mcp",
                "b: Detect https://h/sse",
                "c: x in ./d",
                "server \"c\": \"excludeTools\" is unknown and has no effect",
            ],
        );
        for spelling in ["http", "streamable-http", "streamableHttp", "streamable_http", "streamablehttp"] {
            for key in ["type", "transportType", "transport"] {
                let text = format!(r#"{{"mcpServers": {{"a": {{"{key}": "{spelling}", "url": "http://h"}}}}}}"#);
                check(spelling, &text, &["a: StreamableHttp http://h"]);
            }
        }
    }

    #[test]
    fn a_bad_entry_is_left_out_and_the_others_stay() {
        for (entry, why) in [
            ("1", "it must be an object"),
            ("{}", "it has neither \"command\" nor \"url\""),
            (r#"{"command": ""}"#, "its command is empty"),
            (r#"{"command": 1}"#, "its \"command\" must be a string"),
            (r#"{"command": "x", "args": "y"}"#, "its args must be a list of strings"),
            (r#"{"command": "x", "args": [[]]}"#, "its args must be strings"),
            (r#"{"command": "x", "args": ["\u0000"]}"#, "its command has a null character"),
            (r#"{"command": "x", "env": []}"#, "its env must be an object of strings"),
            (r#"{"command": "x", "env": {"A": {}}}"#, "its variable \"A\" must be a string"),
            (r#"{"command": "x", "env": {"A=B": "1"}}"#, "its env cannot have a variable \"A=B\""),
            (r#"{"command": "x", "enabled": "no"}"#, "its \"enabled\" must be true or false"),
            (
                r#"{"command": "x", "envFile": ".env-that-is-not-there"}"#,
                "its envFile \"/work/project/.env-that-is-not-there\": no such file or directory",
            ),
            (r#"{"command": "x", "url": "http://h"}"#, "it has both \"command\" and \"url\"; say which by \"type\""),
            (r#"{"url": "h"}"#, "its URL \"h\": it is not a URL: unexpected character at index 1"),
            (r#"{"url": "ftp://h"}"#, "its URL \"ftp://h\": it must begin with http:// or https://"),
            (r#"{"type": "ws", "url": "ws://h"}"#, "its type \"ws\" is not supported"),
            (r#"{"url": "http://h", "headers": []}"#, "its headers must be an object of strings"),
            (
                r#"{"url": "http://h", "headers": {"a b": ""}}"#,
                "its header \"a b\": this is not the name of a header field",
            ),
        ] {
            let text = format!(r#"{{"mcpServers": {{"bad": {entry}, "good": {{"command": "x"}}}}}}"#);
            check(entry, &text, &["good: x", &format!("server \"bad\" is left out: {why}")]);
        }
        check(
            "names",
            r#"{"mcpServers": {"a b": {"command": "x"}, "c": {"command": "x"}}, "servers": {"c": {"command": "y"}}}"#,
            &[
                "c: x",
                "server \"a b\" is left out: its name must be letters, digits, '-', '_' and '.', because it is part of a \
                 URL",
                "server \"c\" is left out: its name is used twice",
            ],
        );
    }

    #[test]
    fn what_has_no_effect_is_said() {
        for (entry, origin, warning) in [
            (r#"{"command": "x", "color": 1}"#, "x", "\"color\" is unknown and has no effect"),
            (r#"{"command": "x", "type": "sse"}"#, "x", "type \"sse\" has no effect on a command, which speaks stdio"),
            (r#"{"command": "x", "headers": {"a": ""}}"#, "x", "\"headers\" has no effect on this kind of server"),
            (r#"{"url": "http://h", "type": "stdio"}"#, "Detect http://h", "type \"stdio\" has no effect on a URL"),
            (
                r#"{"url": "http://h", "env": {"A": "1"}}"#,
                "Detect http://h",
                "\"env\" has no effect on this kind of server",
            ),
            (
                r#"{"url": "http://h", "headers": {"Host": "x"}}"#,
                "Detect http://h",
                "header \"Host\" is left out: the proxy writes it itself",
            ),
            (r#"{"command": "x", "args": ["${NONE}"]}"#, "x ${NONE}", "${NONE} has no value and stays as it is"),
        ] {
            let text = format!(r#"{{"mcpServers": {{"a": {entry}}}}}"#);
            check(entry, &text, &[&format!("a: {origin}"), &format!("server \"a\": {warning}")]);
        }
        // What the entry sets itself is for the server to put in, as with mcp-remote.
        check(
            "own variables",
            r#"{"mcpServers": {"a": {"command": "x", "args": ["K:${AUTH}", "$TOKEN", "${", "${EMPTY}", "${EMPTY:-e}"],
            "env": {"AUTH": "${TOKEN}"}}}}"#,
            &["a: x K:${AUTH} $TOKEN ${  e $AUTH=t0k"],
        );
    }

    #[test]
    fn what_is_no_list_of_servers_is_an_error() {
        for (text, why) in [
            ("{}", "it has no \"mcpServers\" and no \"servers\""),
            ("", "it has no \"mcpServers\" and no \"servers\""),
            ("[]", "it has no \"mcpServers\" and no \"servers\""),
            (r#"{"mcpServers": []}"#, "\"mcpServers\" must be an object of servers"),
        ] {
            check(text, text, &[&format!("error: {why}")]);
        }
        assert!(meaning("{'a': 1}")[0].starts_with("error: it is not JSON: "));
        check("nothing in it", "\u{feff}{\"mcpServers\": {}}", &[]);
    }

    #[test]
    fn environment_files() {
        let text = "\u{feff}# c\nA=1\nexport B = two # not this\nC='a # b'\nD=\"x\\ny\" # c\nE=\nF=a=b#c\nbad\n=x\nG H=1\r\nI=2\r\n";
        let pairs = variables_of(text);
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected = [("A", "1"), ("B", "two"), ("C", "a # b"), ("D", "x\ny"), ("E", ""), ("F", "a=b#c"), ("I", "2")];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn the_workspace_is_the_folder_or_the_one_above_an_editors() {
        for (path, expected) in
            [("/p/servers.json", "/p"), ("/p/.vscode/mcp.json", "/p"), ("/p/.cursor/mcp.json", "/p"), ("/x.json", "/")]
        {
            assert_eq!(workspace(Path::new(path)), Path::new(expected));
        }
    }
}
