//! Configurations that are read, refused, and damaged.

use std::path::Path;

use super::*;

fn node(text: &str) -> NodeConfig {
    match read(text.as_bytes()).expect(text).engine {
        Engine::Node(config) => config,
        Engine::Echo(_) => panic!("{text} asks for a node"),
    }
}

fn refusal(text: &str) -> String {
    read(text.as_bytes()).expect_err(text).message
}

fn with(more: &str) -> String {
    format!("{{:name \"a\" :servers {{\"a\" \"127.0.0.1:7001\"}} :data-dir \"d\" {more}}}")
}

#[test]
fn a_full_configuration_is_read_field_by_field() {
    let config = node(
        "{:engine :node, :name \"a\", :servers {\"a\" \"127.0.0.1:7001\", \"b\" \"127.0.0.1:7002\"}, \
          :listen \"0.0.0.0:7001\", :data-dir \"/tmp/x y\", :machine :hosted, :heartbeat-ms 10, \
          :election-timeout-ms 50, :snapshot-commands 7, :log-keep-entries 8, :join-only true, :insecure true, \
          :tls {:cert \"c d.pem\", :key \"k.pem\", :ca \"/a.pem\"}, \
          :forward false, :retry-ms 9, :spin-us 12, :transport :host, :snapshots false, :snapshot-timeout-ms 11, \
          :log-level :warn}",
    );
    assert_eq!(config.name, "a");
    assert_eq!(config.servers["b"], "127.0.0.1:7002");
    assert_eq!(config.listen.as_deref(), Some("0.0.0.0:7001"));
    assert_eq!(config.data_dir, Path::new("/tmp/x y"));
    assert_eq!(config.machine, MachineKind::Hosted);
    let numbers = (config.heartbeat_ms, config.election_timeout_ms, config.snapshot_commands);
    assert_eq!(numbers, (10, 50, 7));
    assert_eq!((config.log_keep_entries, config.retry_ms, config.spin_us), (8, 9, 12));
    assert_eq!((config.join_only, config.insecure, config.forward), (true, true, false));
    let tls = TlsFiles { cert: "c d.pem".into(), key: "k.pem".into(), ca: "/a.pem".into() };
    assert_eq!(config.tls, Some(tls));
    assert_eq!(config.transport, TransportKind::Host);
    assert_eq!((config.snapshots, config.snapshot_timeout_ms), (false, 11));
}

#[test]
fn what_is_absent_or_nil_has_its_default() {
    let config = node(&with(":listen nil :heartbeat-ms nil :machine nil :tls nil"));
    assert_eq!(config.listen, None);
    assert_eq!(config.tls, None);
    assert_eq!(config.heartbeat_ms, quorate_engine::config::HEARTBEAT_MS);
    assert_eq!(config.machine, MachineKind::KeyValue);
    assert!(config.forward);
}

