//! Reads `lines.txt`, for the two tests that share it.

/// What a line of the table can begin with.
const KEYS: [&str; 13] = [
    "rule",
    "blocking",
    "with",
    "means",
    "under",
    "stdio",
    "listens",
    "serves",
    "processes",
    "key",
    "query",
    "header",
    "prints",
];

/// A command line with one choice of what it leaves open, and what is noted about it.
pub(crate) struct Case {
    /// As it is printed.
    pub(crate) line: &'static str,
    notes: Vec<(&'static str, &'static str)>,
}

impl Case {
    /// Everything under this key, in order.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &'static str> {
        assert!(KEYS.contains(&key), "no key {key}");
        self.notes.iter().filter(move |(other, _)| *other == key).map(|(_, text)| *text)
    }

    /// What is under a key that is there once at most.
    pub(crate) fn one(&self, key: &str) -> Option<&'static str> {
        let mut all = self.all(key);
        let one = all.next();
        assert_eq!(all.next(), None, "{}: {key} is there twice", self.line);
        one
    }

    /// Both sides of each arrow under this key.
    pub(crate) fn arrows(&self, key: &str) -> Vec<(&'static str, &'static str)> {
        self.all(key).map(|text| text.split_once(" -> ").unwrap_or_else(|| panic!("{key} {text}: no arrow"))).collect()
    }

    /// The line with its gaps filled.
    pub(crate) fn filled(&self) -> String {
        self.arrows("with").into_iter().fold(self.line.to_owned(), |line, (gap, text)| {
            assert!(line.contains(gap), "{line}: nothing to put {text} in place of");
            line.replace(gap, text)
        })
    }
}

/// The table: first what holds for all lines, as a case without a line, then the cases.
pub(crate) fn cases() -> Vec<Case> {
    let case = |line| Case { line, notes: Vec::new() };
    let mut cases = vec![case("")];
    for text in include_str!("../lines.txt").lines().filter(|text| !text.is_empty() && !text.starts_with('#')) {
        let (key, rest) = text.split_once(' ').unwrap_or((text, ""));
        let last = cases.last_mut().unwrap();
        match key {
            "$" => cases.push(case(rest)),
            "also" => {
                let same = case(last.line);
                cases.push(same);
            }
            _ if KEYS.contains(&key) => last.notes.push((key, rest)),
            _ => panic!("lines.txt: {text}"),
        }
    }
    cases
}
