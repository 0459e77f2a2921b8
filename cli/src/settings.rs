//! From a command line and an environment to what the engine is told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};

use mcp_proxy_engine::{Command, Config, Secret, Server};
use rustix::fs::{Access, access};

use crate::Failure;
use crate::args::{CommandLine, Flags};

/// The variables a server gets without `--pass-environment`: those of the official SDKs.
const SAFE: [&str; 6] = ["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"];

/// Where to look for a program if the server has no `PATH`, as the system itself does then.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The server to offer. `environment` is the proxy's own.
///
/// The program is looked up here, so that a wrong command fails at once and not at the first client; what was found is
/// what will be run.
///
/// # Errors
///
/// There is no command, or it cannot be run, or its directory cannot be used.
pub(crate) fn server(
    line: &CommandLine,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Server, Failure> {
    let flags = &line.flags;
    let command = match (&line.command[..], flags.demo) {
        ([], false) => {
            // As with argparse, a flag that takes many values takes the command too.
            let swallowed = !flags.allow_origin.is_empty() || !flags.allow_cors.is_empty();
            return Err(Failure::usage(if swallowed {
                "no server command was given. --allow-origin takes every word that follows: write -- before the command."
            } else {
                "no server command was given. Try: mcp-proxy --port 8080 uvx mcp-server-time, or: mcp-proxy --demo. \
                 mcp-proxy --help tells more."
            }));
        }
        ([_, ..], true) => {
            return Err(Failure::usage("--demo is a server by itself; leave out --demo or the command."));
        }
        ([], true) => {
            let program = std::env::current_exe()
                .map_err(|e| Failure::start(format!("cannot find the mcp-proxy program itself: {}", reason(&e))))?;
            Command { program: program.into(), args: vec!["--demo-server".into()], env: vec![], cwd: None }
        }
        ([url, ..], false) if is_url(url) => {
            return Err(Failure::usage(format!(
                "cannot connect to {url:?}: this version serves commands only, not remote servers."
            )));
        }
        ([program, args @ ..], false) => {
            let env = child_environment(flags, environment);
            if let Some(cwd) = &flags.cwd {
                check_directory(cwd)?;
            }
            let path = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.reveal().as_os_str());
            let remedy = match flags.pass_environment {
                true => "Give the full path.",
                false => "Give the full path, or pass --pass-environment.",
            };
            let program = find_program(program, path, flags.cwd.as_deref(), remedy)?;
            Command { program: program.into(), args: args.to_vec(), env, cwd: flags.cwd.clone() }
        }
    };
    let mut server = Server::new("default", command);
    server.sessions = flags.session_mode;
    server.stateless = flags.stateless;
    Ok(server)
}

/// The whole configuration. `public` says that we listen on more than loopback.
pub(crate) fn config(flags: &Flags, server: Server, public: bool) -> Config {
    fn set<T: Clone>(value: &mut T, given: &Option<T>) {
        if let Some(given) = given {
            value.clone_from(given);
        }
    }
    let mut config = Config::new(server);
    config.access.public = public;
    config.access.allowed_hosts.clone_from(&flags.allow_host);
    config.access.allowed_origins = flags.allow_origin.iter().chain(&flags.allow_cors).cloned().collect();
    set(&mut config.limits.max_body, &flags.max_body_size);
    set(&mut config.limits.max_message, &flags.max_message_size);
    set(&mut config.limits.max_sessions, &flags.max_sessions);
    set(&mut config.limits.max_children, &flags.max_children);
    set(&mut config.limits.max_calls, &flags.max_calls);
    set(&mut config.http.max_connections, &flags.max_connections);
    set(&mut config.timeouts.start, &flags.start_timeout);
    set(&mut config.timeouts.request, &flags.request_timeout);
    set(&mut config.timeouts.session_idle, &flags.session_timeout);
    set(&mut config.timeouts.keep_alive, &flags.keepalive);
    config
}

