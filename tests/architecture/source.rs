//! What a Rust source names, read without a compiler: enough for rules about
//! who may use what.

/// The program text alone: comments, the content of strings, and items under
/// `#[cfg(test)]` are blanked; line numbers stay.
pub fn program(text: &str) -> String {
    without_tests(&without_comments_and_strings(text))
}

fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match chars[i] {
            '/' if chars.get(i + 1) == Some(&'/') => end_of_line(&chars, i),
            '/' if chars.get(i + 1) == Some(&'*') => end_of_comment(&chars, i),
            '"' => end_of_string(&chars, i),
            'r' if !continues_word(&chars, i) => end_of_raw_string(&chars, i).unwrap_or(i),
            '\'' => end_of_char(&chars, i),
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
            continue;
        }
        let blank = |c: &char| if *c == '\n' { '\n' } else { ' ' };
        out.extend(chars[i..end].iter().map(blank));
        i = end;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether the character before `i` belongs to the same word; the `b` of
/// `br"..."` does not count.
fn continues_word(chars: &[char], i: usize) -> bool {
    let word = chars[..i].iter().rev().take_while(|c| is_word(**c)).count();
    word > 1 || (word == 1 && !matches!(chars[i - 1], 'b' | 'c'))
}

fn end_of_line(chars: &[char], start: usize) -> usize {
    let length = chars[start..].iter().position(|c| *c == '\n');
    length.map_or(chars.len(), |length| start + length)
}

/// Block comments nest.
fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of `r"..."` or `r#"..."#`, if `start` begins one.
fn end_of_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |i: &usize| {
        chars[*i] == '"'
            && chars.len() >= i + 1 + hashes
            && chars[i + 1..i + 1 + hashes].iter().all(|c| *c == '#')
    };
    let close = (open + 1..chars.len()).find(closes);
    Some(close.map_or(chars.len(), |close| close + 1 + hashes))
}

/// The end of a character literal or of a lifetime.
fn end_of_char(chars: &[char], start: usize) -> usize {
    let rest = &chars[start + 1..];
    let length = match rest {
        ['\\', _, rest @ ..] => rest.iter().position(|c| *c == '\'').map(|n| n + 4),
        [_, '\'', ..] => Some(3),
        rest => Some(1 + rest.iter().take_while(|c| is_word(**c)).count()),
    };
    length.map_or(chars.len(), |length| start + length)
}

/// Blanks each item that `#[cfg(test)]` stands on, to its `;` or closing brace.
fn without_tests(text: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(MARK) {
        out.push_str(&rest[..start]);
        let item = &rest[start..];
        let mut depth = 0;
        let end = item[MARK.len()..].char_indices().find(|(_, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(c, '}' | ';')
        });
        let end = end.map_or(item.len(), |(at, _)| MARK.len() + at + 1);
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out + rest
}

/// The words of a program text: identifiers and keywords, with `!` where a
/// macro is called.
pub fn words(program: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| !is_word(c) && c != '!';
    program.split(ends).filter(|word| !word.is_empty())
}

/// What the program names below a root such as `crate` or `std`: the first
/// two parts of each path (`graph::DType`), groups taken apart. Line breaks
/// and spaces do not matter.
pub fn below(program: &str, root: &str) -> Vec<String> {
    let dense = dense(program);
    let mark = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in dense.match_indices(&mark) {
        let before = dense[..at].chars().next_back();
        let starts_path = !before.is_some_and(|c| is_word(c) || c == ':');
        // `::std::fs` and `$crate::error` are paths of that root too.
        let absolute = dense[..at].ends_with("::") && {
            let before = dense[..at - 2].chars().next_back();
            !before.is_some_and(|c| is_word(c) || c == '>')
        };
        if starts_path || absolute {
            found.extend(branches(&dense[at + mark.len()..], 2));
        }
    }
    found
}

/// The modules of the crate that the program of module `path` (`["graph",
/// "ops", "dot"]`) reaches by `super::` alone, as [`below`] gives them.
pub fn below_super(program: &str, path: &[&str]) -> Vec<String> {
    let dense = dense(program);
    let up = "super::".repeat(path.len());
    let mut found = Vec::new();
    for (at, _) in dense.match_indices(&up) {
        let before = dense[..at].chars().next_back();
        if !before.is_some_and(|c| is_word(c) || c == ':') {
            found.extend(branches(&dense[at + up.len()..], 2));
        }
    }
    found
}

/// A program without space around `::`, braces and commas.
fn dense(program: &str) -> String {
    let mut out = String::with_capacity(program.len());
    for word in program.split_whitespace() {
        let joins = |c: Option<char>| c.is_some_and(is_word);
        if joins(out.chars().next_back()) && joins(word.chars().next()) {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// The first `depth` parts of a path, or of each path of a group.
fn branches(text: &str, depth: usize) -> Vec<String> {
    if let Some(group) = text.strip_prefix('{') {
        return members(group)
            .into_iter()
            .flat_map(|member| branches(member, depth))
            .collect();
    }
    let end = text.find(|c| !is_word(c) && c != '*');
    let (part, rest) = text.split_at(end.unwrap_or(text.len()));
    match rest.strip_prefix("::") {
        Some(rest) if depth > 1 => branches(rest, depth - 1)
            .into_iter()
            .map(|tail| format!("{part}::{tail}"))
            .collect(),
        _ if part.is_empty() => vec![],
        _ => vec![part.to_owned()],
    }
}

/// The members of a group whose opening brace is cut off.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}
