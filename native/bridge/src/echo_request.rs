//! What a body asks of the echo, see [`crate::echo`].

use std::time::Duration;

use quorate_engine::{Code, Failure, limits};

/// Bodies that begin so ask for something special.
pub const PREFIX: &[u8] = b"!echo ";

/// What to do with a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Answer with the body.
    Plain,
    /// Panic inside `submit`.
    Panic,
    /// Answer with a failure of this code.
    Fail(Code),
    /// Answer with the body, later.
    Delay(Duration),
    /// Answer with so many bytes.
    Large(usize),
    /// Log this, then answer with the body.
    Log(String),
}

impl Request {
    /// Reads a body. Fails with `Invalid` when it has the prefix and asks for what there is not.
    pub fn parse(body: &[u8]) -> Result<Request, Failure> {
        let Some(asked) = body.strip_prefix(PREFIX) else {
            return Ok(Request::Plain);
        };
        let asked = String::from_utf8_lossy(asked);
        let (verb, argument) = asked.split_once(' ').unwrap_or((&asked, ""));
        let request = match verb {
            "panic" => Some(Request::Panic),
            "fail" => argument.parse().ok().and_then(Code::of).map(Request::Fail),
            "delay" => argument.parse().ok().map(|ms| Request::Delay(Duration::from_millis(ms))),
            "large" => argument.parse().ok().filter(|size| *size <= limits::FRAME_BYTES_MAX).map(Request::Large),
            "log" => Some(Request::Log(argument.into())),
            _ => None,
        };
        request.ok_or_else(|| Failure::invalid(format!("The echo does not understand {asked:?}.")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_understood_or_refused() {
        let parse = |body: &str| Request::parse(body.as_bytes());
        assert_eq!(parse(""), Ok(Request::Plain));
        assert_eq!(parse("echo panic"), Ok(Request::Plain));
        assert_eq!(parse("!echo panic"), Ok(Request::Panic));
        assert_eq!(parse("!echo fail 3"), Ok(Request::Fail(Code::Overloaded)));
        assert_eq!(parse("!echo delay 20"), Ok(Request::Delay(Duration::from_millis(20))));
        assert_eq!(parse("!echo large 7"), Ok(Request::Large(7)));
        assert_eq!(parse("!echo log a b"), Ok(Request::Log("a b".into())));
        for wrong in ["!echo ", "!echo fail", "!echo fail 99", "!echo delay x", "!echo large 99999999999"] {
            assert_eq!(parse(wrong).map_err(|failure| failure.code), Err(Code::Invalid), "{wrong}");
        }
    }
}
