//! The traits that a store of session records implements.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    EndReason, SessionKey, SessionRecord, SplitStore, StoreError, Timestamp, UserId, UserStore,
};

/// How far the clocks of servers may differ, in seconds.
///
/// A record is kept for this long after it [expires](SessionRecord::expires). A layer purges only
/// records that expired longer ago than this. A store that drops expired records by itself must
/// wait for the same time.
pub const CLOCK_SKEW: u32 = 300;

/// [`create`](SessionStore::create) ends at most this many of the user's sessions one by one, and
/// returns at most this many replays.
///
/// If a login has to end more sessions, it ends them together. If there are more replays, the next
/// login returns them. So the work of a call does not grow with the number of sessions.
pub const MAX_PER_CALL: usize = 100;

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
    /// the reason [`Replaced`](EndReason::Replaced). The session gets the new key as its
    /// *successor*, and is kept until `keep_ended_until`.
    ///
    /// A session in `replacing` may already have a successor, because another login has replaced
    /// it. In this case the call follows the successors to the first session that has not ended,
    /// and ends that session as described above. In addition, the session in `replacing` gets the
    /// new key as its successor, and is kept at least until `keep_ended_until`. So if several
    /// logins send the same old cookie, even concurrently, only one of their sessions remains.
    /// Unknown keys are ignored.
    ///
    /// **The limit.** [`SessionLimit::room`] decides which of the user's live sessions end to make
    /// room; sessions that this login replaces don't count. Either the call writes nothing and
    /// returns [`Full`](Creation::Full), or it ends these sessions with the reason
    /// [`Limit`](EndReason::Limit) and keeps them until `keep_ended_until`. If sessions are equally
    /// old, the call may end any of them. Concurrent logins never exceed the limit.
    ///
    /// **Replays.** If a session of the user ended with the reason [`Replay`](EndReason::Replay),
    /// and the user was not notified of the end yet, the call returns the session and marks it as
    /// [notified](crate::Ended::notified). So each of these sessions is returned once. One call
    /// returns at most [`MAX_PER_CALL`] of them, and the next login returns more.
    ///
    /// All records are returned as they were before this call.
    ///
    /// # Errors
    ///
    /// Returns [`Conflict`](crate::StoreErrorKind::Conflict) if there is a record with this key,
    /// whether it has ended or not, and even if the user is already at the limit. In this case
    /// nothing was written. Any other error means that the store failed.
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError>;

    /// Returns the record with this key, whether it has ended or not, or `Ok(None)` if there is
    /// none. A record that has expired may be missing.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown key is not an error.
    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError>;

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
    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError>;

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
    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError>;

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
    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError>;

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
    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError>;

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
    ) -> Result<(), StoreError>;

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
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError>;

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
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
}

/// Keeps users and session records together, so that an authenticated request needs only one call.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` keeps no session records",
    note = "keep them in another store: `with_sessions_in(records)`, or `SplitStore(users, records)`"
)]
pub trait LoginStore: UserStore + SessionStore {
    /// Returns the record with this key, and the user whom the record names, both as stored now.
    /// Returns `Ok(None)` if there is no such record.
    ///
    /// `user_hint` is the id that the record most probably names. With it, a store can load the
    /// record and the user concurrently. If the record names another user, the call ignores the
    /// hint and returns the user whom the record names.
    ///
    /// The provided method loads the record first, and then its user: the two need not be read at
    /// the same moment. A store that can load both in one round trip implements this method itself.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown key or user is not an error.
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<Self::User>>, StoreError> {
        let _ = user_hint;
        let Some(record) = self.load(key).await? else { return Ok(None) };
        let user = self.by_id(&record.user).await?;
        Ok(Some(StoredLogin::new(record, user)))
    }
}

/// A session record and its user.
#[derive(Debug)]
#[non_exhaustive]
pub struct StoredLogin<U> {
    /// The record.
    pub record: Arc<SessionRecord>,
    /// The user whom the record names; `None` if that user no longer exists.
    pub user: Option<Arc<U>>,
}

