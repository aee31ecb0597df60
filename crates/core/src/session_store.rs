//! What a store of session records must do.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Apart, EndReason, SessionKey, SessionRecord, StoreError, Timestamp, UserId, UserStore,
};

/// How far the clocks of servers may differ, in seconds. That long past its
/// [`expires`](SessionRecord::expires) a record is kept: a layer purges only what expired earlier, and a
/// store that drops records by itself waits as long.
pub const CLOCK_SKEW: u32 = 300;

/// A call that would end, or report, more sessions than this one by one does it otherwise: the work
/// of a call does not grow with how many sessions a user has.
pub const MOST_AT_ONCE: usize = 100;

/// Keeps session records, so that a login can be ended from outside its browser.
///
/// What every method keeps to:
///
/// - The caller says what time it is; a store has no clock. Two servers' clocks may differ.
/// - Only [`create`](Self::create) inserts. All others change or remove what is there, so nothing
///   brings back a session that was ended or purged.
/// - An ended session stays ended: `ended`, once set, is never unset, and of several ends the first
///   counts.
/// - What a call does to one user's sessions happens at one moment: another call sees all of it or
///   nothing, and dropping the future leaves all of it or nothing. [`seen`](Self::seen) and
///   [`touch`](Self::touch) promise that for each session only.
/// - Errors are faults alone; a key or a user that is unknown or can't be one of this store's is an
///   answer. After a [`Timeout`](crate::StoreErrorKind::Timeout) it is not known whether the call took
///   place, and every call but `create` can be repeated.
///
/// The testkit states each of these as a test.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Makes a login one write: inserts the record, ends those that it takes the place of, and
    /// keeps to the limit. The present moment is `record.created`.
    ///
    /// Each session in `replacing` that has not ended ends now for
    /// [`Replaced`](EndReason::Replaced), with the new key as its successor, and is kept until
    /// `ended_until`. One that has a successor already stands for that one, and so on: of two
    /// logins at once in one browser, one remains. From then on it has the new key as its successor,
    /// and is kept at least until `ended_until`; so however many logins show the same old cookie, one
    /// session remains. Unknown keys count for nothing.
    ///
    /// With a limit, [`SessionLimit::room`] decides over the user's live sessions, those that are being
    /// replaced left out. Either the call writes nothing and returns [`Full`](Creation::Full), or the
    /// sessions that have to make room end now for [`Limit`](EndReason::Limit) and are kept until
    /// `ended_until`. Of equally old ones any may end. Concurrent logins never exceed the limit.
    ///
    /// Returns, and marks as [told](crate::Ended::told), the user's sessions that ended for
    /// [`Replay`](EndReason::Replay) and were not told yet; at most [`MOST_AT_ONCE`] of them, and the
    /// next login returns more. Each is returned once. All records are returned as they were before
    /// this call.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::StoreErrorKind::Conflict) if the key is taken, also where there is no
    /// room, and nothing was written; otherwise faults.
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation, StoreError>;

    /// The record with this key, ended or not; an expired one may be missing.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>, StoreError>;

    /// Begins the next generation: compare and swap.
    ///
    /// Where the record has this key and generation and has not ended: generation + 1; `rotated_at`,
    /// `session_started` and `last_seen` become `at`, even if that is earlier; `seen_at` becomes none, `remember_expires` the
    /// later of its own and the given one (if the login is remembered at all), `expires` the later of
    /// both. Of concurrent calls with one generation exactly one wins. Whether the login may still be
    /// brought back, the caller has settled.
    ///
    /// `Ok(None)` if there is no such record.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>, StoreError>;

    /// Notes that browsers hold a generation: where key and generation fit, the session has not
    /// ended and `seen_at` is none, it becomes `at`. Repeating it changes nothing.
    ///
    /// Each of the marks is one such change; they need not happen at one moment.
    ///
    /// # Errors
    ///
    /// Faults alone; any of the marks may have been made.
    async fn seen(&self, marks: &[Seen]) -> Result<(), StoreError>;

    /// Notes that sessions were used: where the key fits and the session has not ended, `last_seen`
    /// becomes the later of its own and `at`, and so do `expires` and, if the login is remembered
    /// and one is given, `remember_expires`. Repeating it changes nothing.
    ///
    /// Each of the touches is one such change; they need not happen at one moment.
    ///
    /// # Errors
    ///
    /// Faults alone; any of the touches may have been made.
    async fn touch(&self, touches: &[Touch]) -> Result<(), StoreError>;

    /// Ends the sessions with these keys, expired ones too, and answers how many of them
    /// [lived](SessionRecord::is_live) until now. Each stays, as ended, until `end.keep_until`. Unknown
    /// and ended ones are left alone.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize, StoreError>;

    /// Ends all of a user's sessions, or all but one: those that are there now, however many, at one
    /// moment and by a number of writes that does not depend on how many there are. See
    /// [`Epoch`](crate::Epoch).
    ///
    /// A session that ended by itself before stays as it is. Of those that ended together, and are
    /// ended together once more, the later end may show.
    ///
    /// # Errors
    ///
    /// Returns an error only if the store fails. An unknown user is not an error.
    async fn revoke_all(
        &self,
        user: &UserId,
        but: Option<&SessionKey>,
        end: &End,
    ) -> Result<(), StoreError>;

    /// The user's [live](SessionRecord::is_live) sessions, the last used first, and no more than
    /// `most`. Those of one second may stand in any order.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Arc<SessionRecord>>, StoreError>;

    /// Removes records whose `expires` is not later than `before`, ended or not, those too that ended
    /// together, and no more than `most`; returns how many. It returns 0 only when there are none left
    /// that nobody else is removing. It never holds up a login for longer than a few milliseconds.
    ///
    /// A store that drops what has expired by itself, [`CLOCK_SKEW`] later at the earliest, may always
    /// return 0.
    ///
    /// # Errors
    ///
    /// Faults alone; any of the batch may have been removed.
    async fn purge(&self, before: Timestamp, most: usize) -> Result<usize, StoreError>;
}

