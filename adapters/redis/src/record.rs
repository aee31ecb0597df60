//! A session record as a value: one line of text, which is small, fast to parse, and readable with
//! redis-cli.
//!
//! ```text
//! 1 0 0 - - AAECAwQFBgcICQoLDA0ODw 1800000000 1800000000 1800000000 1802592000 2592000 1802592000 - - {"method":"password","v":1}
//! ```
//!
//! The fields, in this order:
//!
//! 1. the version of this format,
//! 2. the user's epoch in which the record was created,
//! 3. `generation`, `rotated_at` and `seen_at`,
//! 4. `salt`,
//! 5. `created`, `session_started` and `last_seen`,
//! 6. `remember.expires` and `remember.seconds`,
//! 7. `expires`,
//! 8. `ended`: `-`, or `at,reason,successor,notified`,
//! 9. the length of the acting user's id, in bytes,
//! 10. the acting user's id, and directly after it `details`.
//!
//! A field without a value is `-`. The id and the details may be any text. They can't be mistaken
//! for other fields, because they are at the end of the line, and the length says where the id
//! ends. The session's key and the user are in the name of the Redis key.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tower_keep_core::{
    Ended, RememberPeriod, SessionDetails, SessionKey, SessionRecord, Timestamp, UserId,
};

use crate::error::Error;
use crate::keys::{decode_session_key, encode_session_key};

/// The version of this format.
const VERSION: &str = "1";

/// The text of a field without a value.
const NONE: &str = "-";

/// Returns the value to store for a record. `created_in` is the user's epoch in which the record
/// was created.
pub(crate) fn write_record(record: &SessionRecord, created_in: u64) -> Vec<u8> {
    let mut text = String::with_capacity(192 + record.details.as_str().len());
    // Writing to a `String` does not fail.
    let _ = write_line(&mut text, record, created_in);
    text.into_bytes()
}

fn write_line(text: &mut String, record: &SessionRecord, created_in: u64) -> std::fmt::Result {
    write!(text, "{VERSION} {created_in} {} ", record.generation)?;
    write_optional(text, record.rotated_at.map(Timestamp::as_secs))?;
    write_optional(text, record.seen_at.map(Timestamp::as_secs))?;
    URL_SAFE_NO_PAD.encode_string(record.salt, text);
    let SessionRecord { created, session_started, last_seen, remember, .. } = record;
    let [created, started, last_seen] =
        [created, session_started, last_seen].map(|at| at.as_secs());
    write!(text, " {created} {started} {last_seen} ")?;
    write_optional(text, remember.map(|period| period.expires.as_secs()))?;
    write_optional(text, remember.map(|period| period.seconds))?;
    write!(text, "{} ", record.expires.as_secs())?;
    write_end(text, record.ended.as_ref())?;
    let acting_user = record.acting_user.as_ref().map(UserId::as_str);
    write_optional(text, acting_user.map(str::len))?;
    text.push_str(acting_user.unwrap_or_default());
    text.push_str(record.details.as_str());
    Ok(())
}

fn write_optional(text: &mut String, field: Option<impl std::fmt::Display>) -> std::fmt::Result {
    match field {
        Some(field) => write!(text, "{field} "),
        None => write!(text, "{NONE} "),
    }
}

fn write_end(text: &mut String, ended: Option<&Ended>) -> std::fmt::Result {
    let Some(ended) = ended else { return write!(text, "{NONE} ") };
    let successor = ended.successor.as_ref().map_or_else(|| NONE.to_owned(), encode_session_key);
    let (at, notified) = (ended.at.as_secs(), u8::from(ended.notified));
    write!(text, "{at},{},{successor},{notified} ", ended.reason)
}

