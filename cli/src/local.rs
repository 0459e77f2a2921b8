//! What a server process is made of: its environment, its words, its program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use mcp_proxy_engine::Secret;
use rustix::fs::{Access, access};

use crate::Failure;
use crate::settings::reason;

/// The variables a server gets without `--pass-environment`: those of the official SDKs.
const SAFE: [&str; 6] = ["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"];

/// Where to look for a program if the server has no `PATH`, as the system itself does then.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The environment of a server process, complete.
pub(crate) type Variables = Vec<(OsString, Secret<OsString>)>;

/// The environment of the proxy.
pub(crate) struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Environment(variables.into_iter().collect())
    }

    /// A variable, if it is set, not empty, and UTF-8.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// A variable that may be empty.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.to_str())
    }

    /// What a server inherits: all of it, or the safe part.
    pub(crate) fn inherited(&self, all: bool) -> Variables {
        let inherited = self.0.iter().filter(|(name, value)| {
            // A value that starts with `()` is a function exported by bash: code, not data.
            let safe = SAFE.iter().any(|safe| name == safe) && !value.as_encoded_bytes().starts_with(b"()");
            all || safe
        });
        inherited.map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect()
    }
}

/// Sets a variable, whether or not it was set.
pub(crate) fn set(variables: &mut Variables, name: &str, value: &str) {
    variables.retain(|(earlier, _)| earlier != name);
    variables.push((name.into(), Secret::new(value.into())));
}

/// Splits a command as a POSIX shell would, and does nothing else of what a shell does: no variables, patterns, pipes or
/// comments. In double quotes a backslash stands for itself unless a quote or a backslash follows (Python's `shlex.split`).
///
/// # Errors
///
/// A quote is not closed, or a backslash stands at the end.
pub(crate) fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    // `None` between words: an empty pair of quotes is a word too.
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let Some(next) = letters.next() else { return Err("it ends with a backslash".into()) };
                let word = word.get_or_insert_default();
                if quote.is_some() && next != '"' && next != '\\' {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, _) if c.is_ascii_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(quote) => Err(format!("a {quote} is not closed")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

pub(crate) fn check_directory(cwd: &Path) -> Result<(), Failure> {
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
pub(crate) fn find_program(
    program: &OsStr,
    path: Option<&OsStr>,
    cwd: Option<&Path>,
    remedy: &str,
) -> Result<PathBuf, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_python_does() {
        let table = [
            ("", Ok(vec![])),
            (" \t\n", Ok(vec![])),
            ("npx -y @scope/server .", Ok(vec!["npx", "-y", "@scope/server", "."])),
            ("a 'b c' \"d e\" f", Ok(vec!["a", "b c", "d e", "f"])),
            ("a '' \"\"", Ok(vec!["a", "", ""])),
            ("--x='1 2'3", Ok(vec!["--x=1 23"])),
            (r"a\ b \'c\'", Ok(vec!["a b", "'c'"])),
            (r#""a\"b\\c\d""#, Ok(vec![r#"a"b\c\d"#])),
            (r"'a\'b", Ok(vec![r"a\b"])),
            ("a #b $C * | d", Ok(vec!["a", "#b", "$C", "*", "|", "d"])),
            ("a 'b", Err("a ' is not closed")),
            ("a \"b", Err("a \" is not closed")),
            ("a \\", Err("it ends with a backslash")),
        ];
        for (text, expected) in table {
            let expected = expected.map(|words| words.into_iter().map(str::to_owned).collect());
            assert_eq!(split_words(text), expected.map_err(str::to_owned), "{text:?}");
        }
    }
}
