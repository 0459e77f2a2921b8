//! From a command line and an environment to what the engine is told.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_proxy_engine::{Command, Config, FrontKind, Origin, Secret, Server, SessionMode, Tls, UrlEnv};

use crate::Failure;
use crate::args::CommandLine;
use crate::config_file::{self, Scope};
use crate::flags::{Flags, is_token};
use crate::local::{Environment, check_directory, find_program, set, split_words};
use crate::remote;

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    /// Where to listen; `None` if the client is on our own stdin and stdout.
    pub(crate) listen: Option<Listen>,
    /// Each server of the configuration, for people. Without arguments that may hold secrets.
    pub(crate) shown: Vec<String>,
}

/// A host (a name or an address) and a port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The server at the root.
enum Root {
    Url(String),
    Command(Vec<OsString>),
    /// The command of the variable `MCP_SERVER_CONFIG`: we stand in for the program `mcpproxy`.
    McpProxy(Vec<OsString>),
    Demo,
    /// There are only named servers.
    Nothing,
}

/// Turns what was typed, and the proxy's own environment, into a plan. What was typed beats what was inherited.
///
/// The program of the root server is looked up here, so that a wrong command fails at once and not at the first client;
/// what was found is what will be run. The programs of named servers are not: a server that cannot start must not stop the
/// others, and the engine tries again.
///
/// `warnings` gets a line for each thing that was given and has no effect, also if the plan fails.
///
/// # Errors
///
/// There is nothing to serve, or something that was given cannot be used.
pub(crate) fn plan(line: &CommandLine, environment: &Environment, warnings: &mut Vec<String>) -> Result<Plan, Failure> {
    let flags = &line.flags;
    if flags.sse_port.is_some() || flags.sse_host.is_some() {
        let both =
            flags.sse_port.and(flags.port).is_some() || flags.sse_host.as_ref().and(flags.host.as_ref()).is_some();
        let wins = if both { ", which win where both are given" } else { "" };
        warnings.push(format!("--sse-port and --sse-host are old names: use --port and --host{wins}"));
    }
    let root = root(line, environment, warnings)?;
    let sessions = flags.session_mode.unwrap_or(match environment.raw("SHARED_SESSION") {
        Some(shared) if !shared.eq_ignore_ascii_case("true") => SessionMode::PerSession,
        _ => SessionMode::Shared,
    });
    let stdio = matches!(root, Root::Url(_)) && !flags.wants_port();
    say_what_has_no_effect(flags, &root, stdio, warnings);

    let mut listen = Listen { host: "127.0.0.1".into(), port: 0 };
    let mut pass = flags.pass_environment.unwrap_or(false);
    if let Root::McpProxy(_) = root {
        listen = Listen { host: "0.0.0.0".into(), port: 8000 };
        pass = flags.pass_environment.unwrap_or(true);
    }
    if let Some(host) = flags.host.as_ref().or(flags.sse_host.as_ref()) {
        listen.host.clone_from(host);
    }
    listen.port = flags.port.or(flags.sse_port).unwrap_or(listen.port);

    let mut found: Vec<(String, Origin, String)> = Vec::new();
    let mut inherited = environment.inherited(pass);
    let origin = match root {
        Root::Nothing => None,
        Root::Url(url) => {
            let shown = remote::shown(&url);
            Some((Origin::Remote(remote::remote(&url, flags, environment, warnings)?), shown))
        }
        Root::Demo => {
            let program = std::env::current_exe()
                .map_err(|e| Failure::start(format!("cannot find the mcp-proxy program itself: {}", reason(&e))))?;
            let args = vec!["--demo-server".into()];
            Some((Origin::Local(Command { program: program.into(), args, env: vec![], cwd: None }), "the demo".into()))
        }
        Root::Command(words) => Some(command(&words, flags, inherited.clone(), pass)?),
        Root::McpProxy(words) => {
            // What that program sets, and its key, which is no business of the server.
            inherited.retain(|(name, _)| name != "AUTH_KEY");
            for (name, value) in [("PYTHONUNBUFFERED", "1"), ("NODE_ENV", "production")] {
                if !inherited.iter().any(|(earlier, _)| earlier == name) {
                    set(&mut inherited, name, value);
                }
            }
            let (origin, _) = command(&words, flags, inherited.clone(), pass)?;
            let program = words.first().map_or("".into(), |word| word.to_string_lossy().into_owned());
            Some((origin, format!("{program:?} of MCP_SERVER_CONFIG")))
        }
    };
    found.extend(origin.map(|(origin, shown)| ("default".to_owned(), origin, shown)));
    let mut limits = BTreeMap::new();
    if !stdio {
        limits = named(flags, &Scope { environment, inherited: &inherited }, &mut found, warnings)?;
    }

    let (url_env, header_env) = (url_env(flags, environment, sessions), &flags.env_from_header);
    let (mut servers, mut shown) = (Vec::new(), Vec::new());
    for (name, origin, text) in found {
        let local = matches!(origin, Origin::Local(_));
        servers.push(Server {
            timeout: limits.remove(&name),
            name,
            origin,
            sessions,
            stateless: flags.stateless,
            prestart: true,
            url_env: if local { url_env.clone() } else { UrlEnv::Off },
            header_env: if local { header_env.clone() } else { Vec::new() },
        });
        shown.push(text);
    }
    let mut config = config(flags, servers)?;
    if config.servers.iter().any(|server| matches!(server.origin, Origin::Remote(_))) {
        config.outbound = remote::outbound(flags, environment)?;
        if config.outbound.verify == mcp_proxy_engine::Verify::Nothing {
            warnings.push("certificates are not checked: anybody on the way can read and change everything".into());
        }
    }
    match stdio {
        true => config.front = FrontKind::Stdio,
        false => config.access.auth_tokens = auth_tokens(flags, environment)?,
    }
    Ok(Plan { config, listen: (!stdio).then_some(listen), shown })
}