/// Returns the record that a value holds, and the user's epoch in which the record was created.
pub(crate) fn read_record(
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
    let mut fields = Fields { rest: text };
    if fields.next()? != VERSION {
        return None;
    }
    let created_in = fields.next()?.parse().ok()?;
    let generation = fields.number()?;
    let (rotated_at, seen_at) = (fields.optional(read_time)?, fields.optional(read_time)?);
    let salt = read_salt(fields.next()?)?;
    let created = read_time(fields.next()?)?;
    let session_started = read_time(fields.next()?)?;
    let last_seen = read_time(fields.next()?)?;
    let remember = fields.remember_period()?;
    let expires = read_time(fields.next()?)?;
    let ended = fields.optional(read_end)?;
    let id_length = fields.optional(|length| length.parse().ok())?;
    let (acting_user, details) = split_acting_user(id_length, fields.rest)?;

    let mut record = SessionRecord::new(key, user, salt, created, expires);
    record.acting_user = acting_user.map(UserId::from);
    record.generation = generation;
    record.rotated_at = rotated_at;
    record.seen_at = seen_at;
    record.session_started = session_started;
    record.last_seen = last_seen;
    record.remember = remember;
    record.details = SessionDetails::new(details);
    record.ended = ended;
    Some((record, created_in))
}

/// Splits the rest of a line into the acting user's id, whose length is given, and the details.
fn split_acting_user(id_length: Option<usize>, rest: &str) -> Option<(Option<&str>, &str)> {
    match id_length {
        Some(length) => rest.split_at_checked(length).map(|(id, details)| (Some(id), details)),
        None => Some((None, rest)),
    }
}

fn read_time(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_secs)
}

fn read_salt(text: &str) -> Option<[u8; 16]> {
    let mut salt = [0; 16];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut salt).ok()?;
    (length == salt.len()).then_some(salt)
}

fn read_end(text: &str) -> Option<Ended> {
    let mut parts = text.split(',');
    let at = read_time(parts.next()?)?;
    let mut ended = Ended::new(at, parts.next()?.parse().ok()?);
    ended.successor = match parts.next()? {
        NONE => None,
        key => Some(decode_session_key(key.as_bytes()).ok()?),
    };
    ended.notified = match parts.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    parts.next().is_none().then_some(ended)
}

/// The rest of a line, which is read field by field.
struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (field, rest) = self.rest.split_once(' ')?;
        self.rest = rest;
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

    /// Reads the two fields of a remember period. Either both have a value, or none has.
    fn remember_period(&mut self) -> Option<Option<RememberPeriod>> {
        match (self.optional(read_time)?, self.optional(|seconds| seconds.parse().ok())?) {
            (Some(expires), Some(seconds)) => Some(Some(RememberPeriod::new(expires, seconds))),
            (None, None) => Some(None),
            _ => None,
        }
    }
}

/// Creates the error for a line that can't be read. The error quotes only the version.
fn unreadable(text: &str) -> Error {
    let version = text.split_once(' ').map_or("", |(version, _)| version);
    if version != VERSION && version.parse::<u8>().is_ok() {
        return Error::of_later_version("a session record", version, VERSION);
    }
    Error::corrupt(
        "the key of a session record, which contains `}:session:`, holds a value that this store \
         has not written: delete the key, and the user logs in again",
    )
}

