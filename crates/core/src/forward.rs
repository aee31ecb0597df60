//! Stores that pass calls on to other stores: `Arc`, `Box`, and the two parts of a [`SplitStore`].
//! Each of them passes on every method, so that a provided method never hides the store's own.

use std::sync::Arc;

use async_trait::async_trait;

use crate::changes::{End, Rotated, Rotation, SeenMark, Touch};
use crate::counter::{CounterKey, CounterUse, TakenUse, Taking};
use crate::counter_store::CounterStore;
use crate::error::StoreResult;
use crate::login_store::{LoginStore, StoredLogin};
use crate::modify::{ChangeUser, Modified};
use crate::new_login::{Creation, NewLogin};
use crate::session::{SessionKey, SessionRecord};
use crate::session_store::SessionStore;
use crate::split_store::SplitStore;
use crate::timestamp::Timestamp;
use crate::user_id::UserId;
use crate::user_store::{UserDirectory, UserLookup, UserStore};

/// Expands to the store inside a store.
macro_rules! inner {
    (pointer $self:ident) => {
        (**$self)
    };
    (first $self:ident) => {
        $self.0
    };
    (second $self:ident) => {
        $self.1
    };
}

/// Passes the calls about users on to the store of type `$users` inside.
macro_rules! forward_users {
    ($(
        [$users:ident $(, $other:ident)?] $store:ty: $inner:ident, where [$($bounds:tt)+];
    )*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$users: UserStore $(, $other)?> UserStore for $store
        where
            $($bounds)+
        {
            type User = $users::User;

            async fn by_id(&self, id: &UserId) -> StoreResult<Option<Arc<$users::User>>> {
                inner!($inner self).by_id(id).await
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$users: UserLookup $(, $other)?> UserLookup for $store
        where
            $($bounds)+
        {
            async fn by_login_name(
                &self,
                login_name: &str,
            ) -> StoreResult<Option<Arc<$users::User>>> {
                inner!($inner self).by_login_name(login_name).await
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$users: UserDirectory $(, $other)?> UserDirectory for $store
        where
            $($bounds)+
        {
            async fn by_ids(&self, ids: &[UserId]) -> StoreResult<Vec<Option<Arc<$users::User>>>> {
                inner!($inner self).by_ids(ids).await
            }

            async fn insert(&self, user: &$users::User) -> StoreResult<()> {
                inner!($inner self).insert(user).await
            }

            async fn modify(
                &self,
                id: &UserId,
                change: &mut ChangeUser<'_, $users::User>,
            ) -> StoreResult<Modified<$users::User>> {
                inner!($inner self).modify(id, change).await
            }

            async fn delete(&self, id: &UserId) -> StoreResult<bool> {
                inner!($inner self).delete(id).await
            }
        }
    )*};
}

forward_users! {
    [S] Arc<S>: pointer, where [S: ?Sized];
    [S] Box<S>: pointer, where [S: ?Sized];
    [A, B] SplitStore<A, B>: first, where [B: SessionStore];
}

/// Passes the calls about sessions on to the store of type `$sessions` inside.
macro_rules! forward_sessions {
    ($(
        [$sessions:ident $(, $other:ident)?] $store:ty: $inner:ident, where [$($bounds:tt)+];
    )*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$sessions: SessionStore $(, $other)?> SessionStore for $store
        where
            $($bounds)+
        {
            async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
                inner!($inner self).create(login).await
            }

            async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
                inner!($inner self).load(key).await
            }

            async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
                inner!($inner self).rotate(rotation).await
            }

            async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
                inner!($inner self).mark_seen(marks).await
            }

            async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
                inner!($inner self).touch(touches).await
            }

            async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
                inner!($inner self).revoke(keys, end).await
            }

            async fn revoke_all(
                &self,
                user: &UserId,
                except: Option<&SessionKey>,
                end: &End,
            ) -> StoreResult<()> {
                inner!($inner self).revoke_all(user, except, end).await
            }

            async fn list(
                &self,
                user: &UserId,
                now: Timestamp,
                limit: usize,
            ) -> StoreResult<Vec<Arc<SessionRecord>>> {
                inner!($inner self).list(user, now, limit).await
            }

            async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
                inner!($inner self).purge(before, limit).await
            }
        }
    )*};
}

forward_sessions! {
    [S] Arc<S>: pointer, where [S: ?Sized];
    [S] Box<S>: pointer, where [S: ?Sized];
    [B, A] SplitStore<A, B>: second, where [A: Send + Sync];
}

/// Passes `load_login` on to the store behind a pointer. A [`SplitStore`] implements it itself.
macro_rules! forward_logins {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: LoginStore + ?Sized> LoginStore for $pointer<S> {
            async fn load_login(
                &self,
                key: &SessionKey,
                user_hint: Option<&UserId>,
            ) -> StoreResult<Option<StoredLogin<S::User>>> {
                inner!(pointer self).load_login(key, user_hint).await
            }
        }
    )*};
}

forward_logins!(Arc Box);

/// Passes the calls about counters on to the store of type `$counters` inside.
macro_rules! forward_counters {
    ($(
        [$counters:ident $(, $other:ident)?] $store:ty: $inner:ident, where [$($bounds:tt)+];
    )*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$counters: CounterStore $(, $other)?> CounterStore for $store
        where
            $($bounds)+
        {
            async fn take(&self, uses: &[CounterUse], now: Timestamp) -> StoreResult<Taking> {
                inner!($inner self).take(uses, now).await
            }

            async fn give_back(&self, taken: &[TakenUse]) -> StoreResult<()> {
                inner!($inner self).give_back(taken).await
            }

            async fn reset_counters(&self, keys: &[CounterKey]) -> StoreResult<()> {
                inner!($inner self).reset_counters(keys).await
            }

            async fn purge_counters(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
                inner!($inner self).purge_counters(before, limit).await
            }
        }
    )*};
}

forward_counters! {
    [S] Arc<S>: pointer, where [S: ?Sized];
    [S] Box<S>: pointer, where [S: ?Sized];
    [B, A] SplitStore<A, B>: second, where [A: Send + Sync];
}
