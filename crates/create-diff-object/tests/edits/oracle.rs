//! What each function of a unit does, read from the compiler's assembler text: independent of everything that
//! the differ reads. Local labels go by their order, strings and constants by what they hold, numbers that the
//! compiler put into names by nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The functions of a unit by the source's names: the texts of all symbols that came of one.
pub(crate) type Functions = BTreeMap<String, Vec<String>>;

struct Line<'a> {
    text: &'a str,
    /// The section.
    section: String,
    /// The function whose code it is.
    function: Option<usize>,
}

struct Listing<'a> {
    lines: Vec<Line<'a>>,
    /// Where each label stands.
    labels: BTreeMap<&'a str, usize>,
    functions: Vec<&'a str>,
    function_names: BTreeSet<&'a str>,
    aliases: BTreeMap<&'a str, &'a str>,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

/// The name without the compiler's numbers.
fn base(name: &str) -> String {
    name.split('.')
        .filter(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(".")
}

/// The name that the source gave: all before the first dot.
pub(crate) fn root(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn read(text: &str) -> Listing<'_> {
    let mut listing = Listing {
        lines: Vec::new(),
        labels: BTreeMap::new(),
        functions: Vec::new(),
        function_names: BTreeSet::new(),
        aliases: BTreeMap::new(),
    };
    for line in text.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix(".type")
            && let Some((name, kind)) = rest.trim().split_once(',')
            && kind.contains("function")
        {
            listing.function_names.insert(name.trim());
        }
    }
    let mut section = ".text".to_owned();
    let mut previous = section.clone();
    let mut stack = Vec::new();
    let mut function = None;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let line = line.split("//").next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split([' ', '\t', ',']).filter(|w| !w.is_empty()).collect();
        match words[0] {
            ".section" => {
                previous = std::mem::replace(&mut section, words[1].trim_matches('"').to_owned());
            }
            ".previous" => std::mem::swap(&mut section, &mut previous),
            ".pushsection" => {
                stack.push(section.clone());
                words[1].clone_into(&mut section);
            }
            ".popsection" => section = stack.pop().unwrap_or_default(),
            ".text" | ".data" | ".bss" => previous = std::mem::replace(&mut section, words[0].to_owned()),
            ".size" if function.is_some_and(|f| listing.functions[f] == words[1]) => function = None,
            ".set" if words.len() == 3 => {
                listing.aliases.insert(words[1], words[2]);
            }
            _ => {}
        }
        if let Some((label, rest)) = line.split_once(':')
            && label.chars().all(is_word)
        {
            if listing.function_names.contains(label) {
                function = Some(listing.functions.len());
                listing.functions.push(label);
            } else if !label.starts_with(".L")
                && !label.starts_with('$')
                && !label.starts_with(char::is_numeric)
            {
                function = None;
            }
            listing.labels.insert(label, listing.lines.len());
            listing.lines.push(Line { text: &line[..=label.len()], section: section.clone(), function });
            if !rest.trim().is_empty() {
                listing.lines.push(Line { text: rest.trim(), section: section.clone(), function });
            }
            continue;
        }
        listing.lines.push(Line { text: line, section: section.clone(), function });
    }
    listing
}

fn is_code(section: &str) -> bool {
    section.contains("text")
}

fn is_data_directive(line: &str) -> bool {
    const DATA: [&str; 23] = [
        ".byte", ".2byte", ".4byte", ".8byte", ".long", ".quad", ".string", ".ascii", ".asciz", ".zero",
        ".xword", ".word", ".value", ".hword", ".dword", ".half", ".octa", ".space", ".skip", ".short",
        ".int", ".tc", ".fill",
    ];
    line.split([' ', '\t']).next().is_some_and(|w| DATA.contains(&w))
}

struct Normaliser<'a> {
    listing: &'a Listing<'a>,
    /// Labels inside code, by first mention.
    ordinals: BTreeMap<&'a str, usize>,
    out: String,
}