/// Opens the port.
///
/// A name with several addresses (`localhost`) is tried in order, IPv4 first, because that is what people type into
/// clients.
///
/// # Errors
///
/// Says why not and what to do.
pub(crate) fn listen(flags: &Flags) -> Result<TcpListener, Failure> {
    let host = flags.host.as_ref().or(flags.sse_host.as_ref()).map_or("127.0.0.1", String::as_str);
    let port = flags.port.or(flags.sse_port).unwrap_or(0);
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

/// The environment of the child, complete.
fn child_environment(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, Secret<OsString>)> {
    let inherited = environment.into_iter().filter(|(name, value)| {
        // A value that starts with `()` is a function exported by bash: code, not data.
        let safe = SAFE.iter().any(|safe| name == safe) && !value.as_encoded_bytes().starts_with(b"()");
        flags.pass_environment || safe
    });
    let mut env: Vec<_> = inherited.map(|(name, value)| (name, Secret::new(value))).collect();
    for (name, value) in &flags.env {
        env.retain(|(earlier, _)| earlier != &**name);
        env.push((name.into(), Secret::new(value.reveal().into())));
    }
    env
}

fn is_url(word: &OsStr) -> bool {
    let scheme = word.to_str().and_then(|word| word.split_once("://")).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
}

fn check_directory(cwd: &Path) -> Result<(), Failure> {
    let problem = match cwd.metadata() {
        Err(e) => reason(&e),
        Ok(meta) if !meta.is_dir() => "not a directory".into(),
        Ok(_) => match access(cwd, Access::EXEC_OK) {
            Err(e) => reason(&e.into()),
            Ok(()) => return Ok(()),
        },
    };
    Err(Failure::start(format!("cannot run the server in {cwd:?} (--cwd): {problem}")))
}

/// Looks a program up as the system would for a child with this `PATH` and this directory, and says why if it cannot be
/// run.
fn find_program(program: &OsStr, path: Option<&OsStr>, cwd: Option<&Path>, remedy: &str) -> Result<PathBuf, Failure> {
    let fail = |text: String| Failure::start(format!("cannot start {program:?}: {text}"));
    let absolute = |file: PathBuf| {
        let file = cwd.map_or_else(|| file.clone(), |cwd| cwd.join(&file));
        std::path::absolute(&file).unwrap_or(file)
    };
    if program.is_empty() {
        return Err(fail("the name is empty".into()));
    }
    if program.as_encoded_bytes().contains(&b'/') {
        let file = absolute(program.into());
        return match runnable(&file) {
            Ok(()) => Ok(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let place = cwd.map(|cwd| format!(" in {cwd:?}")).unwrap_or_default();
                Err(fail(format!("no such file{place}. Give the full path.")))
            }
            Err(e) => Err(fail(not_runnable(&file, &e))),
        };
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut found = None;
    for directory in std::env::split_paths(path) {
        let file = absolute(directory.join(program));
        match runnable(&file) {
            Ok(()) => return Ok(file),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => found = found.or(Some((file, e))),
        }
    }
    Err(fail(match found {
        Some((file, e)) => not_runnable(&file, &e),
        None => format!("not found in PATH ({}). {remedy}", path.display()),
    }))
}

fn runnable(file: &Path) -> io::Result<()> {
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(access(file, Access::EXEC_OK)?)
}

fn not_runnable(file: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("permission denied. Is it executable? Try: chmod +x {file:?}"),
        _ => format!("{file:?}: {}", reason(error)),
    }
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

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn made(words: &[&str], env: &[(&str, &str)]) -> Result<Server, Failure> {
        server(&line(words), environment(env))
    }

    fn names_and_values(server: &Server) -> Vec<(String, String)> {
        let text = |s: &OsStr| s.to_string_lossy().into_owned();
        server.command.env.iter().map(|(name, value)| (text(name), text(value.reveal()))).collect()
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
        assert_eq!(pairs(&["--pass", "sh"]), owned(&env));
        assert_eq!(
            pairs(&["sh", "-e", "HOME", "/x", "-e", "A", "1", "-e", "A", "2"]),
            owned(&[("PATH", "/bin"), ("TERM", "t"), ("HOME", "/x"), ("A", "2")])
        );
    }

    #[test]
    fn a_program_is_looked_up_in_the_path_of_the_child() {
        let found = |words: &[&str], env: &[(&str, &str)]| made(words, env).map(|s| s.command.program);
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
            text(&["--pass", "uvx"], &nowhere),
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
        assert!(code(&["HTTPS://example.io/sse"]).text.starts_with("cannot connect to"));
        assert!([&[][..], &["--demo", "sh"], &["http://x"]].iter().all(|words| code(words).code == 2));
        let demo = made(&["--demo"], &[("PATH", "/bin"), ("SECRET", "s")]).unwrap();
        assert_eq!((demo.command.args, demo.command.env), (vec!["--demo-server".into()], vec![]));
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
            "--session-timeout=3",
            "--keepalive=0.5",
            "--max-body-size=1",
            "--max-message-size=2",
            "--max-sessions=3",
            "--max-children=4",
            "--max-calls=5",
            "--max-connections=6",
            "/bin/sh",
            "a",
            "b",
        ]);
        let config = config(&line.flags, server(&line, []).unwrap(), true);
        assert!(config.validate().is_ok());
        let server = &config.servers[0];
        assert_eq!((&*server.name, server.sessions, server.stateless), ("default", SessionMode::PerSession, true));
        assert_eq!(server.command.args, ["a", "b"]);
        let a = &config.access;
        assert_eq!(
            (&a.allowed_origins[..], &a.allowed_hosts[..], a.public),
            (&["https://a".into(), "*".into()][..], &["h".into()][..], true)
        );
        let l = &config.limits;
        assert_eq!((l.max_body, l.max_message, l.max_sessions, l.max_children, l.max_calls), (1, 2, 3, 4, 5));
        assert_eq!(config.http.max_connections, 6);
        let t = &config.timeouts;
        assert_eq!(
            [t.start, t.request, t.session_idle, t.keep_alive],
            [1.0, 2.0, 3.0, 0.5].map(Duration::from_secs_f64)
        );
    }

    #[test]
    fn a_port_is_opened_or_the_reason_given() {
        let open = |words: &[&str]| listen(&line(words).flags).map(|l| l.local_addr().unwrap());
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
