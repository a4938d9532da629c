//! A look at the form of a configuration text before edn-rs reads it, because edn-rs drops silently what this refuses:
//! the last key of a map with an odd number of forms, a key given twice, what follows the first form. It also recurses
//! once a level, so the depth is bounded here; and tags, discards, sets and characters have no place in a configuration.

use std::collections::BTreeSet;

use quorate_engine::Failure;

/// Longest configuration, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of a configuration.
pub const DEPTH_MAX: usize = 8;

/// One open bracket: what closes it, and the forms seen in it.
struct Level<'a> {
    close: char,
    forms: usize,
    maps: usize,
    keys: BTreeSet<&'a str>,
}

impl Level<'_> {
    fn new(close: char) -> Self {
        Level { close, forms: 0, maps: 0, keys: BTreeSet::new() }
    }
}

/// Checks that `text` is one map, well nested, with a value for each key and each key once. Fails with `Invalid`.
pub fn check(text: &str) -> Result<(), Failure> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "The configuration has {} bytes; at most {CONFIG_BYTES_MAX} are read.",
            text.len()
        )));
    }
    let mut levels = vec![Level::new('\0')];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            ';' => rest.find('\n').unwrap_or(rest.len()),
            c if c.is_whitespace() || c == ',' => c.len_utf8(),
            '{' | '[' | '(' => open(&mut levels, first)?,
            '}' | ']' | ')' => close(&mut levels, first)?,
            '#' => {
                return Err(Failure::invalid(
                    "The configuration holds a #: tags, sets and discards have no place in it.",
                ));
            }
            '\\' => {
                return Err(Failure::invalid("The configuration holds a character (\\); use a string."));
            }
            '"' => form(&mut levels, &rest[..string_len(rest)?])?,
            _ => form(&mut levels, &rest[..token_len(rest)])?,
        };
        rest = &rest[len..];
    }
    match levels.as_slice() {
        [top] if top.forms == 1 && top.maps == 1 => Ok(()),
        [_] => Err(Failure::invalid("The configuration must be one EDN map.")),
        _ => Err(Failure::invalid("The configuration ends before its last bracket is closed.")),
    }
}

fn open(levels: &mut Vec<Level<'_>>, bracket: char) -> Result<usize, Failure> {
    if levels.len() > DEPTH_MAX {
        return Err(Failure::invalid(format!("The configuration is nested deeper than {DEPTH_MAX} levels.")));
    }
    if let Some(level) = levels.last_mut() {
        level.forms += 1;
        level.maps += usize::from(bracket == '{');
    }
    levels.push(Level::new(match bracket {
        '{' => '}',
        '[' => ']',
        _ => ')',
    }));
    Ok(1)
}

fn close(levels: &mut Vec<Level<'_>>, bracket: char) -> Result<usize, Failure> {
    match levels.pop() {
        Some(level) if level.close == bracket && !(bracket == '}' && level.forms % 2 == 1) => Ok(1),
        Some(level) if level.close == bracket => {
            Err(Failure::invalid("A map in the configuration has a key without a value."))
        }
        _ => Err(Failure::invalid(format!("The configuration has a {bracket} that closes nothing."))),
    }
}

/// Notes a string or token; in a map every other form is a key.
fn form<'a>(levels: &mut [Level<'a>], text: &'a str) -> Result<usize, Failure> {
    if let Some(level) = levels.last_mut() {
        let is_key = level.close == '}' && level.forms.is_multiple_of(2);
        if is_key && !level.keys.insert(text) {
            return Err(Failure::invalid(format!("The configuration gives {text} twice.")));
        }
        level.forms += 1;
    }
    Ok(text.len())
}

fn string_len(rest: &str) -> Result<usize, Failure> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(Failure::invalid("A string in the configuration is not closed."))
}

fn token_len(rest: &str) -> usize {
    rest.find(|c: char| c.is_whitespace() || ",;\"{}[]()".contains(c)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        check(text).expect_err(text).message
    }

    #[test]
    fn well_formed_maps_pass() {
        for text in ["{}", " {:a 1, :b \"}{\\\"\" ; a comment }\n :c [1 2 3] :d {\"x\" \"#\"}} ; the end", "{:a nil}"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_edn_rs_would_drop_is_refused() {
        assert!(refusal("{:a}").contains("without a value"));
        assert!(refusal("{:a 1 :b}").contains("without a value"));
        assert!(refusal("{:a 1} :b").contains("one EDN map"));
        assert!(refusal("{:a 1 :a 2}").contains(":a twice"));
        assert!(refusal("{:a {\"x\" 1 \"x\" 2}}").contains("\"x\" twice"));
        assert!(refusal("{:a #_ 1 2}").contains("#"));
        assert!(refusal("{:a \\b}").contains("character"));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in ["", "  ", "nil", ":a", "[1]", "(a)", "\"{}\"", "{} {}", "; {}"] {
            assert!(refusal(text).contains("one EDN map"), "{text}");
        }
        assert!(refusal("{:a \"b}").contains("not closed"));
        assert!(refusal("{:a [1}").contains("closes nothing"));
        assert!(refusal("}").contains("closes nothing"));
        assert!(refusal("{:a 1").contains("ends before"));
        assert!(refusal(&"[".repeat(1_000_000)).contains("nested deeper"));
        assert!(refusal(&" ".repeat(CONFIG_BYTES_MAX + 1)).contains("bytes"));
    }
}