impl<'a> Normaliser<'a> {
    fn words(&mut self, text: &'a str, depth: usize) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                // Strings, escapes included.
                let mut end = 1;
                let bytes = rest.as_bytes();
                while end < bytes.len() && bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let end = (end + 1).min(rest.len());
                self.out.push_str(&rest[..end]);
                rest = &rest[end..];
            } else if is_word(first) {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                self.word(&rest[..end], depth);
                rest = &rest[end..];
            } else {
                self.out.push(if first == '\t' { ' ' } else { first });
                rest = &rest[first.len_utf8()..];
            }
        }
    }

    fn word(&mut self, word: &'a str, depth: usize) {
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            self.out.push_str(word);
            return;
        }
        let Some(&at) = self.listing.labels.get(word) else {
            match self.listing.aliases.get(word) {
                Some(behind) if word.starts_with(".L") => return self.word(behind, depth),
                // gcc keeps one of several constants that hold the same.
                Some(behind) if self.listing.labels.contains_key(behind) => {
                    self.out.push_str(&base(word));
                    return self.contents(behind, depth);
                }
                _ => {}
            }
            self.out.push_str(&base(word));
            return;
        };
        let section = &self.listing.lines[at].section;
        if is_code(section) {
            if word.starts_with(".L") || word.starts_with('$') {
                let next = self.ordinals.len();
                let number = *self.ordinals.entry(word).or_insert(next);
                let _ = write!(self.out, "@{number}");
            } else {
                self.out.push_str(&base(word));
            }
            return;
        }
        if !word.starts_with(".L") {
            self.out.push_str(&base(word));
        }
        self.contents(word, depth);
    }

    /// What a label of data stands for, where nobody can change it.
    fn contents(&mut self, label: &'a str, depth: usize) {
        let Some(&at) = self.listing.labels.get(label) else { return };
        let section = &self.listing.lines[at].section;
        let constant = section.contains("rodata") || section.contains("rel.ro") || section.contains(".toc");
        if (label.starts_with(".L") || constant) && depth < 8 {
            self.out.push('{');
            let lines = &self.listing.lines[at + 1..];
            for line in lines.iter().take_while(|l| l.section == *section && is_data_directive(l.text)) {
                self.words(line.text, depth + 1);
                self.out.push(';');
            }
            self.out.push('}');
        }
    }
}

/// Reads the functions of a unit.
pub(crate) fn functions(text: &str) -> Functions {
    let listing = read(text);
    let mut out = Functions::new();
    // What kCFI puts in front of functions goes by a symbol of its own.
    for (index, name) in listing.functions.iter().enumerate().filter(|(_, name)| !name.starts_with("__cfi_"))
    {
        let mut normaliser = Normaliser { listing: &listing, ordinals: BTreeMap::new(), out: base(name) };
        let code = || listing.lines.iter().filter(|l| l.function == Some(index) && is_code(&l.section));
        for line in code() {
            if let Some(label) = line.text.strip_suffix(':') {
                if normaliser.ordinals.contains_key(label) {
                    normaliser.word(label, 0);
                    normaliser.out.push('\n');
                }
            } else if !line.text.starts_with('.') || line.text.starts_with(".long") {
                normaliser.words(line.text, 0);
                normaliser.out.push('\n');
            }
        }
        out.entry(root(name).to_owned()).or_default().push(normaliser.out);
    }
    for (alias, behind) in &listing.aliases {
        if listing.function_names.contains(alias) && !alias.starts_with(['.', '_']) {
            out.entry((*alias).to_owned()).or_default().push(format!("= {behind}"));
        }
    }
    for texts in out.values_mut() {
        texts.sort();
    }
    out
}

/// The functions that are not what they were, new ones included.
pub(crate) fn changed(before: &Functions, after: &Functions) -> BTreeSet<String> {
    after
        .iter()
        .filter(|(name, texts)| before.get(*name) != Some(texts))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Where a function first differs, for people.
pub(crate) fn first_difference(before: &Functions, after: &Functions, name: &str) -> Option<String> {
    let (old, new) = (before.get(name)?.join("\n"), after.get(name)?.join("\n"));
    let (one, other) = old.lines().zip(new.lines()).find(|(one, other)| one != other)?;
    Some(format!("{name}:\n  - {one}\n  + {other}"))
}