impl<U> StoredLogin<U> {
    /// Creates the result of [`load_login`](LoginStore::load_login).
    pub const fn new(record: Arc<SessionRecord>, user: Option<Arc<U>>) -> Self {
        Self { record, user }
    }
}

impl<U> Clone for StoredLogin<U> {
    fn clone(&self) -> Self {
        Self { record: Arc::clone(&self.record), user: self.user.clone() }
    }
}

/// A new login to write; see [`SessionStore::create`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewLogin<'a> {
    /// The new record, which has not ended.
    pub record: &'a SessionRecord,
    /// The sessions of the same browser that this login replaces: usually one, or two if the
    /// session cookie and the remember cookie belonged to different logins.
    pub replacing: &'a [SessionKey],
    /// Until when the records of the sessions that this login ends are kept.
    pub keep_ended_until: Timestamp,
    /// How many live sessions the user may have; `None` for any number.
    pub limit: Option<SessionLimit>,
}

impl<'a> NewLogin<'a> {
    /// Creates a login that replaces no session and has no limit.
    pub const fn new(record: &'a SessionRecord, keep_ended_until: Timestamp) -> Self {
        Self { record, replacing: &[], keep_ended_until, limit: None }
    }
}

/// The maximum number of a user's live sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionLimit {
    /// The maximum; at least one.
    pub max: usize,
    /// What happens to a login when the user has this many sessions already.
    pub when_full: WhenFull,
}

impl SessionLimit {
    /// Creates a limit of `max` live sessions.
    pub const fn new(max: usize, when_full: WhenFull) -> Self {
        Self { max, when_full }
    }
}

/// What happens to a login when the user has as many sessions as the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// Sessions that no request has used after their login end to make room, because the response
    /// to their login may have been lost. If this does not make enough room, the login is refused.
    Refuse,
    /// The oldest session ends.
    EndOldest,
}

/// The result of [`SessionStore::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The login was written. The records are as they were before the call. A store creates this
    /// variant with [`created`](Self::created).
    #[non_exhaustive]
    Created {
        /// The sessions that ended because of the limit: all of them, or at least [`MAX_PER_CALL`]
        /// if there are more.
        ended: Vec<Arc<SessionRecord>>,
        /// The user's sessions that ended because of a replay, and of whose end the user was not
        /// notified before: all of them, or [`MAX_PER_CALL`] if there are more.
        replays: Vec<Arc<SessionRecord>>,
    },
    /// Nothing was written: the user is at the limit.
    Full,
}

impl Creation {
    /// Creates the result of a login that was written; see [`Created`](Self::Created) for the two
    /// lists.
    pub const fn created(ended: Vec<Arc<SessionRecord>>, replays: Vec<Arc<SessionRecord>>) -> Self {
        Self::Created { ended, replays }
    }
}

/// A rotation, which begins the next generation of a session; see [`SessionStore::rotate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// The key of the session.
    pub key: SessionKey,
    /// The generation that the record must have before the call.
    pub from_generation: u32,
    /// When the session is rotated.
    pub at: Timestamp,
    /// The new expiry of the remember cookie; `None` leaves the stored expiry as it is.
    pub remember_expires: Option<Timestamp>,
    /// When the session expires if no later call extends it.
    pub expires: Timestamp,
}

impl Rotation {
    /// Creates a rotation that leaves the expiry of the remember cookie as it is.
    pub const fn new(
        key: SessionKey,
        from_generation: u32,
        at: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self { key, from_generation, at, remember_expires: None, expires }
    }
}

/// The result of [`SessionStore::rotate`]. Both variants hold the record as it is after the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// This call began the next generation.
    Won(Arc<SessionRecord>),
    /// Nothing was changed: the record has another generation, for example because another call
    /// was faster, or the session has ended.
    Lost(Arc<SessionRecord>),
}

/// A note that a browser has received the cookies of a generation; see [`SessionStore::mark_seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeenMark {
    /// The key of the session.
    pub key: SessionKey,
    /// The generation of the cookies that the browser holds.
    pub generation: u32,
    /// When a request showed that the browser holds these cookies.
    pub at: Timestamp,
}