fn root(line: &CommandLine, environment: &Environment, warnings: &mut Vec<String>) -> Result<Root, Failure> {
    let flags = &line.flags;
    match (&line.command[..], flags.demo) {
        ([_, ..], true) => {
            return Err(Failure::usage("--demo is a server by itself; leave out --demo or the command."));
        }
        ([], true) => return Ok(Root::Demo),
        ([url, rest @ ..], false) if is_url(url) => {
            if !rest.is_empty() {
                warnings.push(format!("{} words after the URL have no effect", rest.len()));
            }
            let url = url.to_str().ok_or_else(|| Failure::usage("the URL is not UTF-8"))?;
            return Ok(Root::Url(url.to_owned()));
        }
        (command @ [_, ..], false) => return Ok(Root::Command(command.to_vec())),
        ([], false) if !flags.named_server.is_empty() || flags.named_server_config.is_some() => {
            return Ok(Root::Nothing);
        }
        ([], false) => {}
    }
    if let Some(url) = environment.get("SSE_URL") {
        return match is_url(OsStr::new(url)) {
            true => Ok(Root::Url(url.to_owned())),
            false => Err(Failure::start("the variable SSE_URL must be a URL, http:// or https://")),
        };
    }
    if let Some(words) = environment.get("MCP_SERVER_CONFIG") {
        let words = split_words(words).map_err(|why| Failure::start(format!("cannot use MCP_SERVER_CONFIG: {why}")))?;
        return match words.is_empty() {
            false => Ok(Root::McpProxy(words.into_iter().map(Into::into).collect())),
            true => Err(Failure::start("cannot use MCP_SERVER_CONFIG: it has no command")),
        };
    }
    // As with argparse, a flag that takes many values takes the command too.
    let swallowed = !flags.allow_origin.is_empty() || !flags.allow_cors.is_empty();
    Err(Failure::usage(if swallowed {
        "no server command was given. --allow-origin takes every word that follows: write -- before the command."
    } else {
        "no server command was given. Try: mcp-proxy --port 8080 uvx mcp-server-time, or: mcp-proxy --demo. \
         mcp-proxy --help tells more."
    }))
}

