//! Arguments of the `crash` program: `--name value` pairs.

use std::collections::BTreeMap;

use quorate_engine::Failure;

/// The pairs that were given and not yet taken.
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Reads the pairs. Fails with `Invalid`.
    pub fn read(words: &[String]) -> Result<Options, Failure> {
        let mut pairs = BTreeMap::new();
        for pair in words.chunks(2) {
            match pair {
                [name, value] if name.starts_with("--") => pairs.insert(name[2..].to_string(), value.clone()),
                other => return Err(Failure::invalid(format!("{other:?} is not --NAME VALUE."))),
            };
        }
        Ok(Options(pairs))
    }

    /// The number `name`, or `otherwise`. Fails with `Invalid`.
    pub fn number(&mut self, name: &str, otherwise: u64) -> Result<u64, Failure> {
        let Some(text) = self.0.remove(name) else { return Ok(otherwise) };
        text.parse().map_err(|_| Failure::invalid(format!("--{name} {text:?} is no number.")))
    }

    /// The text `name`, or `otherwise`.
    pub fn text(&mut self, name: &str, otherwise: &str) -> String {
        self.0.remove(name).unwrap_or_else(|| otherwise.to_string())
    }

    /// Fails with `Invalid` when something was not taken.
    pub fn end(self) -> Result<(), Failure> {
        match self.0.keys().next() {
            Some(name) => Err(Failure::invalid(format!("There is no option --{name}."))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_taken_and_anything_else_is_refused() {
        let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        let mut options = Options::read(&words("--a 7 --b x")).unwrap();
        assert_eq!((options.number("a", 1).unwrap(), options.number("c", 3).unwrap()), (7, 3));
        assert!(options.end().unwrap_err().message.contains("--b"));
        assert!(Options::read(&words("--a")).is_err());
        assert!(Options::read(&words("--a x")).unwrap().number("a", 1).is_err());
    }
}
