//! The details of a session, which are only shown to users: a small JSON text in the session's
//! record. It is written at the login, and read when sessions are listed.
//!
//! Nothing here makes a login fail: a text that can't be read has no facts, and a long header is
//! cut. To add a fact, add a member to the JSON text, call its setter at the login, and add a
//! getter to [`SessionInfo`](crate::session::SessionInfo). The stores need no change.

use std::net::IpAddr;

use serde_json::{Map, Value};
use tower_keep_core::SessionDetails;

use crate::flash::cut;

/// The version of the text, in its member `v`. The getters return nothing for a text of another
/// version.
const VERSION: u64 = 1;

/// A fact has at most this many bytes.
const MAX_FACT_BYTES: usize = 256;

const ADDRESS: &str = "address";
const CARRIER: &str = "carrier";
const LABEL: &str = "label";
const METHOD: &str = "method";
const USER_AGENT: &str = "user_agent";
/// The value of [`CARRIER`] for a session that a bearer token carries.
const BEARER: &str = "bearer";

/// The members of the JSON text. Members that only a newer version of this crate knows are kept.
#[derive(Clone, Debug)]
pub(crate) struct Details(Map<String, Value>);

impl Details {
    pub(crate) fn new() -> Self {
        Self(Map::from_iter([("v".to_owned(), VERSION.into())]))
    }

    /// Reads the stored text. If it is not a JSON object, the result has no members.
    pub(crate) fn read(stored: &SessionDetails) -> Self {
        Self(serde_json::from_str(stored.as_str()).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let is_known = self.0.get("v").and_then(Value::as_u64) == Some(VERSION);
        self.0.get(name).filter(|_| is_known)?.as_str()
    }

    fn set(&mut self, name: &str, fact: &str) {
        if !fact.is_empty() {
            self.0.insert(name.to_owned(), cut(fact, MAX_FACT_BYTES).into());
        }
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.get(ADDRESS)?.parse().ok()
    }

    pub(crate) fn set_address(&mut self, address: IpAddr) {
        self.set(ADDRESS, &address.to_string());
    }

    /// Whether a bearer token carries the session, in place of cookies.
    pub(crate) fn is_bearer(&self) -> bool {
        self.get(CARRIER) == Some(BEARER)
    }

    pub(crate) fn set_bearer(&mut self) {
        self.set(CARRIER, BEARER);
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.get(LABEL)
    }

    pub(crate) fn set_label(&mut self, label: &str) {
        self.set(LABEL, label);
    }

    pub(crate) fn method(&self) -> Option<&str> {
        self.get(METHOD)
    }

    pub(crate) fn set_method(&mut self, method: &str) {
        self.set(METHOD, method);
    }

    pub(crate) fn user_agent(&self) -> Option<&str> {
        self.get(USER_AGENT)
    }

    /// Sets the `User-Agent`, from the bytes of its header.
    pub(crate) fn set_user_agent(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(MAX_FACT_BYTES)];
        self.set(USER_AGENT, &String::from_utf8_lossy(bytes));
    }

    /// Returns the text to store. JSON escapes can make a short fact long, so while the text is too
    /// long, its longest fact is cut to half.
    pub(crate) fn write(mut self) -> SessionDetails {
        loop {
            let text = Value::Object(self.0.clone()).to_string();
            if text.len() <= SessionDetails::MAX_BYTES {
                return SessionDetails::new(text);
            }
            let facts = self.0.values_mut().filter_map(|value| match value {
                Value::String(fact) => Some(fact),
                _ => None,
            });
            match facts.max_by_key(|fact| fact.len()).filter(|fact| !fact.is_empty()) {
                Some(longest) => longest.truncate(cut(longest, longest.len() / 2).len()),
                None => return SessionDetails::default(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_written_and_unknown_members_are_kept() {
        let mut details = Details::new();
        assert_eq!(details.clone().write().as_str(), r#"{"v":1}"#);
        details.set_address([127, 0, 0, 1].into());
        details.set_method("");
        details.set_user_agent(b"curl/\"8\\");
        let stored = details.write();
        let expected = r#"{"address":"127.0.0.1","user_agent":"curl/\"8\\","v":1}"#;
        assert_eq!(stored.as_str(), expected);
        let read = Details::read(&stored);
        assert_eq!(read.address(), Some([127, 0, 0, 1].into()));
        assert_eq!((read.user_agent(), read.method()), (Some("curl/\"8\\"), None));

        let newer = r#"{"device_name":"laptop","method":"passkey","score":[1,2.5],"v":1}"#;
        let mut read = Details::read(&SessionDetails::new(newer));
        assert_eq!(read.method(), Some("passkey"));
        read.set_method("password");
        assert_eq!(read.write().as_str(), newer.replace("passkey", "password"));
    }

    #[test]
    fn an_unreadable_text_has_no_facts() {
        for stored in [
            "",
            "{",
            "[]",
            "null",
            r#"{"method":"password"}"#,
            r#"{"method":"password","v":2}"#,
            r#"{"method":7,"v":1}"#,
        ] {
            let read = Details::read(&SessionDetails::new(stored));
            assert_eq!((read.method(), read.address()), (None, None), "{stored}");
        }
    }

    #[test]
    fn long_facts_are_cut_until_the_text_fits() {
        for byte in [b'x', b'"', b'\\', 0x01, 0x7F, 0xC3, 0xFF] {
            let mut details = Details::new();
            details.set_address([0xFFFF; 8].into());
            details.set_method(&"\u{1}".repeat(1_000));
            details.set_user_agent(&[byte; 9_000]);
            let text = details.write();
            assert!(text.as_str().len() <= SessionDetails::MAX_BYTES, "{byte}");
            assert!(text.as_str().bytes().all(|byte| byte >= b' '), "{byte}");
            let read = Details::read(&text);
            assert!(read.user_agent().is_some_and(|shown| shown.len() >= 64), "{byte}");
            assert!(read.method().is_some() && read.address().is_some(), "{byte}");
        }
    }
}