/// The root server by its command.
fn command(
    words: &[OsString],
    flags: &Flags,
    mut env: crate::local::Variables,
    pass: bool,
) -> Result<(Origin, String), Failure> {
    let [program, args @ ..] = words else {
        return Err(Failure::usage("no server command was given."));
    };
    for (name, value) in &flags.env {
        set(&mut env, name, value.reveal());
    }
    if let Some(cwd) = &flags.cwd {
        check_directory(cwd)?;
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.reveal().as_os_str());
    let remedy = match pass {
        true => "Give the full path.",
        false => "Give the full path, or pass --pass-environment.",
    };
    let program = find_program(program, path, flags.cwd.as_deref(), remedy)?;
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let shown = format!("{:?}", words.join(" "));
    let command = Command { program: program.into(), args: args.to_vec(), env, cwd: flags.cwd.clone() };
    Ok((Origin::Local(command), shown))
}

/// Adds the named servers: those of the file, or those of the flags. Returns how long calls to them may take, where that
/// is said.
fn named(
    flags: &Flags,
    scope: &Scope<'_>,
    found: &mut Vec<(String, Origin, String)>,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, Duration>, Failure> {
    if let Some(path) = &flags.named_server_config {
        if !flags.named_server.is_empty() {
            warnings.push("--named-server has no effect: --named-server-config takes its place".into());
        }
        let mut file = config_file::read(path, scope)?;
        warnings.extend(file.warnings);
        for (name, origin) in file.servers {
            if found.iter().any(|(earlier, ..)| *earlier == name) {
                warnings.push(format!("server {name:?} is left out: this is the name of the server at the root"));
                file.timeouts.remove(&name);
                continue;
            }
            let shown = match &origin {
                Origin::Local(command) => format!("{:?}", command.program.to_string_lossy()),
                Origin::Remote(remote) => remote::shown(remote.url.reveal()),
            };
            found.push((name, origin, shown));
        }
        if found.is_empty() {
            return Err(Failure::start(format!("no server in {path:?} can be used")));
        }
        return Ok(file.timeouts);
    }
    for (name, text) in &flags.named_server {
        let fail = |why: &str| Failure::usage(format!("--named-server {name:?}: {why}"));
        if !name_is_good(name) {
            return Err(fail("a name is letters, digits, '-', '_' and '.', because it is part of a URL"));
        }
        let words = split_words(text).map_err(|why| fail(&format!("cannot read its command: {why}")))?;
        let mut words = words.into_iter().map(OsString::from);
        let program = words.next().filter(|program| !program.is_empty()).ok_or_else(|| fail("it has no command"))?;
        let command = Command { program, args: words.collect(), env: scope.inherited.clone(), cwd: None };
        match found.iter_mut().find(|(earlier, ..)| earlier == name) {
            Some((_, _, _)) if name == "default" => {
                return Err(fail("this is the name of the server at the root"));
            }
            Some((_, origin, shown)) => {
                warnings.push(format!("--named-server {name:?} is given twice: the last one counts"));
                (*origin, *shown) = (Origin::Local(command), format!("{text:?}"));
            }
            None => found.push((name.clone(), Origin::Local(command), format!("{text:?}"))),
        }
    }
    Ok(BTreeMap::new())
}

/// Whether this can be the name of a server: the engine refuses all others.
pub(crate) fn name_is_good(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Variables by URL are off, unless a list allows some, or the key and the sessions of `mcpproxy` protect them.
fn url_env(flags: &Flags, environment: &Environment, sessions: SessionMode) -> UrlEnv {
    if !flags.allow_url_env.is_empty() {
        UrlEnv::Listed(flags.allow_url_env.clone())
    } else if environment.get("AUTH_KEY").is_some() && sessions == SessionMode::PerSession {
        UrlEnv::Any
    } else {
        UrlEnv::Off
    }
}

/// Every token that lets somebody in.
fn auth_tokens(flags: &Flags, environment: &Environment) -> Result<Vec<Secret<String>>, Failure> {
    let mut tokens = Vec::new();
    let mut add = |place: &str, token: &str| match token.is_empty() || token.contains(char::is_control) {
        false => {
            tokens.push(Secret::new(token.to_owned()));
            Ok(())
        }
        true => Err(Failure::start(format!("{place}: a token must not be empty, nor have control characters"))),
    };
    if let Some(key) = environment.get("AUTH_KEY") {
        add("AUTH_KEY", key)?;
    }
    for token in &flags.auth_token {
        add("--auth-token", token.reveal())?;
    }
    if let Some(path) = &flags.auth_token_file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::start(format!("cannot read {path:?} (--auth-token-file): {}", reason(&e))))?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
        // An empty file must not open the door.
        if lines.peek().is_none() {
            return Err(Failure::start(format!("there is no token in {path:?} (--auth-token-file)")));
        }
        lines.try_for_each(|token| add("--auth-token-file", token))?;
    }
    Ok(tokens)
}

