//! A session record as a value: JSON, so that redis-cli shows it.
//!
//! ```json
//! {"v":1,"salt":"AAECAwQFBgcICQoLDA0ODw","created":1800000000,"expires":1800604800,"method":"password"}
//! ```
//!
//! What is left out has its usual value. Key and user are in the value's name.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tower_keep_core::{EndReason, Ended, SessionKey, SessionRecord, Timestamp, UserId};

use crate::error::Fault;
use crate::keys::{member, read_member};

/// Which way of writing this is.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    v: u8,
    #[serde(default, skip_serializing_if = "is_zero")]
    generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotated: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<u32>,
    #[serde(borrow)]
    salt: Cow<'a, str>,
    created: u32,
    /// If later than `created`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remembered_until: Option<u32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    remember_seconds: u32,
    expires: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    user_agent: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    method: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ended: Option<WrittenEnd<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WrittenEnd<'a> {
    at: u32,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    told: bool,
}

#[derive(Deserialize)]
struct Version {
    v: u8,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The value of a record.
pub(crate) fn write(record: &SessionRecord) -> Vec<u8> {
    let secs = |time: Option<Timestamp>| time.map(Timestamp::as_secs);
    let unless_created = |time: Timestamp| (time != record.created).then_some(time.as_secs());
    let ended = record.ended.as_ref().map(|ended| WrittenEnd {
        at: ended.at.as_secs(),
        reason: ended.reason.as_str().into(),
        successor: ended.successor.as_ref().map(member),
        told: ended.told,
    });
    let written = Written {
        v: VERSION,
        generation: record.generation,
        rotated: secs(record.rotated_at),
        seen: secs(record.seen_at),
        salt: URL_SAFE_NO_PAD.encode(record.salt).into(),
        created: record.created.as_secs(),
        started: unless_created(record.session_started),
        used: unless_created(record.last_seen),
        remembered_until: secs(record.remember_expires),
        remember_seconds: record.remember_seconds,
        expires: record.expires.as_secs(),
        address: record.address,
        user_agent: (&*record.user_agent).into(),
        method: (&*record.method).into(),
        ended,
    };
    // Numbers and texts: nothing that JSON has no form for.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// The record of a value.
pub(crate) fn read(key: SessionKey, user: UserId, value: &[u8]) -> Result<SessionRecord, Fault> {
    let Ok(written) = serde_json::from_slice::<Written<'_>>(value) else {
        return Err(unreadable(value));
    };
    if written.v != VERSION {
        return Err(unreadable(value));
    }
    let time = Timestamp::from_secs;
    let salt = URL_SAFE_NO_PAD.decode(&*written.salt).ok().and_then(|salt| salt.try_into().ok());
    let created = time(written.created);
    Ok(SessionRecord {
        key,
        user,
        generation: written.generation,
        rotated_at: written.rotated.map(time),
        seen_at: written.seen.map(time),
        salt: salt.ok_or_else(|| unreadable(value))?,
        created,
        session_started: written.started.map_or(created, time),
        last_seen: written.used.map_or(created, time),
        remember_expires: written.remembered_until.map(time),
        remember_seconds: written.remember_seconds,
        expires: time(written.expires),
        address: written.address,
        user_agent: written.user_agent.into(),
        method: written.method.into(),
        ended: written.ended.map(|ended| read_end(&ended, value)).transpose()?,
    })
}

fn read_end(ended: &WrittenEnd<'_>, value: &[u8]) -> Result<Ended, Fault> {
    Ok(Ended {
        at: Timestamp::from_secs(ended.at),
        reason: EndReason::from_word(&ended.reason).ok_or_else(|| unreadable(value))?,
        successor: ended.successor.as_deref().map(|key| read_member(key.as_bytes())).transpose()?,
        told: ended.told,
    })
}

/// Quotes nothing of it.
fn unreadable(value: &[u8]) -> Fault {
    match serde_json::from_slice::<Version>(value) {
        Ok(Version { v }) if v != VERSION => Fault::corrupt(format!(
            "a session record is of version {v}, and this release reads version {VERSION}: it was \
             written by a later one"
        )),
        _ => Fault::corrupt("a session record is not what this store has written"),
    }
}

#[cfg(test)]
mod tests {
    use tower_keep_testkit::contract::sessions::new_record;

    use super::*;

    fn read_back(record: &SessionRecord) -> SessionRecord {
        read(record.key, record.user.clone(), &write(record)).unwrap()
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
            ended: Some(Ended {
                at: plain.created,
                reason: EndReason::Replaced,
                successor: Some(SessionKey::new([9; 32])),
                told: true,
            }),
            ..plain.clone()
        };
        let bare = SessionRecord {
            remember_expires: None,
            remember_seconds: 0,
            address: None,
            user_agent: "".into(),
            method: "".into(),
            ..plain.clone()
        };
        for record in [plain, full, bare] {
            assert_eq!(read_back(&record), record);
        }
    }

    #[test]
    fn what_cannot_be_read_is_corrupt_and_not_quoted() {
        let record = new_record(&"42".into());
        let good = String::from_utf8(write(&record)).unwrap();
        for bad in [
            String::new(),
            "secret".to_owned(),
            "{}".to_owned(),
            good.replace("\"v\":1", "\"v\":2"),
            good.replace("\"created\":", "\"created\":-"),
            good.replace("\"salt\":\"", "\"salt\":\"secret"),
            good[..good.len() - 1].to_owned(),
        ] {
            let fault = read(record.key, record.user.clone(), bad.as_bytes()).unwrap_err();
            assert_eq!(fault.kind(), tower_keep_core::StoreErrorKind::Corrupt, "{bad}");
            assert!(!format!("{fault:?}").contains("secret"), "{fault:?}");
        }
    }
}
