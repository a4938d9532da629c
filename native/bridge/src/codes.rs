//! The codes of failures in Rust and in Java are the same.

#[cfg(test)]
mod tests {
    use quorate_engine::Code;

    /// `AddressInUse` → `ADDRESS_IN_USE`
    fn constant(code: Code) -> String {
        let mut name = String::new();
        for letter in format!("{code:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    }

    #[test]
    fn the_java_enum_mirrors_the_codes() {
        let java = include_str!("../../../clj/java/quorate/jni/Code.java");
        let found: Vec<&str> = java
            .lines()
            .map(str::trim)
            .filter(|line| line.ends_with("),") || line.ends_with(");"))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
            .map(|line| line.trim_end_matches([',', ';']))
            .collect();
        let expected: Vec<String> =
            Code::ALL.iter().map(|code| format!("{}({})", constant(*code), *code as u8)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_java_classes_expect_this_version() {
        let java = include_str!("../../../clj/java/quorate/jni/NativeLibrary.java");
        assert!(java.contains(&format!("String VERSION = \"{}\";", crate::VERSION)));
    }

    #[test]
    fn a_code_is_found_by_its_number() {
        assert_eq!(Code::of(3), Some(Code::Overloaded));
        assert_eq!(Code::of(0), None);
        assert_eq!(Code::of(17), None);
    }
}