fn config(flags: &Flags, servers: Vec<Server>) -> Result<Config, Failure> {
    fn set<T: Clone>(value: &mut T, given: &Option<T>) {
        if let Some(given) = given {
            value.clone_from(given);
        }
    }
    let mut servers = servers.into_iter();
    let Some(first) = servers.next() else {
        return Err(Failure::start("there is no server to serve"));
    };
    let mut config = Config::new(first);
    config.servers.extend(servers);
    config.access.allowed_hosts.clone_from(&flags.allow_host);
    config.access.allowed_origins = flags.allow_origin.iter().chain(&flags.allow_cors).cloned().collect();
    config.access.cors_origins.clone_from(&config.access.allowed_origins);
    for name in &flags.expose_header {
        if !is_token(name) {
            return Err(Failure::usage(format!("--expose-header {name:?}: this is not the name of a header field")));
        }
        config.access.expose_headers.push(name.to_ascii_lowercase());
    }
    config.http.tls = match (&flags.tls_cert, &flags.tls_key) {
        (None, None) => None,
        (Some(cert), Some(key)) => {
            Some(Tls { cert: check_file("--tls-cert", cert)?, key: check_file("--tls-key", key)? })
        }
        _ => return Err(Failure::usage("--tls-cert and --tls-key are needed together")),
    };
    set(&mut config.limits.max_body, &flags.max_body_size);
    set(&mut config.limits.max_message, &flags.max_message_size);
    set(&mut config.limits.max_sessions, &flags.max_sessions);
    set(&mut config.limits.max_children, &flags.max_children);
    set(&mut config.limits.max_calls, &flags.max_calls);
    set(&mut config.http.max_connections, &flags.max_connections);
    set(&mut config.timeouts.start, &flags.start_timeout);
    set(&mut config.timeouts.request, &flags.request_timeout);
    set(&mut config.timeouts.input, &flags.input_timeout);
    set(&mut config.timeouts.session_idle, &flags.session_timeout);
    set(&mut config.timeouts.keep_alive, &flags.keepalive);
    if let Some(path) = &flags.state_key_file {
        config.state_key = Some(state_key(path)?);
    }
    Ok(config)
}

/// The secret that several proxies share: the first bytes of a file.
fn state_key(path: &Path) -> Result<Secret<[u8; 32]>, Failure> {
    let fail = |why: &str| Failure::start(format!("cannot use {path:?} (--state-key-file): {why}"));
    let mut key = [0; 32];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut key));
    match read {
        Ok(()) => Ok(Secret::new(key)),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            Err(fail("it must have 32 random bytes; head -c 32 /dev/urandom > FILE makes them"))
        }
        Err(e) => Err(fail(&reason(&e))),
    }
}

