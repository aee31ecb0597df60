//! A session record as a value: one line of text, which is small, fast to read, and legible with
//! redis-cli.
//!
//! ```text
//! 1 0 0 - - AAECAwQFBgcICQoLDA0ODw 1800000000 1800000000 1800000000 1802592000 2592000 1802592000 192.0.2.7 - 8 passwordFirefox
//! ```
//!
//! The fields are: the version; the epoch; the generation, when it began and when it was seen; the
//! salt; when the login was, when the session began and when it was last used; until when and for
//! how many seconds the login is remembered; when the record expires; the address; how the session
//! ended (`-`, or `at,reason,successor,notified`); the length of the method; and then the method
//! and the User-Agent. A field without a value is `-`. The session's key and the user are in the
//! name of the Redis key.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tower_keep_core::{Ended, SessionKey, SessionRecord, Timestamp, UserId};

use crate::error::Error;
use crate::keys::{member, read_member};

/// The version of this format.
const VERSION: &str = "1";

/// The text of a field without a value.
const NONE: &str = "-";

/// Returns the value of a record that was created in this epoch of its user.
pub(crate) fn write(record: &SessionRecord, created_in: u64) -> Vec<u8> {
    let mut text = String::with_capacity(256);
    // Writing to a `String` does not fail.
    let _ = write_to(&mut text, record, created_in);
    text.into_bytes()
}

fn write_to(text: &mut String, record: &SessionRecord, created_in: u64) -> std::fmt::Result {
    write!(text, "{VERSION} {created_in} {} ", record.generation)?;
    write_time(text, record.rotated_at)?;
    write_time(text, record.seen_at)?;
    URL_SAFE_NO_PAD.encode_string(record.salt, text);
    text.push(' ');
    for time in [record.created, record.session_started, record.last_seen] {
        write_time(text, Some(time))?;
    }
    write_time(text, record.remember_expires)?;
    write!(text, "{} {} ", record.remember_seconds, record.expires.as_secs())?;
    match record.address {
        Some(address) => write!(text, "{address} ")?,
        None => write!(text, "{NONE} ")?,
    }
    match &record.ended {
        Some(Ended { at, reason, successor, notified }) => {
            let successor = successor.as_ref().map_or_else(|| NONE.to_owned(), member);
            write!(text, "{},{reason},{successor},{} ", at.as_secs(), u8::from(*notified))?;
        }
        None => write!(text, "{NONE} ")?,
    }
    write!(text, "{} {}{}", record.method.len(), record.method, record.user_agent)
}

fn write_time(text: &mut String, time: Option<Timestamp>) -> std::fmt::Result {
    match time {
        Some(time) => write!(text, "{} ", time.as_secs()),
        None => write!(text, "{NONE} "),
    }
}

/// Returns the record of a value, and the epoch in which it was created.
pub(crate) fn read(
    key: SessionKey,
    user: UserId,
    value: &[u8],
) -> Result<(SessionRecord, u64), Error> {
    let text = std::str::from_utf8(value).ok();
    match text.and_then(|text| read_line(key, user, text)) {
        Some(record) => Ok(record),
        None => Err(unreadable(text.unwrap_or_default())),
    }
}

fn read_line(key: SessionKey, user: UserId, text: &str) -> Option<(SessionRecord, u64)> {
    let mut fields = Fields(text);
    if fields.next()? != VERSION {
        return None;
    }
    let created_in = fields.next()?.parse().ok()?;
    let record = SessionRecord {
        key,
        user,
        generation: fields.number()?,
        rotated_at: fields.optional(time)?,
        seen_at: fields.optional(time)?,
        salt: salt(fields.next()?)?,
        created: time(fields.next()?)?,
        session_started: time(fields.next()?)?,
        last_seen: time(fields.next()?)?,
        remember_expires: fields.optional(time)?,
        remember_seconds: fields.number()?,
        expires: time(fields.next()?)?,
        address: fields.optional(|address| address.parse().ok())?,
        user_agent: "".into(),
        method: "".into(),
        ended: fields.optional(read_end)?,
    };
    let method = fields.next()?.parse().ok()?;
    let (method, user_agent) = fields.0.split_at_checked(method)?;
    let record = SessionRecord { method: method.into(), user_agent: user_agent.into(), ..record };
    Some((record, created_in))
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_secs)
}

