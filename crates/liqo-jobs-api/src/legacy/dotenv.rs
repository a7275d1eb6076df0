//! Environment files ("dotenv") by fixed rules. No standard exists; the guide states these rules.
//!
//! Keeps true: a file means the same wherever the file is read: no value is replaced by another one, and nothing of this process gets
//! into a value.
//!
//! - The file is UTF-8; a byte order mark is skipped, CRLF is LF.
//! - `NAME=VALUE`, with `export` before it or not, and blanks around `=`. A name is a letter or `_`, then letters, digits and `_.-`.
//! - Without quotes a value ends at a blank before `#`, or with the line; blanks at its end are no part of it.
//! - `'…'` is taken as it is, over lines; `\'` and `\\` are a quote and a backslash.
//! - `"…"` is taken over lines; `\n`, `\r`, `\t`, `\"`, `\\` and `\$` have their usual meaning, other backslashes are backslashes.
//! - `$` is a dollar sign. Of two values for one name the last one counts.
//! - A variable is secret after the line `# secret`, or by its name: `…PASSWORD…`, `…SECRET…`, `…TOKEN…`, `…CREDENTIAL…`, `…_KEY`.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// Most variables of a file.
const MOST: usize = 4096;
/// Longest name, bytes: the longest key of a ConfigMap.
const LONGEST_NAME: usize = 253;
/// Longest `NAME=VALUE`, bytes: Linux gives a program no longer one.
const LONGEST: usize = 128 * 1024 - 1;

/// The variables of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variables {
    /// What everybody may read who may read ConfigMaps.
    pub(super) plain: BTreeMap<String, String>,
    /// What belongs into a Secret.
    pub(super) secret: BTreeMap<String, String>,
}

impl Variables {
    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.plain.get(name).or_else(|| self.secret.get(name)).map(String::as_str)
    }

    /// A name that is secret once is secret.
    fn put(&mut self, name: String, value: String, is_secret: bool) {
        if is_secret || self.secret.contains_key(&name) {
            self.plain.remove(&name);
            self.secret.insert(name, value);
        } else {
            self.plain.insert(name, value);
        }
    }

    fn len(&self) -> usize {
        self.plain.len() + self.secret.len()
    }
}

/// Why a file is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub(super) struct Wrong {
    line: usize,
    why: &'static str,
}

/// Reads a file.
///
/// # Errors
/// The first line that breaks a rule.
pub(super) fn read(file: &[u8]) -> Result<Variables, Wrong> {
    let text = str::from_utf8(file).map_err(|error| {
        let good = file.iter().take(error.valid_up_to());
        Wrong { line: good.filter(|byte| **byte == b'\n').count() + 1, why: "the file is not UTF-8" }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let (mut reader, mut all, mut is_marked) =
        (Reader { rest: text.chars().peekable(), line: 1 }, Variables::default(), false);
    loop {
        reader.skip(char::is_whitespace);
        match reader.rest.peek() {
            None => return Ok(all),
            Some('#') => is_marked = reader.line().trim_start_matches('#').trim() == "secret",
            Some(_) => {
                let (name, value) = reader.variable()?;
                let is_secret = is_marked || is_secret(&name);
                all.put(name, value, is_secret);
                is_marked = false;
                if all.len() > MOST {
                    return Err(reader.wrong("the file has more than 4096 variables"));
                }
            }
        }
    }
}

/// Whether a variable of this name is secret whatever the file says.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "SECRET", "TOKEN", "CREDENTIAL"].iter().any(|word| name.contains(word)) || name.ends_with("_KEY")
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn wrong(&self, why: &'static str) -> Wrong {
        Wrong { line: self.line, why }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn take(&mut self, is: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.rest.peek().copied().filter(|c| is(*c)) {
            self.next();
            taken.push(c);
        }
        taken
    }

    fn skip(&mut self, is: impl Fn(char) -> bool) -> usize {
        self.take(is).len()
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> String {
        self.take(|c| c != '\n')
    }

    fn variable(&mut self) -> Result<(String, String), Wrong> {
        let line = self.line;
        let is_of_name = |c: char| !is_blank(c) && c != '=' && c != '\n';
        let mut name = self.take(is_of_name);
        if name == "export" && self.skip(is_blank) > 0 && self.rest.peek() != Some(&'=') {
            name = self.take(is_of_name);
        }
        self.skip(is_blank);
        if self.rest.next_if_eq(&'=').is_none() {
            return Err(self.wrong("write NAME=VALUE"));
        }
        if !is_name(&name) {
            return Err(self.wrong("a name is a letter or _, then letters, digits, _, . and -, 253 at most"));
        }
        let is_after_blank = self.skip(is_blank) > 0;
        let value = match self.rest.peek() {
            Some('\'') => self.quoted('\'')?,
            Some('"') => self.quoted('"')?,
            Some('#') if is_after_blank => String::new(),
            _ => bare(&self.line()),
        };
        self.skip(is_blank);
        match self.rest.peek() {
            None | Some('\n') => {}
            Some('#') => drop(self.line()),
            Some(_) => return Err(self.wrong("something follows the closing quote")),
        }
        let why = if value.contains('\0') {
            "a value cannot have a NUL"
        } else if name.len() + 1 + value.len() > LONGEST {
            "a variable cannot be longer than 131,071 bytes"
        } else {
            return Ok((name, value));
        };
        Err(Wrong { line, why })
    }

    fn quoted(&mut self, quote: char) -> Result<String, Wrong> {
        let open = self.wrong("the quote is not closed");
        let (mut value, _) = (String::new(), self.next());
        loop {
            match self.next() {
                None => return Err(open),
                Some(c) if c == quote => return Ok(value),
                Some('\\') => match (quote, self.next()) {
                    (_, None) => return Err(open),
                    (_, Some(c)) if c == quote || c == '\\' => value.push(c),
                    ('"', Some('n')) => value.push('\n'),
                    ('"', Some('r')) => value.push('\r'),
                    ('"', Some('t')) => value.push('\t'),
                    ('"', Some('$')) => value.push('$'),
                    (_, Some(c)) => value.extend(['\\', c]),
                },
                Some(c) => value.push(c),
            }
        }
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.len() <= LONGEST_NAME
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// The value of a line without quotes.
fn bare(line: &str) -> String {
    let comment = line.find(" #").into_iter().chain(line.find("\t#")).min();
    let value = comment.and_then(|at| line.get(..at)).unwrap_or(line);
    value.trim_end().to_owned()
}

#[cfg(test)]
#[path = "dotenv_tests.rs"]
mod tests;