/// The Python program passes over flags of its other mode in silence; a word about them saves a search.
fn say_what_has_no_effect(flags: &Flags, root: &Root, stdio: bool, warnings: &mut Vec<String>) {
    let mut say = |why: &str, given: &[(&str, bool)]| {
        let names: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if !names.is_empty() {
            warnings.push(format!("no effect {why}: {}", names.join(", ")));
        }
    };
    match root {
        Root::Url(_) => say("on a remote server", &[("--env", !flags.env.is_empty()), ("--cwd", flags.cwd.is_some())]),
        _ => say(
            "without the URL of a remote server",
            &[
                ("--headers", !flags.headers.is_empty()),
                ("--transport", flags.transport.is_some()),
                ("--api-access-token", flags.api_access_token.is_some()),
                ("--client-id", flags.client_id.is_some()),
                ("--client-secret", flags.client_secret.is_some()),
                ("--token-url", flags.token_url.is_some()),
                ("--username", flags.username.is_some()),
                ("--password", flags.password.is_some()),
                ("--digest", flags.digest),
            ],
        ),
    }
    if let Root::Nothing = root {
        say("on named servers", &[("--env", !flags.env.is_empty()), ("--cwd", flags.cwd.is_some())]);
    }
    let origins = !flags.allow_origin.is_empty() || !flags.allow_cors.is_empty();
    if stdio {
        say(
            "without --port or --host, because the client is on stdin and stdout",
            &[
                ("--named-server", !flags.named_server.is_empty()),
                ("--named-server-config", flags.named_server_config.is_some()),
                ("--tls-cert", flags.tls_cert.is_some()),
                ("--auth-token", !flags.auth_token.is_empty()),
                ("--auth-token-file", flags.auth_token_file.is_some()),
                ("--allow-origin", origins),
                ("--expose-header", !flags.expose_header.is_empty()),
                ("--allow-host", !flags.allow_host.is_empty()),
            ],
        );
    } else {
        say("without --allow-origin", &[("--expose-header", !origins && !flags.expose_header.is_empty())]);
    }
}

/// Opens the port.
///
/// A name with several addresses (`localhost`) is tried in order, IPv4 first, because that is what people type into
/// clients.
///
/// # Errors
///
/// Says why not and what to do.
pub(crate) fn listen(listen: &Listen) -> Result<TcpListener, Failure> {
    let (host, port) = (&*listen.host, listen.port);
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let mut addresses: Vec<_> = (bare, port).to_socket_addrs().into_iter().flatten().collect();
    addresses.sort_by_key(|address| address.is_ipv6());
    let (Some(first), false) = (addresses.first(), bare.is_empty()) else {
        return Err(Failure::start(format!(
            "cannot listen on {host:?}: no address is known for it. Give --host an address of this machine, such as \
             127.0.0.1, or 0.0.0.0 for all."
        )));
    };
    TcpListener::bind(&addresses[..]).map_err(|e| {
        let advice = match e.kind() {
            io::ErrorKind::AddrInUse => ". Stop the other program, or choose another --port.",
            io::ErrorKind::AddrNotAvailable => ". Give --host an address of this machine, or 0.0.0.0 for all.",
            io::ErrorKind::PermissionDenied => ". Ports below 1024 need privileges; choose a higher --port.",
            _ => "",
        };
        Failure::start(format!("cannot listen on {first}: {}{advice}", reason(&e)))
    })
}

fn is_url(word: &OsStr) -> bool {
    let scheme = word.to_str().and_then(|word| word.split_once("://")).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
}

/// Checks that a file can be read, and gives its path back.
pub(crate) fn check_file(flag: &str, path: &Path) -> Result<PathBuf, Failure> {
    let problem = match File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) if meta.is_dir() => "is a directory".into(),
        Ok(_) => return Ok(path.to_owned()),
        Err(e) => reason(&e),
    };
    Err(Failure::start(format!("cannot read {path:?} ({flag}): {problem}")))
}

