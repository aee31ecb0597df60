//! Every clause of the contracts fails on a store that breaks the clause.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::yield_now;
use tower_keep_core::{
    Account, ChangeUser, Creation, End, EndReason, Ended, LoginStore, Modified, NewLogin,
    RememberPeriod, Rotated, Rotation, SeenMark, SessionDetails, SessionKey, SessionLimit,
    SessionRecord, SessionStore, StoreError, StoreErrorKind, StoredLogin, Timestamp, Touch,
    UserDirectory, UserId, UserLookup, UserStore, WhenFull, async_trait,
};
use tower_keep_memory::MemoryStore;
use tower_keep_testkit::contract::users::replace;
use tower_keep_testkit::contract::{logins, sessions, users};

type Result<T> = std::result::Result<T, StoreError>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clause_fails_on_a_store_that_breaks_the_clause() {
    // Each clause is expected to panic. Without a hook, the messages would fill the output.
    std::panic::set_hook(Box::new(|_| {}));
    let mut passed: Vec<&&str> = Vec::new();
    for clause in users::CLAUSES {
        let run = tokio::spawn(users::run(clause, BrokenStore::that_breaks(clause)));
        passed.extend(run.await.is_ok().then_some(clause));
    }
    for clause in sessions::CLAUSES {
        let run = tokio::spawn(sessions::run(clause, BrokenStore::that_breaks(clause)));
        passed.extend(run.await.is_ok().then_some(clause));
    }
    for clause in logins::CLAUSES {
        let run = tokio::spawn(logins::run(clause, BrokenStore::that_breaks(clause)));
        passed.extend(run.await.is_ok().then_some(clause));
    }
    let _ = std::panic::take_hook();
    assert_eq!(passed, [] as [&&str; 0], "these clauses pass on stores that should break them");
}

/// A memory store that breaks a clause on purpose. As a side effect, it may break other clauses
/// too.
struct BrokenStore {
    inner: MemoryStore<Account>,
    /// The name of the clause to break.
    clause: &'static str,
    /// Records that `load` returns in place of the stored records.
    altered_records: Mutex<HashMap<SessionKey, SessionRecord>>,
    /// Users as they were when they were inserted or first loaded. To break some clauses, calls use
    /// these users in place of the stored users.
    outdated_users: Mutex<HashMap<UserId, Arc<Account>>>,
    /// How often `create` was called. Only the clause that needs this number counts the calls.
    create_calls: AtomicUsize,
}

impl BrokenStore {
    fn that_breaks(clause: &'static str) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            clause,
            altered_records: Mutex::default(),
            outdated_users: Mutex::default(),
            create_calls: AtomicUsize::new(0),
        })
    }

    fn breaks(&self, clause: &str) -> bool {
        self.clause == clause
    }

    /// Makes `load` return this record with a change, while the stored record stays as it is.
    async fn alter(&self, key: &SessionKey, change: impl FnOnce(&mut SessionRecord)) {
        if let Ok(Some(before)) = self.load(key).await {
            let mut record = SessionRecord::clone(&before);
            change(&mut record);
            if record == *before {
                return;
            }
            self.altered_records
                .lock()
                .expect("nothing panics while this lock is held")
                .insert(*key, record);
        }
    }
}

fn error() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "broken")
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

#[async_trait]
impl UserStore for BrokenStore {
    type User = Account;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<Account>>> {
        if self.breaks("unknown_and_unusual_ids_and_names_find_no_user") && has_nul(id.as_str()) {
            return Err(error());
        }
        let found = self.inner.by_id(id).await?;
        if self.breaks("by_id_returns_the_user_as_stored") {
            return Ok(found.map(|account| Arc::new(Account::clone(&account).with_active(true))));
        }
        Ok(found)
    }
}

#[async_trait]
impl UserLookup for BrokenStore {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<Account>>> {
        let found = self.inner.by_login_name(login_name).await?;
        if found.is_none() && self.breaks("by_login_name_compares_names_byte_for_byte") {
            return self.inner.by_login_name(login_name.trim()).await;
        }
        Ok(found)
    }
}

