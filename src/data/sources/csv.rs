//! A list in a file: a line `path,label` for each picture (RFC 4180, without
//! line breaks in fields). Paths count from the list's folder. A line without
//! label is a picture without one; a first line `path,label` is a heading.

use std::path::Path;

use anyhow::Result;

use super::listed::Listed;
use super::{Opened, assign_labels, read_small};
use crate::bad_input;

/// A line of 200 bytes for each picture of ImageNet has 260 MB.
const MAX_BYTES: u64 = 512 << 20;

/// # Errors
/// [`bad_input!`] if a line is no picture's, or its file is not there.
pub fn open(path: &Path) -> Result<Opened> {
    let bytes = read_small(path, MAX_BYTES)?;
    let root = path.parent().unwrap_or(Path::new(""));
    let mut names = Vec::new();
    let mut classes = Vec::new();
    let refuse = |at: usize, what: &str| {
        bad_input!(
            "line {} of {} {what}; expected `path,label` or `path`",
            at + 1,
            path.display()
        )
    };
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|_| bad_input!("{} is not UTF-8 text", path.display()))?;
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() || at == 0 && line.trim() == "path,label" {
            continue;
        }
        let mut fields = fields(line).ok_or_else(|| refuse(at, "has an open quotation mark"))?;
        if fields.len() > 2 {
            return Err(refuse(at, &format!("has {} fields", fields.len())));
        }
        let class = fields.get(1).map(|label| label.trim().to_owned());
        let name = fields.swap_remove(0);
        if name.is_empty() {
            return Err(refuse(at, "names no file"));
        }
        if !root.join(&name).is_file() {
            return Err(refuse(at, &format!("names {name:?}, which is no file")));
        }
        names.push(name);
        classes.push(class.filter(|class| !class.is_empty()));
    }
    if names.is_empty() {
        return Err(bad_input!("{} lists no pictures", path.display()));
    }
    let (classes, labels) = assign_labels(&classes);
    let listed = Listed {
        kind: "csv",
        root: root.to_owned(),
        pictures: names.into_iter().zip(labels).collect(),
    };
    Ok(listed.opened(classes))
}

/// A line's fields; `None` if a quoted one has no end.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(character),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn quoted_fields() {
        for (line, expected) in [
            ("a.jpg,cat", Some(vec!["a.jpg", "cat"])),
            ("a.jpg", Some(vec!["a.jpg"])),
            (
                "\"a,b.jpg\",\"a \"\"cat\"\"\"",
                Some(vec!["a,b.jpg", "a \"cat\""]),
            ),
            ("a\"b,\"\"", Some(vec!["a\"b", ""])),
            ("\"a,b", None),
        ] {
            let expected = expected.map(|all| all.into_iter().map(str::to_owned).collect());
            assert_eq!(fields(line), expected, "{line}");
        }
    }
}
