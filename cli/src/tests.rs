//! The contract with the users of other programs: each command line that COMPAT.md 3.1 and 3.2 print, and more like them,
//! and what it means.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mcp_proxy_engine::{Credentials, FrontKind, Origin, Server, SessionMode, UrlEnv, Verify};

use crate::args::{self, Parsed};
use crate::local::{Environment, split_words};
use crate::settings::{Plan, plan};

#[path = "../tests/table/mod.rs"]
mod table;

/// A folder with the programs of the examples, and other files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mcp-proxy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let folder = Folder(path);
        for program in ["uvx", "npx", "your-command"] {
            let file = folder.file(program, "#!/bin/sh\n");
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Plans a line as a shell would read it, variables first. `@/` is this folder.
    fn plan(&self, line: &str) -> (Result<Plan, String>, Vec<String>) {
        let here = self.0.to_str().unwrap();
        let words = split_words(&line.replace("@/", &format!("{here}/"))).unwrap();
        let at = words.iter().position(|word| word == "mcp-proxy" || word == "mcpproxy").unwrap();
        let surroundings = [("PATH", here), ("HOME", "/home/me"), ("OUTSIDE", "1")];
        let mut variables: Vec<_> = surroundings.map(|(name, value)| (name.into(), value.into())).into();
        variables.extend(words[..at].iter().map(|word| {
            let (name, value) = word.split_once('=').unwrap();
            (name.into(), value.into())
        }));
        let mut warnings = Vec::new();
        let line = match args::parse(words[at + 1..].iter().map(Into::into)) {
            Ok(Parsed::Line(line)) => line,
            Ok(Parsed::Help) => panic!("help"),
            Err(failure) => return (Err(format!("{} {}", failure.code, failure.text)), warnings),
        };
        let plan = plan(&line, &Environment::new(variables), &mut warnings);
        (plan.map_err(|f| format!("{} {}", f.code, f.text.replace(here, "@"))), warnings)
    }

    /// What a line means, in one line of text.
    fn meaning(&self, line: &str) -> String {
        let (plan, warnings) = self.plan(line);
        let warnings = match warnings.len() {
            0 => String::new(),
            n => format!(" [{n} warned]"),
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(text) => return format!("error {text}{warnings}"),
        };
        assert!(plan.config.validate().is_ok(), "{line}");
        assert_eq!(plan.config.servers.len(), plan.shown.len());
        assert_eq!(plan.listen.is_none(), plan.config.front == FrontKind::Stdio);
        let front = plan.listen.map_or("stdio".into(), |listen| format!("{}:{}", listen.host, listen.port));
        let servers: Vec<_> = plan.config.servers.iter().map(|server| self.server(server)).collect();
        let mut rest = String::new();
        let access = &plan.config.access;
        for (name, list) in [("cors", &access.cors_origins), ("expose", &access.expose_headers)] {
            rest.push_str(&if list.is_empty() { String::new() } else { format!(" {name}={}", list.join("+")) });
        }
        let tokens: Vec<_> = access.auth_tokens.iter().map(|token| token.reveal().as_str()).collect();
        rest.push_str(&if tokens.is_empty() { String::new() } else { format!(" auth={}", tokens.join("+")) });
        rest.push_str(match &plan.config.outbound.verify {
            Verify::Native => "",
            Verify::Nothing => " unverified",
            Verify::Bundle(_) => " bundle",
        });
        format!("{front} | {}{rest}{warnings}", servers.join(" | "))
    }

    fn server(&self, server: &Server) -> String {
        let here = self.0.to_str().unwrap();
        let mut text = format!("{}: ", server.name);
        match &server.origin {
            Origin::Local(command) => {
                let words = std::iter::once(&command.program).chain(&command.args);
                let words: Vec<_> = words.map(|word| word.to_str().unwrap().replace(here, "@")).collect();
                text.push_str(&words.join(","));
                for (name, value) in command.env.iter().filter(|(name, _)| name != "PATH" && name != "HOME") {
                    text.push_str(&format!(" {}={}", name.display(), value.reveal().display()));
                }
            }
            Origin::Remote(remote) => {
                text.push_str(&format!("{:?} {}", remote.transport, remote.url.reveal()));
                for (name, value) in remote.headers.iter() {
                    text.push_str(&format!(" {name}={value}"));
                }
                match &remote.credentials {
                    Credentials::None => {}
                    Credentials::Bearer(token) => text.push_str(&format!(" bearer={}", token.reveal())),
                    Credentials::Basic { username, password } => {
                        text.push_str(&format!(" basic={username}:{}", password.reveal()));
                    }
                    Credentials::Digest { username, password } => {
                        text.push_str(&format!(" digest={username}:{}", password.reveal()));
                    }
                    Credentials::ClientCredentials { id, secret, token_url } => {
                        text.push_str(&format!(" oauth={id}:{}@{token_url}", secret.reveal()));
                    }
                }
            }
        }
        text.push_str(match server.sessions {
            SessionMode::Shared => "",
            SessionMode::PerSession => " per-session",
            SessionMode::PerRequest => " per-request",
        });
        text.push_str(if server.stateless { " stateless" } else { "" });
        text.push_str(&server.timeout.map(|timeout| format!(" within {timeout:?}")).unwrap_or_default());
        match &server.url_env {
            UrlEnv::Off => {}
            UrlEnv::Listed(names) => text.push_str(&format!(" url={}", names.join("+"))),
            UrlEnv::Any => text.push_str(" url=*"),
        }
        for (header, name) in &server.header_env {
            text.push_str(&format!(" {header}->{name}"));
        }
        text
    }

    fn check(&self, table: &[(&str, &str)]) {
        for (line, expected) in table {
            assert_eq!(self.meaning(line), *expected, "{line}");
        }
    }

    /// Checks the lines of the shared table that are chosen. A relative path is one in this folder.
    fn check_table(&self, chosen: fn(&str) -> bool) {
        let cases = table::cases();
        let mut count = 0;
        for case in cases.iter().skip(1).filter(|case| chosen(case.line)) {
            let line = case.filled();
            // What a shell takes for a comment.
            let line = line.split(" # ").next().unwrap();
            match case.one("means") {
                Some(expected) => {
                    assert_eq!(self.meaning(&line.replace("./", "@/")), expected.replace("./", "@/"), "{line}");
                }
                None => assert!(line.starts_with("docker "), "what does {line} mean?"),
            }
            count += 1;
        }
        assert!(count > 0);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// COMPAT.md 3.1. `tests/lines.rs` runs the same lines.
#[test]
fn every_line_of_the_python_program() {
    let folder = Folder::new("python");
    folder.file("servers.json", include_str!("../tests/servers.json"));
    folder.file("no-servers.json", r#"{"mcp": {}}"#);
    folder.check_table(|line| !line.contains("AUTH_KEY"));
    folder.check(&[
        // From the table of options in 3.1, and from 3.5.
        ("mcp-proxy --allow-cors '*' -- uvx f", "127.0.0.1:0 | default: @/uvx,f cors=*"),
        ("mcp-proxy --stateless uvx f", "127.0.0.1:0 | default: @/uvx,f stateless"),
        (
            "mcp-proxy --transport=streamablehttp -H X-Key v https://h/mcp",
            "stdio | default: StreamableHttp https://h/mcp x-key=v",
        ),
        (
            "mcp-proxy --username u --password p --digest --verify-ssl http://h",
            "stdio | default: Detect http://h digest=u:p",
        ),
        ("mcp-proxy --verify-ssl @/uvx http://h", "stdio | default: Detect http://h bundle"),
    ]);
}

/// COMPAT.md 3.2.
#[test]
fn every_line_of_mcpproxy() {
    let folder = Folder::new("mcpproxy");
    let production = "PYTHONUNBUFFERED=1 NODE_ENV=production";
    folder.check_table(|line| line.contains("AUTH_KEY"));
    folder.check(&[
        (
            "AUTH_KEY=your_key SHARED_SESSION=False MCP_SERVER_CONFIG='uvx f' NODE_ENV=test TOKEN=t mcpproxy",
            "0.0.0.0:8000 | default: @/uvx,f OUTSIDE=1 SHARED_SESSION=False MCP_SERVER_CONFIG=uvx f NODE_ENV=test TOKEN=t \
             PYTHONUNBUFFERED=1 per-session url=* auth=your_key",
        ),
        (
            "MCP_SERVER_CONFIG='uvx \"a b\" $HOME' mcpproxy --no-pass-environment --port 9000",
            &format!("0.0.0.0:9000 | default: @/uvx,a b,$HOME {production}"),
        ),
        (
            "AUTH_KEY= MCP_SERVER_CONFIG=uvx mcpproxy --no-pass-e",
            &format!("0.0.0.0:8000 | default: @/uvx {production}"),
        ),
        ("MCP_SERVER_CONFIG='uvx \"' mcpproxy", "error 1 cannot use MCP_SERVER_CONFIG: a \" is not closed"),
        ("MCP_SERVER_CONFIG=' ' mcpproxy", "error 1 cannot use MCP_SERVER_CONFIG: it has no command"),
        (
            "MCP_SERVER_CONFIG=nowhere mcpproxy",
            "error 1 cannot start \"nowhere\": not found in PATH (@). Give the full path.",
        ),
        // What is typed beats what is inherited.
        ("MCP_SERVER_CONFIG='npx x' mcp-proxy uvx f", "127.0.0.1:0 | default: @/uvx,f"),
        ("SSE_URL=http://h mcp-proxy uvx f", "127.0.0.1:0 | default: @/uvx,f"),
        ("SSE_URL=http://h mcp-proxy --named-server a uvx", "127.0.0.1:0 | a: uvx"),
        ("SHARED_SESSION=false mcp-proxy uvx", "127.0.0.1:0 | default: @/uvx per-session"),
        ("SHARED_SESSION=false mcp-proxy --session-mode shared uvx", "127.0.0.1:0 | default: @/uvx"),
    ]);
}

#[test]
fn credentials_and_modes() {
    let folder = Folder::new("modes");
    let both = "error 1 Both --username and --password are required";
    folder.file("tokens", "one\n\n two \n");
    folder.file("empty", "\n");
    folder.file("all.json", r#"{"mcpServers": {"default": {"command": "x"}, "a": {"url": "https://h/mcp"}}}"#);
    folder.file(
        "slow.json",
        r#"{"mcpServers": {"default": {"command": "z", "timeout": 1}, "a": {"command": "x", "timeout": 90},
        "b": {"command": "y", "timeout": 5000}, "c": {"command": "w", "timeout": 1e-10}, "d": {"command": "v", "timeout": 1e300}}}"#,
    );
    folder.file("none.json", r#"{"mcpServers": {"a": {}, "b": {"command": "x", "disabled": true}}}"#);
    folder.file("other.json", r#"{"mcp": {}}"#);
    folder.file("broken.json", "{\n  \"mcpServers\": {,}\n}");
    folder.check(&[
        // HTTP to HTTP.
        ("mcp-proxy --port 8080 http://h/sse", "127.0.0.1:8080 | default: Detect http://h/sse"),
        ("mcp-proxy --host :: http://h/sse", ":::0 | default: Detect http://h/sse"),
        ("mcp-proxy --sse-port 1 http://h/sse", "127.0.0.1:1 | default: Detect http://h/sse [1 warned]"),
        ("mcp-proxy --port 1 --named-server a 'uvx f' http://h", "127.0.0.1:1 | default: Detect http://h | a: uvx,f"),
        ("mcp-proxy --named-server a 'uvx f' http://h", "stdio | default: Detect http://h [1 warned]"),
        ("AUTH_KEY=k mcp-proxy http://h", "stdio | default: Detect http://h"),
        ("mcp-proxy HTTPS://h/mcp x", "stdio | default: Detect HTTPS://h/mcp [1 warned]"),
        ("mcp-proxy http://", "error 2 cannot use the URL \"http://\": it names no host"),
        ("SSE_URL=uvx mcp-proxy", "error 1 the variable SSE_URL must be a URL, http:// or https://"),
        // Who we are: client credentials, Basic and Digest, a header, a token; and what was typed first.
        ("API_ACCESS_TOKEN=t mcp-proxy --api-access-token u http://h", "stdio | default: Detect http://h bearer=u"),
        (
            "API_ACCESS_TOKEN=t mcp-proxy -H authorization x http://h",
            "stdio | default: Detect http://h authorization=x",
        ),
        (
            "mcp-proxy -H Authorization x --username u --password p http://h",
            "stdio | default: Detect http://h basic=u:p [1 warned]",
        ),
        (
            "mcp-proxy --client-id i --client-secret s --token-url http://t --username u http://h",
            "stdio | default: Detect http://h oauth=i:s@http://t",
        ),
        ("mcp-proxy --client-id i --token-url http://t http://h", "stdio | default: Detect http://h [1 warned]"),
        ("mcp-proxy --username u http://h", both),
        ("mcp-proxy --password p http://h", both),
        ("mcp-proxy --digest http://h", both),
        ("API_ACCESS_TOKEN=t mcp-proxy http://u:p@h/sse?k=1", "stdio | default: Detect http://h/sse?k=1 basic=u:p"),
        ("API_ACCESS_TOKEN='a b' mcp-proxy http://h", "error 1 API_ACCESS_TOKEN must be a token, without blanks"),
        ("mcp-proxy -H 'X Y' z http://h", "error 2 --headers \"X Y\": this is not the name of a header field"),
        ("mcp-proxy -H Host z http://h", "stdio | default: Detect http://h [1 warned]"),
        (
            "mcp-proxy --verify-ssl=@/nothing http://h",
            "error 1 cannot read \"@/nothing\" (--verify-ssl): no such file or directory",
        ),
        ("mcp-proxy --headers A b --digest --transport sse uvx", "127.0.0.1:0 | default: @/uvx [1 warned]"),
        // Who may come in.
        (
            "AUTH_KEY=k mcp-proxy --auth-token t --auth-token-file @/tokens uvx",
            "127.0.0.1:0 | default: @/uvx auth=k+t+one+two",
        ),
        ("mcp-proxy --auth-token-file @/empty uvx", "error 1 there is no token in \"@/empty\" (--auth-token-file)"),
        (
            "mcp-proxy --auth-token '' uvx",
            "error 1 --auth-token: a token must not be empty, nor have control characters",
        ),
        ("mcp-proxy --expose-header X uvx", "127.0.0.1:0 | default: @/uvx expose=x [1 warned]"),
        ("mcp-proxy --tls-cert @/uvx uvx", "error 2 --tls-cert and --tls-key are needed together"),
        // Variables of clients.
        (
            "AUTH_KEY=k mcp-proxy --session-mode per-session --allow-url-env A uvx",
            "127.0.0.1:0 | default: @/uvx per-session url=A auth=k",
        ),
        ("AUTH_KEY=k mcp-proxy uvx", "127.0.0.1:0 | default: @/uvx auth=k"),
        ("mcp-proxy --auth-token t --session-mode per-session uvx", "127.0.0.1:0 | default: @/uvx per-session auth=t"),
        (
            "mcp-proxy --env-from-header X-Key=KEY --port 1 --named-server a x http://h",
            "127.0.0.1:1 | default: Detect http://h | a: x x-key->KEY",
        ),
        // Named servers.
        ("mcp-proxy --named-server a x --named-server a 'y z'", "127.0.0.1:0 | a: y,z [1 warned]"),
        (
            "mcp-proxy --named-server default x uvx",
            "error 2 --named-server \"default\": this is the name of the server at the root",
        ),
        ("mcp-proxy --named-server default x", "127.0.0.1:0 | default: x"),
        (
            "mcp-proxy --named-server a/b x",
            "error 2 --named-server \"a/b\": a name is letters, digits, '-', '_' and '.', because it is part of a URL",
        ),
        ("mcp-proxy --named-server a ''", "error 2 --named-server \"a\": it has no command"),
        (
            "mcp-proxy --named-server a 'x \"'",
            "error 2 --named-server \"a\": cannot read its command: a \" is not closed",
        ),
        ("mcp-proxy -e A 1 --cwd / --named-server a x", "127.0.0.1:0 | a: x [1 warned]"),
        (
            "mcp-proxy --named-server-config @/all.json --named-server b y",
            "127.0.0.1:0 | a: Detect https://h/mcp | default: x [1 warned]",
        ),
        // The token is for the URL that was typed, and for no other.
        (
            "API_ACCESS_TOKEN=t mcp-proxy --named-server-config @/all.json --port 1 http://h",
            "127.0.0.1:1 | default: Detect http://h bearer=t | a: Detect https://h/mcp [1 warned]",
        ),
        // Nothing of an entry that is left out.
        (
            "mcp-proxy --named-server-config @/slow.json uvx",
            "127.0.0.1:0 | default: @/uvx | a: x within 90s | b: y within 5s [3 warned]",
        ),
        ("mcp-proxy --named-server-config @/none.json uvx", "127.0.0.1:0 | default: @/uvx [1 warned]"),
        ("mcp-proxy --named-server-config @/none.json", "error 1 no server in \"@/none.json\" can be used [1 warned]"),
        (
            "mcp-proxy --named-server-config @/other.json uvx",
            "error 1 cannot use \"@/other.json\" (--named-server-config): it has no \"mcpServers\" and no \"servers\"",
        ),
        (
            "mcp-proxy --named-server-config @/nothing uvx",
            "error 1 cannot use \"@/nothing\" (--named-server-config): no such file or directory",
        ),
    ]);
    let text = folder.meaning("mcp-proxy --named-server-config @/broken.json uvx");
    assert!(text.contains("it is not JSON: ") && text.contains("line 2"), "{text}");
}

#[test]
fn no_secret_is_shown() {
    let folder = Folder::new("secrets");
    folder.file(
        "secret.json",
        r#"{"mcpServers": {"l": {"command": "x", "args": ["--key", "${S}"], "env": {"A": "${S}"}},
        "r": {"url": "https://u:hunter2@h/sse?auth_key=hunter2", "headers": {"Authorization": "${S}"}},
        "bad": {"url": "https://u:hunter2@h:0/sse?auth_key=hunter2"}, "worse": {"url": "h", "headers": {"a": "\n${S}"}}}}"#,
    );
    for line in [
        "AUTH_KEY=hunter2 SECRET=hunter2 MCP_SERVER_CONFIG='uvx --key hunter2' mcpproxy",
        "AUTH_KEY=hunter2 mcp-proxy -e A hunter2 --auth-token hunter2 --pass-e uvx",
        "API_ACCESS_TOKEN=hunter2 mcp-proxy 'http://u:hunter2@h/sse?auth_key=hunter2'",
        "mcp-proxy --api-access-token hunter2 -H X-API-Key hunter2 http://h",
        "mcp-proxy -H Authorization hunter2 http://h",
        "mcp-proxy --username u --password hunter2 http://h",
        "mcp-proxy --username u --password hunter2 --digest http://h",
        "mcp-proxy --client-id i --client-secret hunter2 --token-url http://t http://h",
        "S=hunter2 HTTPS_PROXY=http://u:hunter2@p mcp-proxy --named-server-config @/secret.json --port 1 http://h",
        // Refused.
        "AUTH_KEY='hunter2\u{1}' mcp-proxy --auth-token 'hunter2 x' uvx",
        "API_ACCESS_TOKEN='hunter2 x' mcp-proxy http://h",
        "mcp-proxy -H A 'hunter2\u{1}' http://h",
        "mcp-proxy 'http://u:hunter2@h:0/?k=hunter2'",
        "mcp-proxy --client-id i --client-secret hunter2 --token-url 'x?hunter2' http://h",
        "HTTP_PROXY=socks5://u:hunter2@h mcp-proxy http://h",
    ] {
        let (plan, warnings) = folder.plan(line);
        let mut text = format!("{warnings:?}");
        match plan {
            Ok(mut plan) => {
                text.push_str(&format!("{:?}", plan.shown));
                // The words of a command are for everybody to see on this machine.
                for server in &mut plan.config.servers {
                    if let Origin::Local(command) = &mut server.origin {
                        command.args.clear();
                    }
                }
                text.push_str(&format!("{:?}", plan.config));
            }
            Err(why) => text.push_str(&why),
        }
        assert!(!text.contains("hunter2"), "{line}: {text}");
    }
}