fn salt(text: &str) -> Option<[u8; 16]> {
    let mut salt = [0; 16];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut salt).ok()?;
    (length == salt.len()).then_some(salt)
}

fn read_end(text: &str) -> Option<Ended> {
    let mut parts = text.split(',');
    let at = time(parts.next()?)?;
    let reason = parts.next()?.parse().ok()?;
    let successor = match parts.next()? {
        NONE => None,
        key => Some(read_member(key.as_bytes()).ok()?),
    };
    let notified = match parts.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    parts.next().is_none().then_some(Ended { at, reason, successor, notified })
}

/// The rest of a line, which is read field by field.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (field, rest) = self.0.split_once(' ')?;
        self.0 = rest;
        Some(field)
    }

    fn number(&mut self) -> Option<u32> {
        self.next()?.parse().ok()
    }

    /// Reads a field that may have no value.
    fn optional<T>(&mut self, read: impl FnOnce(&'a str) -> Option<T>) -> Option<Option<T>> {
        match self.next()? {
            NONE => Some(None),
            field => read(field).map(Some),
        }
    }
}

/// Creates the error for a line that can't be read. It quotes nothing but the version.
fn unreadable(text: &str) -> Error {
    let version = text.split_once(' ').map_or("", |(version, _)| version);
    if version != VERSION && version.parse::<u8>().is_ok() {
        return Error::corrupt(format!(
            "a session record is of version {version}, and this release reads version {VERSION}: it \
             was written by a later one"
        ));
    }
    Error::corrupt("a session record is not what this store has written")
}

#[cfg(test)]
mod tests {
    use tower_keep_testkit::contract::sessions::new_record;

    use tower_keep_core::EndReason;

    use super::*;

    fn read_back(record: &SessionRecord) -> SessionRecord {
        let (read, created_in) =
            read(record.key, record.user.clone(), &write(record, u64::MAX)).unwrap();
        assert_eq!(created_in, u64::MAX);
        read
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let plain = new_record(&"42".into());
        let full = SessionRecord {
            generation: u32::MAX,
            rotated_at: Some(Timestamp::MAX),
            seen_at: Some(Timestamp::from_secs(0)),
            session_started: plain.created.plus(1),
            last_seen: plain.created.minus(1),
            method: "a b - é".into(),
            user_agent: " - \n 🦀 ".into(),
            address: "2001:db8::7".parse().ok(),
            ended: Some(Ended {
                at: plain.created,
                reason: EndReason::Replaced,
                successor: Some(SessionKey::new([9; 32])),
                notified: true,
            }),
            ..plain.clone()
        };
        let ended = Ended { successor: None, notified: false, ..full.ended.clone().unwrap() };
        let bare = SessionRecord {
            remember_expires: None,
            remember_seconds: 0,
            address: None,
            user_agent: "".into(),
            method: "".into(),
            ended: Some(ended),
            ..plain.clone()
        };
        for record in [plain, full, bare] {
            assert_eq!(read_back(&record), record);
        }
    }

    #[test]
    fn what_cannot_be_read_is_corrupt_and_not_quoted() {
        let record = new_record(&"42".into());
        let good = String::from_utf8(write(&record, 3)).unwrap();
        let fields: Vec<&str> = good.split(' ').collect();
        let mut bad = vec![String::new(), "secret".into(), "1 secret".into()];
        bad.push(good.replacen("1 ", "2 ", 1));
        // The line cut off before each field, and each field replaced.
        for index in 0..15 {
            bad.push(fields[..index].join(" "));
            let mut replaced = fields.clone();
            replaced[index] = "secret";
            bad.push(replaced.join(" "));
        }
        bad.push(good.replace(" - 8 ", " 1,ended,-,2 8 "));
        bad.push(good.replace(" - 8 ", " - 99999 "));
        for bad in bad {
            let error = read(record.key, record.user.clone(), bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), tower_keep_core::StoreErrorKind::Corrupt, "{bad}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