#[cfg(test)]
mod tests {
    use tower_keep_core::{EndReason, StoreErrorKind};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const SALT: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255];

    type Change = fn(&mut SessionRecord);

    /// Returns a record without any optional field, with this change.
    fn record(change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
        let key = SessionKey::new([7; 32]);
        let mut record = SessionRecord::new(key, "42".into(), SALT, NOW, NOW.plus(604_800));
        record.details = SessionDetails::new(r#"{"method":"password"}"#);
        change(&mut record);
        record
    }

    fn line(record: &SessionRecord) -> String {
        String::from_utf8(write_record(record, 3)).unwrap()
    }

    #[track_caller]
    fn assert_is_read_back(record: &SessionRecord) {
        for epoch in [0, u64::MAX] {
            let value = write_record(record, epoch);
            let (read, created_in) = read_record(record.key, record.user.clone(), &value).unwrap();
            assert_eq!((&read, created_in), (record, epoch));
            // `Debug` does not show all fields, so the message of the assertion above may not show
            // which field differs.
            assert_eq!(read.remember, record.remember);
            assert_eq!(read.details.as_str(), record.details.as_str());
        }
    }

    #[test]
    fn a_record_is_written_as_one_line() {
        let bare = record(|_| {});
        let expected = "1 3 0 - - AAECAwQFBgcICQoLDA3-_w 1800000000 1800000000 1800000000 - - \
                        1800604800 - - {\"method\":\"password\"}";
        assert_eq!(line(&bare), expected);
        let full = record(|record| {
            record.acting_user = Some("7".into());
            record.generation = 2;
            record.rotated_at = Some(NOW.plus(1));
            record.seen_at = Some(NOW.plus(2));
            record.remember = Some(RememberPeriod::new(NOW.plus(2_592_000), 2_592_000));
            record.ended = Some(Ended::new(NOW.plus(3), EndReason::LoggedOut));
        });
        let expected = "1 3 2 1800000001 1800000002 AAECAwQFBgcICQoLDA3-_w 1800000000 1800000000 \
                        1800000000 1802592000 2592000 1800604800 1800000003,logged_out,-,0 1 \
                        7{\"method\":\"password\"}";
        assert_eq!(line(&full), expected);
    }

    #[test]
    fn each_optional_field_is_read_as_it_was_written() {
        let changes: [(&str, Change); 14] = [
            ("none", |_| {}),
            ("an acting user", |record| record.acting_user = Some("7".into())),
            ("an acting user with an empty id", |record| record.acting_user = Some("".into())),
            ("an acting user whose id looks like fields", |record| {
                record.acting_user = Some("1 - 2,é\n🦀 ".into());
            }),
            ("a long id of an acting user", |record| {
                record.acting_user = Some("佐".repeat(1_000).into());
            }),
            ("a generation", |record| record.generation = u32::MAX),
            ("a generation's beginning", |record| record.rotated_at = Some(Timestamp::MAX)),
            ("a seen mark", |record| record.seen_at = Some(Timestamp::from_secs(0))),
            ("times", |record| {
                record.session_started = NOW.plus(1);
                record.last_seen = NOW.minus(1);
            }),
            ("a remember period", |record| {
                record.remember = Some(RememberPeriod::new(NOW.plus(9), 9));
            }),
            ("a remember period of zeros", |record| {
                record.remember = Some(RememberPeriod::new(Timestamp::from_secs(0), 0));
            }),
            ("an end", |record| record.ended = Some(Ended::new(NOW, EndReason::Revoked))),
            ("an end with a successor", |record| {
                let mut ended = Ended::new(NOW, EndReason::Replaced);
                ended.successor = Some(SessionKey::new([9; 32]));
                record.ended = Some(ended);
            }),
            ("an end of a later version, of which the user was notified", |record| {
                let mut ended = Ended::new(NOW, "new_reason".parse().unwrap());
                ended.notified = true;
                record.ended = Some(ended);
            }),
        ];
        for (name, change) in changes {
            println!("{name}");
            assert_is_read_back(&record(change));
        }
        let all = record(|record| changes.iter().for_each(|(_, change)| change(record)));
        assert_is_read_back(&all);
    }

    #[test]
    fn details_are_kept_byte_for_byte() {
        let max = SessionDetails::MAX_BYTES;
        for details in [
            "{}",
            "",
            " ",
            "-",
            " - 0 - ",
            "1 0 0 - - ",
            r#"{"user_agent":"\"quoted\" \\ back\\slash","n":"\n"}"#,
            "line\nfeed\r\nand\ttab\0",
            "é 佐藤 🦀\u{301}\u{202e}",
            &"x".repeat(max),
            &"🦀".repeat(max / 4),
            &"\\\"".repeat(max / 2),
        ] {
            for acting_user in [None, Some(""), Some("7"), Some("{\"é\"} 1")] {
                assert_is_read_back(&record(|record| {
                    record.details = SessionDetails::new(details);
                    record.acting_user = acting_user.map(UserId::from);
                }));
            }
        }
        let none = record(|record| record.details = SessionDetails::default());
        assert_is_read_back(&none);
    }

    #[track_caller]
    fn assert_is_corrupt(value: &[u8]) {
        let error = read_record(SessionKey::new([7; 32]), "42".into(), value).unwrap_err();
        let error_text = format!("{error:?}");
        let line = String::from_utf8_lossy(value);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{line}");
        assert!(error_text.contains("a session record"), "{line}: {error_text}");
        let says_what_to_do =
            error_text.contains("delete the key") || error_text.contains("update");
        assert!(says_what_to_do, "{line}: {error_text}");
        assert!(!error_text.contains("secret"), "{error_text}");
    }

    #[test]
    fn an_unreadable_line_is_a_corrupt_error_that_does_not_quote_it() {
        let good = line(&record(|record| {
            record.acting_user = Some("é".into());
            record.remember = Some(RememberPeriod::new(NOW, 9));
            record.ended = Some(Ended::new(NOW, EndReason::Replay));
        }));
        let tail = " 1800604800 1800000000,replay,-,0 2 é{";
        assert!(good.contains(tail) && good.contains(" 1800000000 9 "), "{good}");
        let with = |from: &str, to: &str| good.replacen(from, to, 1);
        for damaged in [
            String::new(),
            "secret".into(),
            "1 secret".into(),
            "secret ".repeat(20),
            // The version.
            with("1 ", "2 "),
            with("1 ", "255 "),
            with("1 ", "-1 "),
            // Half a remember period.
            with(" 1800000000 9 ", " - 9 "),
            with(" 1800000000 9 ", " 1800000000 - "),
            // The end.
            with(",replay,-,0 ", ",replay,-,2 "),
            with(",replay,-,0 ", ",replay,- "),
            with(",replay,-,0 ", ",replay,-,0,0 "),
            with(",replay,-,0 ", ",replay,secret,0 "),
            with(",replay,-,0 ", ",Replay,-,0 "),
            // The length of the acting user's id: beyond the text, in the middle of a character,
            // negative, and too large for a number.
            with(" 2 é{", " 99999 é{"),
            with(" 2 é{", " 1 é{"),
            with(" 2 é{", " -2 é{"),
            with(" 2 é{", &format!(" {}0 é{{", u128::MAX)),
        ] {
            assert_is_corrupt(damaged.as_bytes());
        }
        let fields: Vec<&str> = good.splitn(15, ' ').collect();
        for index in 0..fields.len() {
            // The line is cut off before this field.
            assert_is_corrupt(fields[..index].join(" ").as_bytes());
        }
        for index in 0..14 {
            for other in ["secret", "", "4294967296000000000000", "-1", "1.5", "\u{fffd}"] {
                let mut replaced = fields.clone();
                replaced[index] = other;
                assert_is_corrupt(replaced.join(" ").as_bytes());
            }
        }
        assert_is_corrupt(&[good.as_bytes(), &[0xFF]].concat());
    }

    #[test]
    fn a_damaged_value_never_panics() {
        let good = write_record(&record(|record| record.acting_user = Some("é".into())), 3);
        for index in 0..good.len() {
            for byte in [b' ', b'-', b'9', 0, 0xC3] {
                let mut damaged = good.clone();
                damaged[index] = byte;
                let _ = read_record(SessionKey::new([7; 32]), "42".into(), &damaged);
            }
            let _ = read_record(SessionKey::new([7; 32]), "42".into(), &good[..index]);
        }
    }
}
