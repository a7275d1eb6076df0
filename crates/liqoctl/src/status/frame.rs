//! Boxes with a title, and indented sections of aligned `key: value` lines.

/// Columns of a box, unless its content needs more.
const WIDTH: usize = 80;
const INDENT: usize = 4;
/// Columns of a paragraph beside its key.
const PARAGRAPH: usize = 52;

/// Draws a box around the lines.
pub(crate) fn boxed(title: &str, content: &str) -> String {
    let lines: Vec<_> = content.trim_end().lines().map(str::trim_end).collect();
    let longest = lines.iter().map(|line| columns(line)).max().unwrap_or_default();
    let inner = (longest + 2).max(WIDTH - 2);
    let mut text = format!("┌─ {title} {}┐\n", "─".repeat(inner.saturating_sub(title.chars().count() + 3)));
    for line in lines {
        let fill = " ".repeat(inner - 1 - columns(line));
        text.push_str(&format!("│ {line}{fill}│\n"));
    }
    text.push_str(&format!("└{}┘", "─".repeat(inner)));
    text
}

/// How many columns a terminal needs.
fn columns(line: &str) -> usize {
    anstream::adapter::strip_str(line).to_string().chars().count()
}

/// A title with lines and further sections below it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    title: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Entry(String, String),
    Line(String),
    Section(Section),
}

impl Section {
    /// A section; the outermost one has an empty title, which is not printed.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), parts: Vec::new() }
    }

    /// Adds `key: value`.
    pub(crate) fn entry(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.parts.push(Part::Entry(key.into(), value.into()));
        self
    }

    /// Adds `key: text`, with the text folded between words.
    pub(crate) fn paragraph(&mut self, key: &str, text: &str) -> &mut Self {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(word),
                Some(line) if columns(line) + 1 + columns(word) <= PARAGRAPH => line.extend([" ", word]),
                _ => lines.push(word.to_owned()),
            }
        }
        self.entry(key, lines.join("\n"))
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, text: impl Into<String>) -> &mut Self {
        self.parts.push(Part::Line(text.into()));
        self
    }

    /// Adds a section below this one.
    pub(crate) fn section(&mut self, section: Section) -> &mut Self {
        self.parts.push(Part::Section(section));
        self
    }

    /// The text; values are aligned to the longest key of their section.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0);
        text
    }

    fn write(&self, text: &mut String, depth: usize) {
        let depth = if self.title.is_empty() {
            depth
        } else {
            text.push_str(&format!("{}{}\n", " ".repeat(depth * INDENT), self.title));
            depth + 1
        };
        let indent = " ".repeat(depth * INDENT);
        let keys = self.parts.iter().filter_map(|part| match part {
            Part::Entry(key, _) => Some(key.chars().count()),
            Part::Line(_) | Part::Section(_) => None,
        });
        let longest = keys.max().unwrap_or_default();
        for part in &self.parts {
            match part {
                Part::Entry(key, value) => {
                    let fill = " ".repeat(longest - key.chars().count());
                    let next = format!("\n{indent}{}", " ".repeat(longest + 2));
                    text.push_str(&format!("{indent}{key}: {fill}{}\n", value.replace('\n', &next)));
                }
                Part::Line(line) => text.push_str(&format!("{indent}{line}\n")),
                Part::Section(section) => section.write(text, depth),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_80_columns_wide_whatever_its_colours() {
        let text = boxed("Title", "\u{1b}[32mgreen\u{1b}[0m ✔\nplain");
        let widths: Vec<_> = text.lines().map(columns).collect();
        assert_eq!(widths, [80, 80, 80, 80], "{text}");
        assert!(text.starts_with("┌─ Title ───"));
    }

    #[test]
    fn a_long_line_widens_the_box() {
        let text = boxed("T", &"x".repeat(100));
        assert!(text.lines().map(columns).all(|width| width == 104), "{text}");
    }

    #[test]
    fn a_paragraph_is_folded_between_words() {
        let mut all = Section::new("");
        all.paragraph("Key", &["word"; 22].join(" ")).paragraph("Longer", &"x".repeat(60)).paragraph("No", "");
        let ten = ["word"; 10].join(" ");
        let wanted = format!("Key:    {ten}\n        {ten}\n        word word\nLonger: {}\nNo:     \n", "x".repeat(60));
        assert_eq!(all.text(), wanted);
    }

    #[test]
    fn values_are_aligned_within_their_section() {
        let mut inner = Section::new("Inner");
        inner.entry("a", "1").entry("long key", "2").line("- item");
        let mut all = Section::new("");
        all.entry("Type", "x").section(inner);
        assert_eq!(all.text(), "Type: x\nInner\n    a:        1\n    long key: 2\n    - item\n");
    }
}
