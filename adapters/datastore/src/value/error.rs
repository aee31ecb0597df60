//! The error for a property that can't be written or read.

use std::fmt::{self, Display};

use serde::de::{Expected, Unexpected};
use serde::{de, ser};

/// The error for a property that can't be written or read. The error quotes no value, because
/// values may be secrets. Only a message from the user type's own code may quote one.
#[derive(Debug)]
pub(crate) struct ValueError {
    /// The names and indexes on the path to the value, in reverse order.
    path: Vec<String>,
    message: String,
}

pub(crate) type Result<T, E = ValueError> = std::result::Result<T, E>;

impl ValueError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), message: message.into() }
    }

    /// Adds the property that the value is part of.
    pub(crate) fn within(mut self, property: &str) -> Self {
        self.path.push(property.to_owned());
        self
    }

    /// Adds the array element that the value is part of.
    pub(crate) fn at(mut self, index: usize) -> Self {
        self.path.push(format!("[{index}]"));
        self
    }
}

impl Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        match path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "property `{path}`: {}", self.message),
        }
    }
}

impl std::error::Error for ValueError {}

impl ser::Error for ValueError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

impl de::Error for ValueError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("found {}, expected {expected}", type_name(&unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("found an invalid {}, expected {expected}", type_name(&unexpected)))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("found an unknown variant, expected one of {}", expected.join(", ")))
    }
}

/// Returns the name of a value's type. It does not contain the value.
fn type_name(unexpected: &Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "integer",
        Unexpected::Float(_) => "double",
        Unexpected::Char(_) | Unexpected::Str(_) => "string",
        Unexpected::Bytes(_) => "blob",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq | Unexpected::TupleVariant => "array",
        Unexpected::Map | Unexpected::StructVariant => "embedded entity",
        _ => "value of another type",
    }
}
