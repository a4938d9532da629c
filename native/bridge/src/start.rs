//! From a configuration to a running session: the one place that knows which engines there are.

use std::sync::Arc;

use quorate_engine::Failure;
use quorate_engine::session::Session;

use crate::echo::Echo;
use crate::edn_config::{self, Engine};
use crate::log_lines;

/// Reads `config` (see [`edn_config`]), sets up the log and starts the session. Fails with `Invalid` when the
/// configuration is wrong, else with what the engine says; then nothing runs.
pub fn start(config: &[u8]) -> Result<Arc<dyn Session>, Failure> {
    let settings = edn_config::read(config)?;
    log_lines::install(settings.log_level)?;
    match settings.engine {
        Engine::Echo(config) => Ok(Echo::start(config)?),
        Engine::Node(config) => quorate_engine::node::start(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_engine::Code;

    #[test]
    fn an_echo_starts_and_nonsense_does_not() {
        assert!(start(b"{:engine :echo}").is_ok_and(|session| {
            session.close();
            true
        }));
        assert_eq!(start(b"{:engine :echo :x 1}").err().map(|failure| failure.code), Some(Code::Invalid));
        let nonsense = b"{:name \"a\" :servers {\"b\" \"127.0.0.1:1\"} :data-dir \"d\"}";
        assert_eq!(start(nonsense).err().map(|failure| failure.code), Some(Code::Invalid));
    }
}