/// An error of the system in the words people know, without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcp_proxy_engine::SessionMode;

    use super::*;
    use crate::args::{self, Parsed};

    fn line(words: &[&str]) -> CommandLine {
        match args::parse(words.iter().map(Into::into)) {
            Ok(Parsed::Line(line)) => *line,
            other => panic!("{other:?}"),
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn made(words: &[&str], env: &[(&str, &str)]) -> Result<Command, Failure> {
        let plan = plan(&line(words), &environment(env), &mut Vec::new())?;
        match &plan.config.servers[0].origin {
            Origin::Local(command) => Ok(command.clone()),
            Origin::Remote(remote) => panic!("{remote:?}"),
        }
    }

    fn names_and_values(command: &Command) -> Vec<(String, String)> {
        let text = |s: &OsStr| s.to_string_lossy().into_owned();
        command.env.iter().map(|(name, value)| (text(name), text(value.reveal()))).collect()
    }

    #[test]
    fn the_child_gets_what_is_safe_and_what_was_asked_for() {
        let env =
            [("PATH", "/bin"), ("HOME", "/h"), ("SECRET", "s"), ("SHELL", "() { :; }"), ("TERM", "t"), ("HOMER", "x")];
        let pairs = |words: &[&str]| names_and_values(&made(words, &env).unwrap());
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
        };
        assert_eq!(pairs(&["sh"]), owned(&[("PATH", "/bin"), ("HOME", "/h"), ("TERM", "t")]));
        assert_eq!(pairs(&["--pass-e", "sh"]), owned(&env));
        assert_eq!(
            pairs(&["sh", "-e", "HOME", "/x", "-e", "A", "1", "-e", "A", "2"]),
            owned(&[("PATH", "/bin"), ("TERM", "t"), ("HOME", "/x"), ("A", "2")])
        );
    }

    #[test]
    fn a_program_is_looked_up_in_the_path_of_the_child() {
        let found = |words: &[&str], env: &[(&str, &str)]| made(words, env).map(|command| command.program);
        assert_eq!(found(&["sh"], &[("PATH", "/nope:/bin")]), Ok("/bin/sh".into()));
        assert_eq!(found(&["sh"], &[]).map(|p| p.len() > "sh".len()), Ok(true));
        assert_eq!(found(&["-e", "PATH", "/bin", "sh"], &[("PATH", "/nope")]), Ok("/bin/sh".into()));
        assert_eq!(found(&["/bin/sh"], &[("PATH", "/nope")]), Ok("/bin/sh".into()));
        assert_eq!(found(&["--cwd", "/bin", "./sh"], &[]), Ok("/bin/sh".into()));
        assert_eq!(found(&["--cwd", "/", "sh"], &[("PATH", "bin")]), Ok("/bin/sh".into()));
        // A directory of that name, or a file that is none of a program, does not hide the program behind it.
        assert_eq!(found(&["sh"], &[("PATH", "/etc/passwd:/bin")]), Ok("/bin/sh".into()));
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        let text = |words: &[&str], env: &[(&str, &str)]| {
            let failure = made(words, env).unwrap_err();
            format!("{} {}", failure.code, failure.text)
        };
        let nowhere = [("PATH", "/nope:/neither")];
        assert_eq!(
            text(&["uvx"], &nowhere),
            "1 cannot start \"uvx\": not found in PATH (/nope:/neither). Give the full path, or pass --pass-environment."
        );
        assert_eq!(
            text(&["--pass-e", "uvx"], &nowhere),
            "1 cannot start \"uvx\": not found in PATH (/nope:/neither). Give the full path."
        );
        assert_eq!(text(&["/nope/x"], &[]), "1 cannot start \"/nope/x\": no such file. Give the full path.");
        assert_eq!(
            text(&["--cwd", "/bin", "./x"], &[]),
            "1 cannot start \"./x\": no such file in \"/bin\". Give the full path."
        );
        assert_eq!(text(&["/bin"], &[]), "1 cannot start \"/bin\": \"/bin\": is a directory");
        assert_eq!(
            text(&["passwd"], &[("PATH", "/etc")]),
            "1 cannot start \"passwd\": permission denied. Is it executable? Try: chmod +x \"/etc/passwd\""
        );
        assert_eq!(text(&[""], &[]), "1 cannot start \"\": the name is empty");
        assert_eq!(
            text(&["--cwd", "/nope", "sh"], &[]),
            "1 cannot run the server in \"/nope\" (--cwd): no such file or directory"
        );
        assert_eq!(
            text(&["--cwd", "/etc/passwd", "sh"], &[]),
            "1 cannot run the server in \"/etc/passwd\" (--cwd): not a directory"
        );
    }

    #[test]
    fn a_command_or_the_demo_and_not_both() {
        let code = |words: &[&str]| made(words, &[("PATH", "/bin")]).unwrap_err();
        assert!(code(&[]).text.starts_with("no server command was given. Try:"));
        assert!(code(&["--allow-origin", "*", "sh"]).text.contains("write -- before the command"));
        assert!(code(&["--demo", "sh"]).text.starts_with("--demo is a server by itself"));
        assert!(code(&["http://"]).text.starts_with("cannot use the URL"));
        assert!([&[][..], &["--demo", "sh"], &["http://"]].iter().all(|words| code(words).code == 2));
        let demo = made(&["--demo"], &[("PATH", "/bin"), ("SECRET", "s")]).unwrap();
        assert_eq!((demo.args, demo.env), (vec!["--demo-server".into()], vec![]));
    }

    #[test]
    fn flags_become_a_configuration() {
        let line = line(&[
            "--session-mode=per-session",
            "--stateless",
            "--allow-origin=https://a",
            "--allow-cors=*",
            "--allow-host=h",
            "--start-timeout=1",
            "--request-timeout=2",
            "--input-timeout=4",
            "--session-timeout=3",
            "--keepalive=0.5",
            "--max-body-size=1",
            "--max-message-size=2",
            "--max-sessions=3",
            "--max-children=4",
            "--max-calls=5",
            "--max-connections=6",
            "--expose-header=X-A",
            "/bin/sh",
            "a",
            "b",
        ]);
        let config = plan(&line, &environment(&[]), &mut Vec::new()).unwrap().config;
        assert!(config.validate().is_ok());
        let server = &config.servers[0];
        assert_eq!((&*server.name, server.sessions, server.stateless), ("default", SessionMode::PerSession, true));
        let Origin::Local(command) = &server.origin else { panic!() };
        assert_eq!(command.args, ["a", "b"]);
        let a = &config.access;
        assert_eq!(a.allowed_origins, ["https://a", "*"]);
        assert_eq!(a.cors_origins, a.allowed_origins);
        assert_eq!((&a.allowed_hosts[..], &a.expose_headers[..]), (&["h".into()][..], &["x-a".into()][..]));
        let l = &config.limits;
        assert_eq!((l.max_body, l.max_message, l.max_sessions, l.max_children, l.max_calls), (1, 2, 3, 4, 5));
        assert_eq!(config.http.max_connections, 6);
        let t = &config.timeouts;
        assert_eq!(
            [t.start, t.request, t.input, t.session_idle, t.keep_alive],
            [1.0, 2.0, 4.0, 3.0, 0.5].map(Duration::from_secs_f64)
        );
    }

    #[test]
    fn a_port_is_opened_or_the_reason_given() {
        let open = |words: &[&str]| {
            let plan = plan(&line(&[words, &["/bin/sh"]].concat()), &environment(&[]), &mut Vec::new()).unwrap();
            listen(&plan.listen.unwrap()).map(|l| l.local_addr().unwrap())
        };
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = first.local_addr().unwrap().port().to_string();
        assert!(open(&[]).unwrap().ip().is_loopback());
        assert!(open(&["--host", "localhost"]).unwrap().is_ipv4());
        assert!(open(&["--sse-host", "0.0.0.0"]).unwrap().ip().is_unspecified());
        // The new names win.
        assert!(open(&["--sse-host", "0.0.0.0", "--host", "127.0.0.1", "--port", "0", "--sse-port", &taken]).is_ok());
        assert_eq!(
            open(&["--port", &taken]).unwrap_err().text,
            format!(
                "cannot listen on 127.0.0.1:{taken}: address already in use. Stop the other program, or choose another \
                 --port."
            )
        );
        for host in ["", "no such host", "[::1", "192.0.2.1"] {
            let failure = open(&["--host", host]).unwrap_err();
            assert!(failure.code == 1 && failure.text.starts_with("cannot listen on "), "{}", failure.text);
        }
    }
}
