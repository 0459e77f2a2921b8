//! The command line: the one step that turns what people type into what argh reads.
//!
//! argh knows the flags, their types and their texts. It does not know what users of the Python program type every day:
//! `--port=8080`, `-e KEY VALUE`, flags after the command, `--no-debug`, abbreviations. [`parse`] rewrites those forms
//! with the table that argh itself gives out, so no second list of flags exists that could drift away from [`Flags`].

use std::ffi::OsString;

use argh::{ArgsInfo, FlagInfo, FlagInfoKind, FromArgs, Optionality};

use crate::Failure;
use crate::flags::{Flags, PYTHON};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    Help,
    Line(Box<CommandLine>),
}

/// The flags, and the command with its arguments: empty if none was given. The command stays out of argh because it need
/// not be UTF-8.
#[derive(Debug)]
pub(crate) struct CommandLine {
    pub(crate) flags: Flags,
    pub(crate) command: Vec<OsString>,
}

/// Flags of other programs, with what to write here instead.
const ELSEWHERE: [(&str, &str); 8] = [
    ("--stdio", "Write the command itself: mcp-proxy --port 8000 -- COMMAND."),
    ("--sse", "Write the URL itself: mcp-proxy --transport sse URL."),
    ("--streamableHttp", "Write the URL itself: mcp-proxy --transport streamablehttp URL."),
    ("--outputTransport", "A command is served as Streamable HTTP and as SSE at once, a URL on stdin and stdout."),
    ("--oauth2Bearer", "Write --api-access-token TOKEN."),
    ("--stateful", "Write --session-mode per-session."),
    ("--logLevel", "Write --log-level LEVEL."),
    ("--apiKey", "Write --auth-token TOKEN."),
];

/// Reads a command line (without the name of the program).
///
/// The rules are those of Python's argparse, so that its users need not learn anew. Up to the first `--` a word with a
/// dash is a flag of ours, wherever it stands; an unknown one is an error, not an argument of the command. From the
/// first `--` on everything belongs to the command. The last one wins when a flag that holds one value is repeated.
///
/// # Errors
///
/// Says in one line what is wrong and, where that can be guessed, what was meant.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    let info = Flags::get_args_info();
    let mut words = words.into_iter().peekable();
    let mut given: Vec<(&FlagInfo<'_>, String)> = Vec::new();
    let mut command = Vec::new();
    // Set when a flag follows the command: the command is complete then, and a further word would be a riddle.
    let mut complete = false;

    while let Some(word) = words.next() {
        if word == "--" {
            command.extend(words);
            break;
        }
        let text = match word.to_str() {
            Some(text) => text,
            None if word.as_encoded_bytes().starts_with(b"-") => {
                return Err(Failure::usage(format!("the option {word:?} is not UTF-8")));
            }
            None => "",
        };
        let Some(hit) = find(info.flags, text).map_err(|miss| miss.explain(&command))? else {
            if complete {
                return Err(Failure::usage(format!(
                    "unexpected argument {word:?} after an option. Put the command and its arguments after --."
                )));
            }
            command.push(word);
            continue;
        };
        complete = !command.is_empty();

        let Hit { flag, off, attached } = hit;
        let name = flag.long;
        let needs = |what: &str| Failure::usage(format!("{name} needs {what}"));
        // A flag of ours is not taken for a value: it was forgotten. Any other word with a dash may be one (-Xmx1g).
        let mut next = |wanted: &dyn Fn(&str) -> bool| {
            let word = words.next_if(|w| w != "--" && w.to_str().is_none_or(wanted))?;
            Some(word.into_string().map_err(|_| Failure::usage(format!("the value of {name} is not UTF-8"))))
        };
        let not_ours = |word: &str| !matches!(find(info.flags, word), Ok(Some(_)));

        let mut values = Vec::new();
        match arity(flag) {
            Arity::None | Arity::YesNo if attached.is_some() => {
                return Err(Failure::usage(format!("{name} takes no value")));
            }
            Arity::None => values.push(String::new()),
            Arity::YesNo => values.push((!off).to_string()),
            Arity::Maybe(_) if off && attached.is_some() => {
                return Err(Failure::usage(format!("{} takes no value", name.replacen("--", "--no-", 1))));
            }
            Arity::Maybe(_) if off => values.push("false".to_owned()),
            Arity::Maybe(_) => values.push(match attached {
                Some(value) => value.to_owned(),
                // argparse would take a URL for the value, and miss it afterwards.
                None => next(&|word| !word.starts_with('-') && !word.contains("://")).unwrap_or(Ok("true".into()))?,
            }),
            Arity::One(what) => match attached {
                Some(value) => values.push(value.to_owned()),
                None => values.push(next(&not_ours).ok_or_else(|| needs(&format!("a value: {what}")))??),
            },
            Arity::Two(what) => {
                let both = || needs(&format!("two values: {what}"));
                let first = attached.map(|v| Ok(v.to_owned())).or_else(|| next(&not_ours)).ok_or_else(both)??;
                let pair = if name == "--headers" && first.contains(':') {
                    let (name, value) = first.split_once(':').unwrap_or_default();
                    format!("{name}={}", value.trim_start())
                } else if first.contains('=') {
                    first
                } else if attached.is_some() {
                    return Err(both());
                } else {
                    let second = next(&not_ours).ok_or_else(both)??;
                    format!("{first}={second}")
                };
                // Checked here because argh would show the whole value, and it may be a secret.
                if pair.starts_with('=') {
                    return Err(needs("a name that is not empty"));
                }
                values.push(pair);
            }
            Arity::Many(what) => match attached {
                Some(value) => values.push(value.to_owned()),
                None => {
                    while let Some(value) = next(&|word| !word.starts_with('-')) {
                        values.push(value?);
                    }
                    if values.is_empty() {
                        return Err(needs(&format!("at least one value: {what}")));
                    }
                }
            },
        }
        if flag.optionality != Optionality::Repeating {
            given.retain(|(earlier, _)| earlier.long != name);
        }
        given.extend(values.into_iter().map(|value| (flag, value)));
    }

    let mut line = Vec::new();
    for (flag, value) in &given {
        if flag.long == "--help" {
            return Ok(Parsed::Help);
        }
        line.push(flag.long);
        if !matches!(arity(flag), Arity::None) {
            line.push(value);
        }
    }
    match Flags::from_args(&["mcp-proxy"], &line) {
        Ok(flags) => Ok(Parsed::Line(Box::new(CommandLine { flags, command }))),
        Err(exit) => Err(Failure::usage(reword(exit.output.trim()))),
    }
}