#[async_trait]
impl UserDirectory for BrokenStore {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Account>>>> {
        let mut found = self.inner.by_ids(ids).await?;
        if self.breaks("by_ids_returns_one_entry_for_each_id_in_order") {
            found.sort_by_key(|account| account.as_ref().map(|account| account.id().clone()));
        }
        Ok(found)
    }

    async fn insert(&self, user: &Account) -> Result<()> {
        match self.clause {
            "users_with_unusual_ids_or_names_are_stored_as_given_or_rejected"
                if has_nul(user.login_name()) =>
            {
                return Ok(());
            }
            "insert_with_a_taken_id_or_name_conflicts_and_writes_nothing" => {
                self.inner.delete(user.id()).await?;
            }
            "insert_if_absent_can_be_repeated" => {
                self.inner.delete(user.id()).await?;
            }
            "set_password_writes_only_if_the_seen_security_stamp_is_still_stored" => {
                let mut outdated_users =
                    self.outdated_users.lock().expect("nothing panics while this lock is held");
                outdated_users.insert(user.id().clone(), Arc::new(user.clone()));
            }
            "exactly_one_concurrent_insert_succeeds" => {
                let _ = self.inner.insert(user).await;
                return Ok(());
            }
            "dropping_the_future_of_insert_leaves_all_or_nothing" => {
                let mut with_temporary_name = user.clone();
                with_temporary_name.set_login_name(format!("{} (temporary)", user.login_name()));
                self.inner.insert(&with_temporary_name).await?;
                yield_now().await;
                replace(&self.inner, user).await?;
                return Ok(());
            }
            _ => {}
        }
        self.inner.insert(user).await
    }

    async fn modify(
        &self,
        id: &UserId,
        change: &mut ChangeUser<'_, Account>,
    ) -> Result<Modified<Account>> {
        let before = self.inner.by_id(id).await?;
        match (self.clause, before) {
            ("modify_of_an_unknown_id_inserts_nothing", None) if !has_nul(id.as_str()) => {
                let user = change(&Account::new(id, "", "")).ok_or_else(error)?;
                self.inner.insert(&user).await?;
                Ok(Modified::Missing)
            }
            ("modify_replaces_the_user_and_frees_the_old_name", Some(before)) => {
                Ok(Modified::Changed(before))
            }
            (
                "modify_passes_the_stored_user_and_writes_nothing_if_the_change_returns_none",
                Some(before),
            ) => {
                let _ = change(&before.as_ref().clone().with_security_stamp([]));
                Ok(Modified::Unchanged(before))
            }
            ("modify_rejects_a_change_of_the_id", Some(before)) => {
                let _ = change(&before);
                Ok(Modified::Changed(before))
            }
            ("modify_to_a_taken_name_conflicts_and_writes_nothing", Some(before)) => {
                let after = change(&before).ok_or_else(error)?;
                if let Some(other) = self.inner.by_login_name(after.login_name()).await? {
                    self.inner.delete(other.id()).await?;
                }
                self.inner.modify(id, change).await
            }
            ("exactly_one_concurrent_rename_to_the_same_name_succeeds", Some(before)) => {
                let modified = self.inner.modify(id, change).await;
                Ok(modified.unwrap_or(Modified::Changed(before)))
            }
            // Behaves like an application that loads the whole user, and writes the whole user back
            // later.
            ("no_concurrent_change_is_lost", Some(before)) => {
                let after = change(&before).ok_or_else(error)?;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                self.inner.modify(id, &mut |_| Some(after.clone())).await
            }
            ("set_password_writes_only_if_the_seen_security_stamp_is_still_stored", Some(_)) => {
                let outdated = self
                    .outdated_users
                    .lock()
                    .expect("nothing panics while this lock is held")
                    .get(id)
                    .cloned();
                match outdated {
                    Some(user) => {
                        let after = change(&user).unwrap_or_else(|| Account::clone(&user));
                        self.inner.modify(id, &mut |_| Some(after.clone())).await
                    }
                    None => self.inner.modify(id, change).await,
                }
            }
            ("rehash_writes_only_if_the_seen_hash_is_still_stored", Some(before)) => {
                let after = change(&before).unwrap_or_else(|| {
                    let mut after = Account::clone(&before);
                    after.rehash("a hash that must not be written");
                    after
                });
                self.inner.modify(id, &mut |_| Some(after.clone())).await
            }
            ("dropping_the_future_of_modify_leaves_the_old_or_the_new_user", Some(before)) => {
                let mut half_changed = change(&before).ok_or_else(error)?;
                half_changed.set_login_name(before.login_name());
                replace(&self.inner, &half_changed).await?;
                yield_now().await;
                self.inner.modify(id, change).await
            }
            _ => self.inner.modify(id, change).await,
        }
    }