/// Holds users and session records together, so that an authenticated request is one call.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` keeps no session records",
    note = "keep them in another store: `with_sessions_in(records)`, or `Apart(users, records)`"
)]
pub trait LoginStore: UserStore + SessionStore {
    /// The record with this key, and the user it names as stored now; `None` if there is no such
    /// record.
    ///
    /// `likely` is the user whom the record most probably names, so that both can be fetched at
    /// once. Only the record says whose login it is: where they differ, `likely` counts for nothing.
    ///
    /// # Errors
    ///
    /// Faults alone.
    async fn load_login(
        &self,
        key: &SessionKey,
        likely: Option<&UserId>,
    ) -> Result<Option<StoredLogin<Self::User>>, StoreError>;
}

/// A session record and its user.
#[derive(Debug)]
pub struct StoredLogin<U> {
    /// The record.
    pub record: Arc<SessionRecord>,
    /// The user whom the record names; `None` if there is no such user any more.
    pub user: Option<Arc<U>>,
}

impl<U> Clone for StoredLogin<U> {
    fn clone(&self) -> Self {
        Self { record: Arc::clone(&self.record), user: self.user.clone() }
    }
}

/// A login about to be written; see [`SessionStore::create`].
#[derive(Clone, Debug)]
pub struct NewLogin<'a> {
    /// The new record, which has not ended.
    pub record: &'a SessionRecord,
    /// The sessions of the same browser that it takes the place of: one, or two where the session
    /// cookie and the remember cookie were of different logins.
    pub replacing: &'a [SessionKey],
    /// How long the sessions that this login ends are kept.
    pub ended_until: Timestamp,
    /// How many sessions a user may have.
    pub limit: Option<SessionLimit>,
}

/// How many live sessions a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimit {
    /// That many; at least one.
    pub most: usize,
    /// What happens at one more.
    pub when_full: WhenFull,
}

/// What happens when a user with as many sessions as allowed logs in once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// The login is refused, unless a session has to make room that was never used since its login:
    /// its response may have been lost.
    Refuse,
    /// The oldest session ends.
    EndOldest,
}

/// What became of a new login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It is written. The records are as they were before.
    Created {
        /// The sessions that ended for the limit. If they are more than [`MOST_AT_ONCE`], at least so
        /// many of them.
        ended: Vec<Arc<SessionRecord>>,
        /// The user's sessions that ended for a replay, of which they don't know yet.
        replays: Vec<Arc<SessionRecord>>,
    },
    /// Nothing was written: the user has as many sessions as allowed.
    Full,
}

/// The next generation of a session; see [`SessionStore::rotate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Which session.
    pub key: SessionKey,
    /// The generation that it must have now.
    pub from: u32,
    /// When.
    pub at: Timestamp,
    /// Until when the remember cookie is to count, if it is to count longer.
    pub remember_expires: Option<Timestamp>,
    /// Until when the session can live on.
    pub expires: Timestamp,
}

/// What became of a rotation. Either way the record is as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The next generation has begun, and this call began it.
    Won(Arc<SessionRecord>),
    /// Nothing was changed: another was faster, or the session has ended.
    Lost(Arc<SessionRecord>),
}

/// A browser holds this generation; see [`SessionStore::seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which session.
    pub key: SessionKey,
    /// Which generation.
    pub generation: u32,
    /// When it was seen.
    pub at: Timestamp,
}

/// A session was used; see [`SessionStore::touch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Which session.
    pub key: SessionKey,
    /// When it was used.
    pub at: Timestamp,
    /// Until when the remember cookie is to count, if it is to count longer.
    pub remember_expires: Option<Timestamp>,
    /// Until when the session can live on.
    pub expires: Timestamp,
}

/// How sessions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// How long the record is kept as ended, so that late requests are answered rightly: it becomes
    /// the record's `expires`.
    pub keep_until: Timestamp,
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

            async fn seen(&self, marks: &[Seen]) -> Result<(), StoreError> {
                forward_sessions!($inner self).seen(marks).await
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
                but: Option<&SessionKey>,
                end: &End,
            ) -> Result<(), StoreError> {
                forward_sessions!($inner self).revoke_all(user, but, end).await
            }

            async fn list(
                &self,
                user: &UserId,
                now: Timestamp,
                most: usize,
            ) -> Result<Vec<Arc<SessionRecord>>, StoreError> {
                forward_sessions!($inner self).list(user, now, most).await
            }

            async fn purge(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
                forward_sessions!($inner self).purge(before, most).await
            }
        }
    )*};
    (pointer $self:ident) => { (**$self) };
    (second $self:ident) => { $self.1 };
}

forward_sessions! {
    [S: SessionStore + ?Sized] Arc<S>: pointer;
    [S: SessionStore + ?Sized] Box<S>: pointer;
    [A: Send + Sync, B: SessionStore] Apart<A, B>: second;
}

macro_rules! forward_logins {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: LoginStore + ?Sized> LoginStore for $pointer<S> {
            async fn load_login(
                &self,
                key: &SessionKey,
                likely: Option<&UserId>,
            ) -> Result<Option<StoredLogin<S::User>>, StoreError> {
                (**self).load_login(key, likely).await
            }
        }
    )*};
}

forward_logins!(Arc Box);
