//! The session records of the benches.

use tower_keep_core::{
    RememberPeriod, SessionDetails, SessionKey, SessionRecord, Timestamp, UserId,
};

/// The current time in the benches.
pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The details that the layer writes at a login with Firefox.
const DETAILS: &str = r#"{"address":"192.0.2.7","method":"password","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0","v":1}"#;

/// Returns the key of the session with this number. The keys are evenly distributed, as hashes are.
#[must_use]
pub fn key(number: u64) -> SessionKey {
    // This is the algorithm SplitMix64.
    let mix = |salt: u64| {
        let mixed = (number + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).to_be_bytes()
    };
    let mut key = [0; 32];
    for (chunk, salt) in key.chunks_mut(8).zip(0_u64..) {
        chunk.copy_from_slice(&mix(salt << 40));
    }
    SessionKey::new(key)
}

/// Returns the record of a session of this user that began before [`NOW`]. The start depends on the
/// number, because users don't all log in at once.
#[must_use]
pub fn earlier_record(number: u64, user: u64) -> SessionRecord {
    let mut record = record(number, user);
    let began = NOW.minus(1 + (number % 600_000) as u32);
    (record.created, record.session_started, record.last_seen) = (began, began, began);
    record.expires = record.expires.minus(number as u32 % 86_400);
    record
}

/// Returns the record that a login of this user at [`NOW`] creates.
#[must_use]
pub fn record(number: u64, user: u64) -> SessionRecord {
    let month = 30 * 24 * 3_600;
    let (user, expires) = (UserId::from(user), NOW.plus(month));
    let mut record = SessionRecord::new(key(number), user, [7; 16], NOW, expires);
    record.remember = Some(RememberPeriod::new(expires, month));
    record.details = SessionDetails::new(DETAILS);
    record
}