    async fn delete(&self, id: &UserId) -> Result<bool> {
        if self.breaks("dropping_the_future_of_delete_leaves_all_or_nothing")
            && let Some(before) = self.inner.by_id(id).await?
        {
            let mut half_deleted = Account::clone(&before);
            half_deleted.set_login_name(format!("{} (deleted)", before.login_name()));
            replace(&self.inner, &half_deleted).await?;
            yield_now().await;
        }
        let deleted = self.inner.delete(id).await?;
        Ok(deleted || self.breaks("delete_removes_the_user_and_frees_the_name"))
    }
}

#[async_trait]
impl SessionStore for BrokenStore {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation> {
        let created = Creation::created(vec![], vec![]);
        let mut record = login.record.clone();
        match self.clause {
            // Behaves like a store that keeps times in a column that is too small.
            "load_returns_every_field_as_create_wrote_it" => {
                record.expires = record.expires.min(Timestamp::from_secs(i32::MAX as u32));
            }
            "every_call_keeps_both_fields_of_the_remember_period" => {
                if let Some(remember) = &mut record.remember {
                    remember.seconds = remember.seconds.min(i32::MAX as u32);
                }
            }
            "every_call_keeps_the_details_byte_for_byte" => {
                record.details = SessionDetails::new(record.details.as_str().trim());
            }
            "sessions_of_unusual_user_ids_are_stored_as_given_or_rejected" => {
                record.user = record.user.as_str().replace('\0', "").into();
            }
            _ => {}
        }
        let mut login = login.clone();
        login.record = &record;
        match self.clause {
            "create_with_a_taken_key_conflicts_and_writes_nothing" => {
                return Ok(self.inner.create(&login).await.unwrap_or(created));
            }
            "a_login_ends_the_sessions_that_it_replaces" => login.replacing = &[],
            "a_login_that_replaces_a_replaced_session_ends_its_successor"
            | "concurrent_logins_that_replace_the_same_session_leave_one_live_session" => {
                // Ends the sessions in `replacing`, but not their successors.
                let end = End::new(record.created, EndReason::Replaced, login.keep_ended_until);
                self.inner.revoke(login.replacing, &end).await?;
                login.replacing = &[];
            }
            // Replaces sessions only in a limited number of calls, like a store that follows only a
            // limited number of successors.
            "very_many_logins_that_replace_the_same_session_leave_one_live_session"
                if self.create_calls.fetch_add(1, Ordering::Relaxed) > 1_000 =>
            {
                login.replacing = &[];
            }
            "an_unused_session_ends_to_make_room_for_a_login" if login.limit.is_some() => {
                return Ok(Creation::Full);
            }
            "create_far_beyond_the_limit_ends_all_sessions_except_the_newest"
            | "a_limit_never_counts_expired_sessions_however_many_there_are" => login.limit = None,
            "many_replays_are_returned_in_batches" => {
                self.inner.create(&login).await?;
                return Ok(created);
            }
            "create_beyond_a_limit_that_refuses_returns_full_and_writes_nothing" => {
                login.limit = None
            }
            "create_beyond_the_limit_ends_only_the_oldest_sessions" => {
                let refuse = |limit: SessionLimit| SessionLimit::new(limit.max, WhenFull::Refuse);
                login.limit = login.limit.map(refuse);
            }
            "a_limit_counts_only_live_sessions_that_are_not_being_replaced" => {
                if let Some(limit) = &mut login.limit {
                    limit.max -= 1;
                }
            }
            "concurrent_logins_never_exceed_the_limit" => {
                let listed = self.inner.list(&record.user, record.created, 100).await?;
                // Other logins read the list meanwhile, even if the machine is busy.
                for _ in 0..1_000 {
                    yield_now().await;
                }
                if login.limit.is_some_and(|limit| listed.len() >= limit.max) {
                    return Ok(Creation::Full);
                }
                login.limit = None;
            }
            "a_user_is_notified_of_a_replay_once" => {
                self.inner.create(&login).await?;
                return Ok(created);
            }
            "dropping_the_future_of_create_leaves_all_or_nothing" => {
                let end = End::new(record.created, EndReason::Replaced, login.keep_ended_until);
                let replacing = std::mem::take(&mut login.replacing);
                self.inner.create(&login).await?;
                yield_now().await;
                self.inner.revoke(replacing, &end).await?;
                return Ok(created);
            }
            _ => {}
        }
        self.inner.create(&login).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Arc<SessionRecord>>> {
        let altered = self
            .altered_records
            .lock()
            .expect("nothing panics while this lock is held")
            .get(key)
            .cloned();
        match altered {
            Some(record) => Ok(Some(Arc::new(record))),
            None => self.inner.load(key).await,
        }
    }