impl SeenMark {
    /// Creates a mark.
    pub const fn new(key: SessionKey, generation: u32, at: Timestamp) -> Self {
        Self { key, generation, at }
    }
}

/// Records that a session was used; see [`SessionStore::touch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Touch {
    /// The key of the session.
    pub key: SessionKey,
    /// When the session was used.
    pub at: Timestamp,
    /// The new expiry of the remember cookie; `None` leaves the stored expiry as it is.
    pub remember_expires: Option<Timestamp>,
    /// When the session expires if no later call extends it.
    pub expires: Timestamp,
}

impl Touch {
    /// Creates a touch that leaves the expiry of the remember cookie as it is.
    pub const fn new(key: SessionKey, at: Timestamp, expires: Timestamp) -> Self {
        Self { key, at, remember_expires: None, expires }
    }
}

/// When and why sessions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// When the sessions end.
    pub at: Timestamp,
    /// Why the sessions end.
    pub reason: EndReason,
    /// Until when the records of the ended sessions are kept, so that late requests get the right
    /// response. This time becomes the `expires` of the records.
    pub keep_until: Timestamp,
}

impl End {
    /// Creates an end.
    pub const fn new(at: Timestamp, reason: EndReason, keep_until: Timestamp) -> Self {
        Self { at, reason, keep_until }
    }
}

/// Returns at most `limit` of these records: only [live](SessionRecord::is_live) ones, in the order
/// of [`list`](SessionStore::list).
pub fn most_recently_used<R: Borrow<SessionRecord>>(
    mut records: Vec<R>,
    now: Timestamp,
    limit: usize,
) -> Vec<R> {
    records.retain(|record| record.borrow().is_live(now));
    records.sort_by_key(|record| Reverse((record.borrow().last_seen, record.borrow().created)));
    records.truncate(limit);
    records
}

macro_rules! forward_sessions {
    ($([$($parameters:tt)*] $store:ty: $inner:tt;)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$($parameters)*> SessionStore for $store {
            async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError> {
                forward_sessions!($inner self).create(login).await
            }

            async fn load(
                &self,
                key: &SessionKey,
            ) -> Result<Option<Arc<SessionRecord>>, StoreError> {
                forward_sessions!($inner self).load(key).await
            }

            async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError> {
                forward_sessions!($inner self).rotate(rotation).await
            }

            async fn mark_seen(&self, marks: &[SeenMark]) -> Result<(), StoreError> {
                forward_sessions!($inner self).mark_seen(marks).await
            }

            async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError> {
                forward_sessions!($inner self).touch(touches).await
            }

            async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError> {
                forward_sessions!($inner self).revoke(keys, end).await
            }

            async fn revoke_all(
                &self,
                user: &UserId,
                except: Option<&SessionKey>,
                end: &End,
            ) -> Result<(), StoreError> {
                forward_sessions!($inner self).revoke_all(user, except, end).await
            }

            async fn list(
                &self,
                user: &UserId,
                now: Timestamp,
                limit: usize,
            ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
                forward_sessions!($inner self).list(user, now, limit).await
            }

            async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
                forward_sessions!($inner self).purge(before, limit).await
            }
        }
    )*};
    (pointer $self:ident) => { (**$self) };
    (second $self:ident) => { $self.1 };
}

forward_sessions! {
    [S: SessionStore + ?Sized] Arc<S>: pointer;
    [S: SessionStore + ?Sized] Box<S>: pointer;
    [A: Send + Sync, B: SessionStore] SplitStore<A, B>: second;
}

macro_rules! forward_logins {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: LoginStore + ?Sized> LoginStore for $pointer<S> {
            async fn load_login(
                &self,
                key: &SessionKey,
                user_hint: Option<&UserId>,
            ) -> Result<Option<StoredLogin<S::User>>, StoreError> {
                (**self).load_login(key, user_hint).await
            }
        }
    )*};
}

forward_logins!(Arc Box);