/// `Error parsing option '--port' with value 'abc': why` in our words.
fn reword(error: &str) -> String {
    let parts = error.strip_prefix("Error parsing option '").and_then(|rest| rest.split_once("' with value '"));
    match parts.and_then(|(flag, rest)| Some((flag, rest.rsplit_once("': ")?))) {
        Some((flag, (value, why))) => format!("bad value {value:?} for {flag}: it {why}"),
        None => error.to_owned(),
    }
}

/// How many values a flag takes, with their name for people.
pub(crate) enum Arity<'a> {
    None,
    YesNo,
    Maybe(&'a str),
    One(&'a str),
    Two(&'a str),
    Many(&'a str),
}

pub(crate) fn arity<'a>(flag: &FlagInfo<'a>) -> Arity<'a> {
    match flag.kind {
        FlagInfoKind::Switch => Arity::None,
        FlagInfoKind::Option { arg_name: "yes|no" } => Arity::YesNo,
        FlagInfoKind::Option { arg_name } if arg_name.starts_with('[') => Arity::Maybe(arg_name),
        FlagInfoKind::Option { arg_name } => match arg_name.strip_suffix("...") {
            Some(what) => Arity::Many(what),
            None if arg_name.contains(' ') => Arity::Two(arg_name),
            None => Arity::One(arg_name),
        },
    }
}

/// A word that names a flag.
struct Hit<'a, 'w> {
    flag: &'a FlagInfo<'a>,
    /// It was `--no-flag`.
    off: bool,
    /// The value after `=`.
    attached: Option<&'w str>,
}

/// A word that looks like a flag and is none.
enum Miss {
    Unknown { word: String, nearest: Option<String> },
    Ambiguous { word: String, names: Vec<String> },
}

impl Miss {
    fn explain(self, command: &[OsString]) -> Failure {
        Failure::usage(match self {
            Miss::Ambiguous { word, names } => format!("{word} is ambiguous: it could be {}", names.join(" or ")),
            Miss::Unknown { word, nearest } => {
                let mut text = format!("unknown option {word}.");
                if let Some((_, instead)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word) {
                    return Failure::usage(format!("{text} {instead}"));
                }
                if let Some(nearest) = nearest {
                    text.push_str(&format!(" Did you mean {nearest}?"));
                }
                match command.first() {
                    Some(program) => text.push_str(&format!(
                        " If it belongs to the command, write -- before the command: -- {} {word}.",
                        program.display()
                    )),
                    None => text.push_str(" mcp-proxy --help lists the options."),
                }
                text
            }
        })
    }
}

/// Looks a word up: `None` if it is no flag but a value. The order of the steps is that of argparse.
fn find<'a, 'w>(flags: &'a [FlagInfo<'a>], word: &'w str) -> Result<Option<Hit<'a, 'w>>, Miss> {
    if !word.starts_with('-') || word.len() == 1 {
        return Ok(None);
    }
    let (typed, attached) = match word.split_once('=') {
        Some((name, value)) if word.starts_with("--") => (name, Some(value)),
        _ => (word, None),
    };
    let names = || {
        flags.iter().flat_map(|flag| {
            let short = flag.short.or((flag.long == "--help").then_some('h')).map(|c| format!("-{c}"));
            let off =
                matches!(arity(flag), Arity::YesNo | Arity::Maybe(_)).then(|| flag.long.replacen("--", "--no-", 1));
            let long = Some(flag.long.to_owned());
            [(long, false), (off, true), (short, false)]
                .into_iter()
                .filter_map(move |(name, off)| Some((name?, flag, off)))
        })
    };
    if let Some((_, flag, off)) = names().find(|(name, ..)| name == typed) {
        return Ok(Some(Hit { flag, off, attached }));
    }
    if typed.starts_with("--") {
        let mut abbreviated: Vec<_> =
            names().filter(|(name, flag, _)| !flag.hidden && name.starts_with(typed)).collect();
        // What meant one flag of the Python program still means that one.
        if abbreviated.iter().filter(|(_, flag, _)| PYTHON.contains(&flag.long)).count() == 1 {
            abbreviated.retain(|(_, flag, _)| PYTHON.contains(&flag.long));
        }
        match &abbreviated[..] {
            [] => {}
            [(_, flag, off)] => return Ok(Some(Hit { flag, off: *off, attached })),
            [..] => {
                let names = abbreviated.into_iter().map(|(name, ..)| name).collect();
                return Err(Miss::Ambiguous { word: typed.to_owned(), names });
            }
        }
    }
    let is_number = word[1..].parse::<f64>().is_ok() && word[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if is_number || word.contains(' ') {
        return Ok(None);
    }
    let nearest = names()
        .filter(|(_, flag, _)| !flag.hidden)
        .map(|(name, ..)| (distance(&name, typed), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| name);
    Err(Miss::Unknown { word: typed.to_owned(), nearest })
}

/// How many letters must be changed, added or removed to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (corner + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            corner = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use log::LevelFilter;
    use mcp_proxy_engine::SessionMode;

    use super::*;
    use crate::flags::Runtime;
    use crate::local::split_words;

    fn parse_words(words: &[&str]) -> Result<CommandLine, String> {
        match parse(words.iter().map(Into::into)) {
            Ok(Parsed::Line(line)) => Ok(*line),
            Ok(Parsed::Help) => Err("help".into()),
            Err(failure) => {
                assert_eq!(failure.code, 2);
                assert!(!failure.text.contains('\n'), "{:?}", failure.text);
                Err(failure.text)
            }
        }
    }

    /// What was understood: everything that is not a default, in the order of the struct, then the command.
    fn understood(line: &str) -> String {
        let words = split_words(line).unwrap();
        let line = match parse_words(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
            Ok(line) => line,
            Err(text) => return format!("error: {text}"),
        };
        let f = &line.flags;
        let mut out = Vec::new();
        let mut say = |name: &str, value: Option<String>| out.extend(value.map(|value| format!("{name}={value}")));
        say("port", f.port.map(|p| p.to_string()));
        say("host", f.host.clone());
        say("origins", (!f.allow_origin.is_empty()).then(|| f.allow_origin.join("+")));
        say("hosts", (!f.allow_host.is_empty()).then(|| f.allow_host.join("+")));
        say("sse_port", f.sse_port.map(|p| p.to_string()));
        say("sse_host", f.sse_host.clone());
        say("cors", (!f.allow_cors.is_empty()).then(|| f.allow_cors.join("+")));
        for (name, value) in &f.env {
            say(name, Some(value.reveal().clone()));
        }
        say("pass", f.pass_environment.map(|pass| pass.to_string()));
        for (name, value) in &f.headers {
            say(name, Some(value.reveal().clone()));
        }
        for (name, command) in &f.named_server {
            say(name, Some(format!("[{command}]")));
        }
        for (header, name) in &f.env_from_header {
            say(header, Some(format!("${name}")));
        }
        say("transport", f.transport.map(|t| format!("{t:?}")));
        say("verify", f.verify_ssl.clone());
        say("url_env", (!f.allow_url_env.is_empty()).then(|| f.allow_url_env.join("+")));
        say("user", f.username.clone());
        say("token_url", f.token_url.clone());
        say("digest", f.digest.then(String::new));
        say("cwd", f.cwd.as_ref().map(|d| d.display().to_string()));
        say("demo", f.demo.then(String::new));
        say("mode", f.session_mode.filter(|mode| *mode != SessionMode::Shared).map(|mode| format!("{mode:?}")));
        say("stateless", f.stateless.then(String::new));
        say("start", f.start_timeout.map(|t| format!("{t:?}")));
        say("keepalive", f.keepalive.map(|t| format!("{t:?}")));
        say("body", f.max_body_size.map(|n| n.to_string()));
        say("level", (f.level() != LevelFilter::Info).then(|| f.level().to_string()));
        say("runtime", (f.runtime != Runtime::Smol).then(|| format!("{:?}", f.runtime)));
        let command: Vec<_> = line.command.iter().map(|w| w.to_string_lossy()).collect();
        format!("{} | {}", out.join(" "), command.join(","))
    }

    #[test]
    fn command_lines() {
        let table = [
            // Those of COMPAT.md 3.1 that serve a command.
            ("uvx mcp-server-fetch", " | uvx,mcp-server-fetch"),
            ("--port=8080 uvx mcp-server-fetch", "port=8080 | uvx,mcp-server-fetch"),
            ("--sse-port=8080 uvx mcp-server-fetch", "sse_port=8080 | uvx,mcp-server-fetch"),
            ("--sse-host=0.0.0.0 --sse-port=8080 uvx f", "sse_port=8080 sse_host=0.0.0.0 | uvx,f"),
            ("--host=0.0.0.0 --port=8080 uvx mcp-server-fetch", "port=8080 host=0.0.0.0 | uvx,mcp-server-fetch"),
            ("--port=8080 -- uvx mcp-server-fetch --user-agent=Me", "port=8080 | uvx,mcp-server-fetch,--user-agent=Me"),
            ("your-command --port 8080 -e KEY VALUE -e OTHER 2", "port=8080 KEY=VALUE OTHER=2 | your-command"),
            ("your-command --port 8080 --allow-origin '*'", "port=8080 origins=* | your-command"),
            ("your-command --port 8080 --allow-origin=*", "port=8080 origins=* | your-command"),
            ("--pass-environment --port=8096 --sse-host 0.0.0.0 uvx f", "port=8096 sse_host=0.0.0.0 pass=true | uvx,f"),
            ("--port=8080 --named-server fetch 'uvx f'", "port=8080 fetch=[uvx f] | "),
            ("--named-server=a='x y' --named-server b z", "a=[x y] b=[z] | "),
            // Remote servers.
            ("-H X-A 1 -H X-B=2 http://h", "X-A=1 X-B=2 | http://h"),
            ("-H 'X-A: a=b: c' --header 'Y:z' http://h", "X-A=a=b: c Y=z | http://h"),
            ("--headers Authorization 'Bearer T' http://h", "Authorization=Bearer T | http://h"),
            ("--transport sse http://h", "transport=Sse | http://h"),
            ("--transport=streamablehttp http://h", "transport=StreamableHttp | http://h"),
            ("--transport streamable-http http://h", "transport=StreamableHttp | http://h"),
            ("--tr http http://h", "transport=StreamableHttp | http://h"),
            (
                "--transport ws http://h",
                "error: bad value \"ws\" for --transport: it must be streamablehttp, sse or auto",
            ),
            ("--verify-ssl http://h", "verify=true | http://h"),
            ("--verify-ssl no http://h", "verify=no | http://h"),
            ("--verify-ssl=/ca.pem http://h", "verify=/ca.pem | http://h"),
            ("http://h --verify-ssl", "verify=true | http://h"),
            ("--verify-ssl --port 1 http://h", "port=1 verify=true | http://h"),
            ("--verify-ssl -- http://h", "verify=true | http://h"),
            ("--verify-ssl --no-verify-ssl http://h", "verify=false | http://h"),
            ("--no-verify-ssl=1 http://h", "error: --no-verify-ssl takes no value"),
            ("--user u --di http://h", "user=u digest= | http://h"),
            ("--env-from-header X-Token=TOKEN --allow-url-env A --allow-url-env B x", "x-token=$TOKEN url_env=A+B | x"),
            ("--env-from-header X x", "error: bad value \"X\" for --env-from-header: it must be HEADER=NAME"),
            (
                "--allow-url-env A=B x",
                "error: bad value \"A=B\" for --allow-url-env: it must name a variable: letters, digits and _",
            ),
            // Flags of other programs.
            (
                "--stdio 'uvx f'",
                "error: unknown option --stdio. Write the command itself: mcp-proxy --port 8000 -- COMMAND.",
            ),
            ("--stateful x", "error: unknown option --stateful. Write --session-mode per-session."),
            // Values.
            ("--port 8080 --host ::1 x", "port=8080 host=::1 | x"),
            ("--port 1 --port=2 x", "port=2 | x"),
            ("--cwd=/a=b x", "cwd=/a=b | x"),
            ("-e A '' x", "A= | x"),
            ("-e A=1 x", "A=1 | x"),
            ("-e A b=c -e A 2 x", "A=b=c A=2 | x"),
            ("--env=A=1 x", "A=1 | x"),
            ("-e JAVA_OPTS -Xmx1g x", "JAVA_OPTS=-Xmx1g | x"),
            ("--start-timeout 2.5 --keepalive 5 x", "start=2.5s keepalive=5s | x"),
            ("--max-body-size 10 x", "body=10 | x"),
            ("--session-mode per-session --runtime blocking x", "mode=PerSession runtime=Blocking | x"),
            ("--session-mode=per-request --stateless x", "mode=PerRequest stateless= | x"),
            ("--log-level DEBUG x", "level=DEBUG | x"),
            ("--log-level critical x", "level=ERROR | x"),
            ("--log-level WARNING --debug x", "level=DEBUG | x"),
            ("--log-level trace --debug x", "level=TRACE | x"),
            ("--log-level NONE x", "level=OFF | x"),
            // Many values.
            ("--allow-origin a b -- x y", "origins=a+b | x,y"),
            ("--allow-origin a b --port 1 x", "port=1 origins=a+b | x"),
            ("--allow-origin a --allow-origin b x", "origins=a+b+x | "),
            ("--allow-origin=a x", "origins=a | x"),
            ("--allow-cors a -- x", "cors=a | x"),
            ("--allow-host a --allow-host b x", "hosts=a+b | x"),
            // Switches, both ways; the last one wins.
            ("--pass-environment --no-pass-environment x", "pass=false | x"),
            ("--no-debug --debug x", "level=DEBUG | x"),
            ("--stateless --no-stateless x", " | x"),
            ("--demo", "demo= | "),
            // Abbreviations.
            ("--pass x", "error: --pass is ambiguous: it could be --pass-environment or --password"),
            ("--pass-env --po 1 x", "port=1 pass=true | x"),
            ("--no-p --pass-e x", "pass=true | x"),
            // --log-format came later, and --log was unambiguous before.
            ("--log=debug x", "level=DEBUG | x"),
            ("--named=a x", "error: --named is ambiguous: it could be --named-server or --named-server-config"),
            (
                "--max x",
                &format!("error: --max is ambiguous: it could be {}", {
                    "--max-body-size or --max-message-size or --max-sessions or --max-children or --max-calls or \
                 --max-connections"
                }),
            ),
            // Where the command ends.
            ("-- --port 1", " | --port,1"),
            ("a -- b -- c", " | a,b,--,c"),
            ("a --port 1 -- b --c", "port=1 | a,b,--c"),
            ("head -1 - 'x -y'", " | head,-1,-,x -y"),
            (
                "a --port 1 b",
                "error: unexpected argument \"b\" after an option. Put the command and its arguments after --.",
            ),
            // What is wrong.
            ("x --help", "error: help"),
            ("-h", "error: help"),
            ("-- x --help", " | x,--help"),
            (
                "uvx f --user-agent=x",
                "error: unknown option --user-agent. If it belongs to the command, write -- before the command: -- uvx \
                 --user-agent.",
            ),
            ("--prot 1 x", "error: unknown option --prot. Did you mean --port? mcp-proxy --help lists the options."),
            ("--no-demo", "error: unknown option --no-demo. mcp-proxy --help lists the options."),
            ("-x", "error: unknown option -x. mcp-proxy --help lists the options."),
            ("--port", "error: --port needs a value: PORT"),
            ("--port -- x", "error: --port needs a value: PORT"),
            ("--port --host x", "error: --port needs a value: PORT"),
            ("--port abc x", "error: bad value \"abc\" for --port: it must be a number from 0 to 65535"),
            ("--port 65536 x", "error: bad value \"65536\" for --port: it must be a number from 0 to 65535"),
            ("--debug=1 x", "error: --debug takes no value"),
            ("-e A", "error: --env needs two values: KEY VALUE"),
            ("-e A -- x", "error: --env needs two values: KEY VALUE"),
            ("--env=A 1 x", "error: --env needs two values: KEY VALUE"),
            ("-e '' secret x", "error: --env needs a name that is not empty"),
            (
                "--keepalive 0 x",
                "error: bad value \"0\" for --keepalive: it must be a number of seconds above 0, such as 30 or 2.5",
            ),
            (
                "--keepalive inf x",
                "error: bad value \"inf\" for --keepalive: it must be a number of seconds above 0, such as 30 or 2.5",
            ),
            ("--runtime tokio x", "error: bad value \"tokio\" for --runtime: it must be smol or blocking"),
        ];
        for (line, expected) in table {
            assert_eq!(understood(line), expected, "mcp-proxy {line}");
        }
    }

    /// The names say how many values there are; a name that says something else by accident would be parsed wrongly.
    #[test]
    fn every_flag_is_parsed_by_its_own_table_row() {
        let info = Flags::get_args_info();
        for flag in info.flags.iter().filter(|flag| flag.long != "--help") {
            let good = ["1", "shared", "smol", "info", "true", "sse", "text", "A=B", "A"];
            let accepted = |line: &[&str]| Flags::from_args(&["mcp-proxy"], line).is_ok();
            let (typed, read): (&[&str], bool) = match arity(flag) {
                Arity::None => (&[], accepted(&[flag.long])),
                Arity::YesNo => (&[], accepted(&[flag.long, "true"]) && accepted(&[flag.long, "false"])),
                Arity::One(_) | Arity::Many(_) => (&["1"], good.iter().any(|value| accepted(&[flag.long, value]))),
                Arity::Maybe(_) => (&[], accepted(&[flag.long, "true"])),
                Arity::Two(_) => (&["1", "1"], accepted(&[flag.long, "1=1"])),
            };
            assert!(read, "argh does not read {flag:?}");
            // And argh wants exactly one value wherever we hand it one.
            assert_eq!(accepted(&[flag.long]), matches!(arity(flag), Arity::None), "{flag:?}");
            let result = parse_words(&[&[flag.long], typed].concat());
            let refused_by_value = matches!(&result, Err(text) if text.starts_with("bad value"));
            assert!(result.is_ok() || refused_by_value, "{flag:?}: {result:?}");
        }
    }

    #[test]
    fn secrets_stay_out_of_sight() {
        for flag in ["-e=", "-H=", "--api-access-token", "--client-secret", "--password", "--auth-token"] {
            let words = match flag.strip_suffix('=') {
                Some(flag) => [flag, "KEY", "hunter2"].to_vec(),
                None => [flag, "hunter2"].to_vec(),
            };
            let line = parse_words(&words).unwrap();
            assert!(!format!("{line:?}").contains("hunter2"), "{flag}");
        }
        for bad in
            [&["-e", "", "hunter2"][..], &["-e", "=hunter2", "x"], &["-H", ": hunter2", "x"], &["--pasword=hunter2"]]
        {
            assert!(!parse_words(bad).unwrap_err().contains("hunter2"));
        }
    }

    #[test]
    #[cfg(unix)]
    fn the_command_need_not_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let odd = |prefix: &str| OsString::from_vec([prefix.as_bytes(), b"\xff"].concat());
        let Ok(Parsed::Line(line)) = parse([odd("/bin/x"), "--port".into(), "1".into()]) else { panic!() };
        assert_eq!(line.command, [odd("/bin/x")]);
        let Ok(Parsed::Line(line)) = parse(["--".into(), "x".into(), odd("--a=")]) else { panic!() };
        assert_eq!(line.command[1], odd("--a="));
        assert!(parse([odd("--cwd=")]).is_err());
        assert!(parse(["--cwd".into(), odd("")]).is_err());
    }
}