#[test]
fn strings_arrive_exactly_as_clojure_prints_them() {
    for (printed, meant) in [
        (r#""a\"b\\c""#, "a\"b\\c"),
        (r#""tab\tline\nreturn\r""#, "tab\tline\nreturn\r"),
        ("\"späße 日本 🦀 ' \u{7f} \u{200b}\"", "späße 日本 🦀 ' \u{7f} \u{200b}"),
        ("\"; no comment #{}(\"", "; no comment #{}("),
        (r#""C:\\dir\\new""#, "C:\\dir\\new"),
        ("\":a\"", ":a"),
        ("\"\"", ""),
    ] {
        let text = format!("{{:name {printed} :servers {{{printed} \"h:1\"}} :data-dir \"d{}", &printed[1..]);
        let config = node(&format!("{text}}}"));
        assert_eq!(config.name, meant);
        assert_eq!(config.servers.keys().next().map(String::as_str), Some(meant));
        assert_eq!(config.data_dir, Path::new(&format!("d{meant}")));
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    assert!(refusal(&with(":heartbeat 5")).contains(":heartbeat is unknown; did you mean :heartbeat-ms?"));
    assert!(refusal(&with(":election-timout-ms 5")).contains("did you mean :election-timeout-ms?"));
    assert!(refusal(&with(":colour 5")).contains("known are :engine"));
    assert!(refusal(&with(":mirror true")).contains(":mirror is unknown"));
    assert!(refusal("{:engine :echo :servers {}}").contains(":servers is unknown"));
    assert!(refusal("{\"name\" \"a\"}").contains("\"name\" is not a keyword"));
}

#[test]
fn wrong_types_are_refused_with_the_right_one() {
    assert!(refusal(&with(":heartbeat-ms \"5\"")).contains(":heartbeat-ms must be a whole number"));
    assert!(refusal(&with(":heartbeat-ms -5")).contains(":heartbeat-ms must be a whole number"));
    assert!(refusal(&with(":heartbeat-ms 1.5")).contains(":heartbeat-ms must be a whole number"));
    assert!(refusal(&with(":heartbeat-ms 99999999999999999999")).contains(":heartbeat-ms"));
    assert!(refusal(&with(":forward 1")).contains(":forward must be true or false"));
    assert!(refusal(&with(":machine :sql")).contains(":machine must be :kv or :hosted, not :sql"));
    assert!(refusal(&with(":machine \"kv\"")).contains(":machine must be"));
    assert!(refusal(&with(":tls \"c.pem\"")).contains(":tls must be a map {:cert"));
    assert!(refusal(&with(":tls {:cert \"c\" :key \"k\"}")).contains(":tls lacks :ca"));
    assert!(refusal(&with(":tls {:cert \"c\" :key \"\" :ca \"a\"}")).contains(":tls lacks :key"));
    assert!(refusal(&with(":tls {:cert 1 :key \"k\" :ca \"a\"}")).contains(":cert must be a string"));
    assert!(refusal(&with(":tls {:cert \"c\" :key \"k\" :ca \"a\" :cn \"x\"}")).contains("unknown key :cn"));
    assert!(refusal(&with(":listen :x")).contains(":listen must be a string"));
    assert!(refusal(&with(":log-level :loud")).contains(":log-level is \"loud\""));
    assert!(refusal("{:name \"a\" :data-dir \"d\" :servers [\"a\"]}").contains(":servers must be a map"));
    assert!(refusal("{:name \"a\" :data-dir \"d\" :servers {:a \"h:1\"}}").contains("names must be strings"));
    assert!(refusal("{:name \"a\" :data-dir \"d\" :servers {\"a\" 1}}").contains("\"host:port\""));
    assert!(refusal("{:engine :raft}").contains(":engine must be :node or :echo"));
    assert!(refusal("{:engine :echo :in-flight 0}").contains(":in-flight is 0"));
}

#[test]
fn what_is_needed_must_be_there() {
    assert!(refusal("{}").contains("lacks :name"));
    assert!(refusal("{:name \"a\"}").contains("lacks :servers"));
    assert!(refusal("{:name \"a\" :servers {\"a\" nil}}").contains("lacks :data-dir"));
    assert!(refusal("{:name \"a\" :servers {\"a\" nil} :data-dir \"\"}").contains("lacks :data-dir"));
}

/// Words that a reader of EDN knows, or stumbles over.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ":a",
    ":tls",
    ":name",
    "\"",
    "\\",
    "1r",
    "-",
    "٣",
    "0x",
    "nil",
    "#",
    "#{",
    "#_",
    "#inst \"",
    ";",
    "\u{0}",
    "1/0",
    "1e999",
    "e9e9",
    "\\u12",
    "^",
    "`",
    "~@",
    ",",
    "\n",
    "99999999999999999999",
    "{:a {:b {:c ",
];

#[test]
fn fuzz_the_configuration() {
    let whole = with(
        ":engine :node :listen \"h:1\" :machine :kv :heartbeat-ms 10 :tls {:cert \"c\" :key \"k\" :ca \"a\"} :join-only true \
         :log-level :warn :transport :tcp ; a comment\n",
    );
    let echo = "{:engine :echo :name \"x\\ty\" :mirror true :in-flight 7}".to_string();
    let samples = [whole.into_bytes(), echo.into_bytes()];
    // edn-rs keeps keys as strings, and each form as a value of its own.
    let allowed = quorate_fuzz::Allowance { fixed: 64 << 10, per_byte: 512 };
    quorate_fuzz::fuzz("configuration", &samples, WORDS, allowed, |input| drop(read(&input)));
}

#[test]
fn garbage_is_refused_and_never_panics() {
    assert!(read(&[0xff, 0xfe]).is_err());
    let pieces = ["{", "}", ":a", "\"", "\\", "1r", "-", "٣", "0x", "nil", "#", ";", "\u{0}", "1/0", "e9e9", " "];
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        let mut text = String::from("{:name ");
        for _ in 0..6 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
        }
        assert!(read(text.as_bytes()).is_err(), "{text}");
        text.push('}');
        assert!(read(text.as_bytes()).is_err(), "{text}");
    }
}
