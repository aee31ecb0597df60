//! The trait of a store of session records: what a store of sessions must do.

use std::sync::Arc;

use async_trait::async_trait;

use crate::changes::{End, Rotated, Rotation, SeenMark, Touch};
use crate::error::StoreResult;
use crate::new_login::{Creation, NewLogin};
use crate::session::{SessionKey, SessionRecord};
use crate::timestamp::Timestamp;
use crate::user_id::UserId;

/// How far the clocks of servers may differ, in seconds.
///
/// A record is kept for this long after it [expires](SessionRecord::expires). A layer purges only
/// records that expired longer ago than this. A store that drops expired records by itself must
/// wait for the same time.
pub const CLOCK_SKEW: u32 = 300;

/// Keeps session records, so that a login can be ended from any device.
///
/// Every method follows these rules:
///
/// - The caller passes the current time. A store has no clock, and the clocks of two servers may
///   differ.
/// - Only [`create`](Self::create) inserts. All other methods change or remove stored records, so
///   no call brings back a session that was ended or purged.
/// - An ended session stays ended: once `ended` is set, it is never unset. If a session is ended
///   several times, the first end is kept.
/// - The changes of one call to one user's sessions are atomic: another call sees all of them or
///   none, and if the future is dropped, the store keeps all of them or none. For
///   [`mark_seen`](Self::mark_seen) and [`touch`](Self::touch), this holds only for each single
///   session.
/// - A method returns an error only if the store fails, except where its docs name another error.
///   An unknown key or user is not an error. A user id that can't be an id of this store is not an
///   error either.
/// - After a [`Timeout`](crate::StoreErrorKind::Timeout) it is not known whether the call took
///   effect. Every call except `create` can be repeated.
///
/// The testkit has a test for each of these rules.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Writes a login: inserts the record, ends the sessions that the login replaces, and enforces
    /// the limit, all in one atomic write. The current time is `record.created`.
    ///
    /// A store that can read every record while it decides, such as a map behind a lock, calls
    /// [`NewLogin::plan`], which implements all of the following, and needs no
    /// [`Epoch`](crate::Epoch).
    ///
    /// **Replaced sessions.** The call ends each session in `replacing` that has not ended, with
    /// the reason [`Replaced`](crate::EndReason::Replaced). The session gets the new key as its
    /// *successor*, and is kept until `keep_ended_until`.
    ///
    /// A session in `replacing` may already have a successor, because another login has replaced
    /// it. In this case the call follows the successors to the first session that has not ended,
    /// and ends that session as described above. In addition, the session in `replacing` gets the
    /// new key as its successor, and is kept at least until `keep_ended_until`. So if several
    /// logins send the same old cookie, even concurrently, only one of their sessions remains.
    /// Unknown keys are ignored.
    ///
    /// **The limit.** [`SessionLimit::room`](crate::SessionLimit::room) decides which of the user's
    /// live sessions end to make room; sessions that this login replaces don't count. Either the
    /// call writes nothing and returns [`Full`](Creation::Full), or it ends these sessions with the
    /// reason [`Limit`](crate::EndReason::Limit) and keeps them until `keep_ended_until`. If
    /// sessions are equally old, the call may end any of them. Concurrent logins never exceed the
    /// limit.
    ///
    /// **Replays.** If the login [notifies the user](NewLogin::notifies_user), the call returns
    /// each session of the user that ended with the reason [`Replay`](crate::EndReason::Replay) and
    /// of whose end the user was not notified yet, and marks it as
    /// [notified](crate::Ended::notified). So each of these sessions is returned once. Otherwise
    /// the call returns and marks none, and a later login returns them. One call returns at most
    /// [`MAX_PER_CALL`](crate::MAX_PER_CALL) of them, and the next login returns more.
    ///
    /// All records are returned as they were before this call.
    ///
    /// # Errors
    ///
    /// Returns [`Conflict`](crate::StoreErrorKind::Conflict) if there is a record with this key,
    /// whether it has ended or not, and even if the user is already at the limit. In this case
    /// nothing was written. Any other error means that the store failed.
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation>;

    /// Returns the record with this key, whether it has ended or not, or `Ok(None)` if there is
    /// none. A record that has expired may be missing.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown key is not an error.
    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>>;

    /// Begins the next generation of a session, by compare-and-swap. The generation says how many
    /// times the cookies of the login were replaced; see [`SessionRecord::generation`].
    ///
    /// If the record with the key `rotation.key` has the generation `rotation.from_generation` and
    /// has not ended, the call
    ///
    /// - adds 1 to `generation`,
    /// - sets `rotated_at`, `session_started` and `last_seen` to `at`, even if the stored time is
    ///   later,
    /// - sets `seen_at` to `None`,
    /// - sets `remember.expires` to the later of the stored and the given time, if the login is
    ///   remembered and a time is given,
    /// - sets `expires` to the later of the stored and the given time.
    ///
    /// Of concurrent calls with the same generation, exactly one wins. The store does not check
    /// whether the login may still be restored: the caller has checked that.
    ///
    /// Returns `Ok(None)` if there is no record with this key.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. A rotation that loses is not an error.
    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>>;

    /// Records that browsers have received the cookies of a generation.
    ///
    /// For each mark, the call sets `seen_at` to `at` if the record with the mark's key has the
    /// mark's generation, has not ended and has no `seen_at`. Repeating a mark changes nothing.
    /// Each mark is a separate change; the call as a whole need not be atomic.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. In this case any of the marks may have been
    /// written.
    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()>;

    /// Records that sessions were used.
    ///
    /// For each touch, if the record with the touch's key has not ended, the call sets
    ///
    /// - `last_seen` to the later of the stored time and `at`,
    /// - `remember.expires` to the later of the stored and the given time, if the login is
    ///   remembered and a time is given,
    /// - `expires` to the later of the stored and the given time.
    ///
    /// Repeating a touch changes nothing. Each touch is a separate change; the call as a whole need
    /// not be atomic.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. In this case any of the touches may have been
    /// written.
    async fn touch(&self, touches: &[Touch]) -> StoreResult<()>;

    /// Ends the sessions with these keys, including expired ones. Returns how many of them were
    /// [live](SessionRecord::is_live) before this call.
    ///
    /// A session counts as live if it is live at `end.at`, and counts once if its key occurs twice.
    /// The records of these sessions are kept until `end.keep_until`. Unknown keys are ignored, and
    /// sessions that have already ended stay as they are.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown key is not an error.
    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize>;

    /// Ends all of a user's sessions, or all except the one with the key `except`.
    ///
    /// The call ends the sessions that exist now, atomically. In a database the number of writes
    /// does not depend on how many sessions there are; see [`Epoch`](crate::Epoch).
    ///
    /// A session that was ended individually before stays as it is. There is one exception to the
    /// rule that the first end is kept: a session that ended with an [`Epoch`](crate::Epoch) may
    /// show the end of a later epoch.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown user is not an error.
    async fn revoke_all(
        &self,
        user: &UserId,
        except: Option<&SessionKey>,
        end: &End,
    ) -> StoreResult<()>;

    /// Returns at most `limit` of the user's [live](SessionRecord::is_live) sessions, the most
    /// recently used first. Sessions that were last used in the same second may be in any order.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown user is not an error.
    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> StoreResult<Vec<Arc<SessionRecord>>>;

    /// Removes at most `limit` records whose `expires` is not later than `before`. Returns how many
    /// it removed.
    ///
    /// It makes no difference whether the session of such a record was ended individually, was
    /// ended together with others, or expired. The call returns 0 only if there are no more such
    /// records, except those that another call is removing. The call must not delay a concurrent
    /// login by more than a few milliseconds.
    ///
    /// A store that drops expired records by itself, no earlier than [`CLOCK_SKEW`] after they
    /// expired, may always return 0.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. In this case any of the records may have been
    /// removed.
    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize>;
}
