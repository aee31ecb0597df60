//! The names of the tables.

/// The maximum length of a prefix or schema, in bytes. A name in PostgreSQL has at most 63 bytes,
/// and the names in the migrations have at most 20 without the prefix.
const MAX_LENGTH: usize = 40;

/// The names of the tables: `keep_users`, `keep_sessions` and so on by default.
#[derive(Clone, Debug)]
pub struct Names {
    schema: Option<String>,
    prefix: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { schema: None, prefix: "keep_".to_owned() }
    }
}

impl Names {
    pub(crate) fn set_schema(&mut self, schema: String) {
        self.schema = Some(schema);
    }

    pub(crate) fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// Checks that the names have only plain characters, because they are inserted into statements
    /// without escaping. Otherwise returns the text of the error.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_plain = |name: &str| {
            let mut bytes = name.bytes();
            bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
                && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && name.len() <= MAX_LENGTH
        };
        for (what, name) in [("schema", self.schema.as_ref()), ("prefix", Some(&self.prefix))] {
            if let Some(name) = name.filter(|name| !is_plain(name)) {
                return Err(format!(
                    "the {what} {name:?} is not allowed: use 1 to {MAX_LENGTH} of the characters a to z, \
                     0 to 9 and _, and no digit at the start"
                ));
            }
        }
        Ok(())
    }

    /// Returns the statement with the tables' names in place of placeholders such as `{sessions}`.
    pub fn fill(&self, statement: &str) -> String {
        let Self { schema, prefix } = self;
        let schema = schema.as_ref().map(|schema| format!("\"{schema}\".")).unwrap_or_default();
        ["users", "sessions", "epochs", "counters", "locks", "versions"]
            .iter()
            .fold(statement.to_owned(), |text, name| {
                text.replace(&format!("{{{name}}}"), &format!("{schema}{prefix}{name}"))
            })
    }

    /// Returns the schema of the tables, or `None` if they are in the connection's default schema.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Returns a migration with these names. The script of a migration names tables and indexes
    /// with the default prefix and without a schema.
    pub(crate) fn in_migration(&self, script: &str) -> String {
        script.replace("keep_", &self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(schema: Option<&str>, prefix: &str) -> Names {
        Names { schema: schema.map(str::to_owned), prefix: prefix.to_owned() }
    }

    #[test]
    fn placeholders_become_the_names_of_tables() {
        let statement = "SELECT * FROM {sessions} JOIN {users}";
        let with_defaults = "SELECT * FROM keep_sessions JOIN keep_users";
        assert_eq!(Names::default().fill(statement), with_defaults);
        let with_schema = r#"SELECT * FROM "site".auth_sessions JOIN "site".auth_users"#;
        assert_eq!(names(Some("site"), "auth_").fill(statement), with_schema);
    }

    #[test]
    fn only_names_of_plain_characters_are_accepted() {
        for good in ["keep_", "_", "a1_b"] {
            assert!(names(Some(good), good).check().is_ok(), "{good}");
        }
        let long = "x".repeat(41);
        for bad in ["", "1a", "a b", "a;b", "Keep_", "a\"b", "ä", long.as_str()] {
            assert!(names(None, bad).check().is_err(), "{bad}");
            assert!(names(Some(bad), "keep_").check().is_err(), "{bad}");
        }
    }
}