    async fn rotate(&self, rotation: &Rotation) -> Result<Option<Rotated>> {
        let mut rotation = *rotation;
        match self.clause {
            "a_rotation_begins_the_next_generation" => rotation.at = rotation.at.plus(1),
            "a_rotation_from_another_generation_loses" => {
                if let Some(record) = self.inner.load(&rotation.key).await? {
                    rotation.from_generation = record.generation;
                }
            }
            "a_rotation_extends_and_never_shortens_the_expiry" => {
                rotation.expires = Timestamp::from_secs(0)
            }
            "dropping_the_future_of_rotate_leaves_all_or_nothing" => {
                let mut touch = Touch::new(rotation.key, rotation.at, rotation.expires);
                touch.remember_expires = rotation.remember_expires;
                self.inner.touch(&[touch]).await?;
                yield_now().await;
            }
            _ => {}
        }
        let rotated = self.inner.rotate(&rotation).await?;
        if self.breaks("every_call_keeps_the_acting_user") {
            self.alter(&rotation.key, |record| record.acting_user = None).await;
        }
        Ok(match rotated {
            Some(Rotated::Lost(record))
                if self.breaks("a_rotation_of_an_ended_session_loses")
                    || self.breaks("exactly_one_concurrent_rotation_from_each_generation_wins") =>
            {
                Some(Rotated::Won(record))
            }
            other => other,
        })
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<()> {
        if self.breaks("a_generation_is_marked_as_seen_once") {
            for mark in marks {
                self.alter(&mark.key, |record| record.seen_at = Some(mark.at)).await;
            }
        }
        self.inner.mark_seen(marks).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<()> {
        for touch in touches {
            match self.clause {
                "touch_and_mark_seen_do_not_change_ended_sessions"
                | "a_clock_that_is_behind_moves_no_time_back_except_by_a_rotation" => {
                    self.alter(&touch.key, |record| record.last_seen = touch.at).await;
                }
                "touch_only_moves_last_seen_and_expires_forward" => return Ok(()),
                "touch_extends_the_remember_period_only_of_remembered_logins" => {
                    let remembered_for_a_day = |expires| RememberPeriod::new(expires, 24 * 3_600);
                    let remember = touch.remember_expires.map(remembered_for_a_day);
                    self.alter(&touch.key, |record| record.remember = remember).await;
                }
                _ => {}
            }
        }
        self.inner.touch(touches).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize> {
        match self.clause {
            "unknown_keys_are_not_an_error_and_insert_nothing" => return Ok(keys.len()),
            "a_revoked_session_stays_ended_during_concurrent_rotations" => return Ok(1),
            "only_the_first_end_of_a_session_is_kept" => {
                let ended = Ended::new(end.at, end.reason);
                for key in keys {
                    self.alter(key, |record| record.ended = Some(ended.clone())).await;
                }
            }
            // Replaces an unknown reason by the reason of a later end.
            "every_call_keeps_an_unknown_end_reason" => {
                for key in keys {
                    self.alter(key, |record| match &mut record.ended {
                        Some(ended) if matches!(ended.reason, EndReason::Unknown(_)) => {
                            ended.reason = end.reason;
                        }
                        _ => {}
                    })
                    .await;
                }
            }
            "a_revoked_session_is_kept_until_keep_until" => {
                return self.inner.revoke(keys, &End::new(end.at, end.reason, end.at)).await;
            }
            "an_expired_session_can_be_ended" => {
                let mut live = Vec::new();
                for key in keys {
                    let record = self.inner.load(key).await?;
                    live.extend(record.filter(|record| record.is_live(end.at)).map(|_| *key));
                }
                return self.inner.revoke(&live, end).await;
            }
            "dropping_the_future_of_revoke_touch_or_mark_seen_leaves_all_or_nothing" => {
                for key in keys {
                    self.inner.revoke(std::slice::from_ref(key), end).await?;
                    yield_now().await;
                }
            }
            _ => {}
        }
        self.inner.revoke(keys, end).await
    }

    async fn revoke_all(
        &self,
        user: &UserId,
        mut except: Option<&SessionKey>,
        end: &End,
    ) -> Result<()> {
        let mut end = *end;
        match self.clause {
            "every_call_treats_a_session_that_revoke_all_ended_as_ended" => end.at = end.at.plus(1),
            "revoke_all_ends_a_session_whose_expiry_a_touch_extended" => return Ok(()),
            "a_session_kept_by_one_revoke_all_ends_with_the_next" if except.is_some() => {
                return Ok(());
            }
            "a_purge_removes_sessions_that_revoke_all_ended" => end.keep_until = Timestamp::MAX,
            "revoke_all_ends_all_sessions_of_a_user_except_the_given_session" => except = None,
            _ => {}
        }
        self.inner.revoke_all(user, except, &end).await
    }

    async fn list(
        &self,
        user: &UserId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Arc<SessionRecord>>> {
        let mut listed = self.inner.list(user, now, limit).await?;
        if self.breaks("list_returns_live_sessions_most_recently_used_first") {
            listed.reverse();
        }
        Ok(listed)
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize> {
        match self.clause {
            "a_purge_removes_expired_records_in_batches" => {
                self.inner.purge(before, limit * 10).await
            }
            "no_call_brings_back_a_purged_session" => Ok(0),
            _ => self.inner.purge(before, limit).await,
        }
    }
}

#[async_trait]
impl LoginStore for BrokenStore {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<Account>>> {
        let Some(mut record) = self.load(key).await? else {
            let invents_record = self.breaks("load_login_returns_none_for_an_unknown_key");
            let Some(user) = user_hint.filter(|_| invents_record) else { return Ok(None) };
            let record = Arc::new(sessions::new_record(user));
            return Ok(Some(StoredLogin::new(record, None)));
        };
        if self.breaks("load_login_returns_every_field_of_the_record") {
            Arc::make_mut(&mut record).acting_user = None;
        }
        let id = match user_hint {
            Some(user_hint) if self.breaks("load_login_ignores_a_wrong_user_hint") => user_hint,
            _ => &record.user,
        };
        let mut user = self.inner.by_id(id).await?;
        if self.breaks("load_login_returns_the_record_and_its_user_as_stored_now") {
            let mut outdated_users =
                self.outdated_users.lock().expect("nothing panics while this lock is held");
            user = user.map(|user| outdated_users.entry(id.clone()).or_insert(user).clone());
        }
        if user.is_none() && self.breaks("load_login_returns_no_user_if_the_user_was_deleted") {
            return Ok(None);
        }
        Ok(Some(StoredLogin::new(record, user)))
    }
}
