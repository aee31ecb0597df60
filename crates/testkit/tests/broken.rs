//! Every clause fails on a store that breaks it.

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
async fn every_clause_fails_on_a_store_that_breaks_it() {
    // Broken clauses are expected to panic here. Their messages need not fill the output.
    std::panic::set_hook(Box::new(|_| {}));
    let mut unbroken: Vec<&&str> = Vec::new();
    for clause in users::CLAUSES {
        let run = tokio::spawn(users::run(clause, Broken::store(clause)));
        unbroken.extend(run.await.is_ok().then_some(clause));
    }
    for clause in sessions::CLAUSES {
        let run = tokio::spawn(sessions::run(clause, Broken::store(clause)));
        unbroken.extend(run.await.is_ok().then_some(clause));
    }
    for clause in logins::CLAUSES {
        let run = tokio::spawn(logins::run(clause, Broken::store(clause)));
        unbroken.extend(run.await.is_ok().then_some(clause));
    }
    let _ = std::panic::take_hook();
    assert_eq!(unbroken, [] as [&&str; 0], "these clauses pass on stores that break them");
}

/// A memory store that breaks the clause with this name, and no other on purpose.
struct Broken {
    inner: MemoryStore<Account>,
    clause: &'static str,
    /// Records that are returned in place of the stored ones.
    overlay: Mutex<HashMap<SessionKey, SessionRecord>>,
    /// Users as they were first loaded.
    stale: Mutex<HashMap<UserId, Arc<Account>>>,
    /// The number of logins so far.
    logins: AtomicUsize,
}

impl Broken {
    fn store(clause: &'static str) -> Arc<Self> {
        let (overlay, stale, logins) = Default::default();
        Arc::new(Self { inner: MemoryStore::new(), clause, overlay, stale, logins })
    }

    fn breaks(&self, clause: &str) -> bool {
        self.clause == clause
    }

    async fn change(&self, key: &SessionKey, change: impl FnOnce(&mut SessionRecord)) {
        if let Ok(Some(before)) = self.load(key).await {
            let mut record = SessionRecord::clone(&before);
            change(&mut record);
            if record == *before {
                return;
            }
            self.overlay.lock().expect("no test panics under the lock").insert(*key, record);
        }
    }
}

fn error() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "broken")
}

fn is_odd(text: &str) -> bool {
    text.contains('\0')
}

#[async_trait]
impl UserStore for Broken {
    type User = Account;

    async fn by_id(&self, id: &UserId) -> Result<Option<Arc<Account>>> {
        if self.breaks("unknown_and_odd_ids_and_names_find_nobody") && is_odd(id.as_str()) {
            return Err(error());
        }
        let found = self.inner.by_id(id).await?;
        if self.breaks("a_user_is_found_by_id_as_stored") {
            return Ok(found.map(|account| Arc::new(Account::clone(&account).with_active(true))));
        }
        Ok(found)
    }
}

#[async_trait]
impl UserLookup for Broken {
    async fn by_login_name(&self, login_name: &str) -> Result<Option<Arc<Account>>> {
        let found = self.inner.by_login_name(login_name).await?;
        if found.is_none() && self.breaks("a_user_is_found_by_login_name_byte_for_byte") {
            return self.inner.by_login_name(login_name.trim()).await;
        }
        Ok(found)
    }
}

#[async_trait]
impl UserDirectory for Broken {
    async fn by_ids(&self, ids: &[UserId]) -> Result<Vec<Option<Arc<Account>>>> {
        let mut found = self.inner.by_ids(ids).await?;
        if self.breaks("by_ids_returns_one_entry_for_each_id_in_order") {
            found.sort_by_key(|account| account.as_ref().map(|account| account.id().clone()));
        }
        Ok(found)
    }

    async fn insert(&self, user: &Account) -> Result<()> {
        match self.clause {
            "odd_ids_and_names_are_kept_or_refused" if is_odd(user.login_name()) => return Ok(()),
            "a_taken_id_or_name_conflicts_and_nothing_is_written" => {
                self.inner.delete(user.id()).await?;
            }
            "insert_if_absent_can_be_repeated" => {
                self.inner.delete(user.id()).await?;
            }
            "a_password_is_set_only_over_the_stamp_that_was_seen" => {
                let mut stale = self.stale.lock().expect("no test panics under the lock");
                stale.insert(user.id().clone(), Arc::new(user.clone()));
            }
            "of_concurrent_inserts_one_succeeds" => {
                let _ = self.inner.insert(user).await;
                return Ok(());
            }
            "an_interrupted_insert_leaves_all_or_nothing" => {
                let mut nameless = user.clone();
                nameless.set_login_name(format!("{} not yet", user.login_name()));
                self.inner.insert(&nameless).await?;
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
            ("a_change_of_nobody_inserts_nothing", None) if !is_odd(id.as_str()) => {
                let user = change(&Account::new(id, "", "")).ok_or_else(error)?;
                self.inner.insert(&user).await?;
                Ok(Modified::Missing)
            }
            ("a_change_replaces_the_user_and_frees_the_name", Some(before)) => {
                Ok(Modified::Changed(before))
            }
            ("a_change_sees_the_stored_user_and_may_leave_it", Some(before)) => {
                let _ = change(&before.as_ref().clone().with_security_stamp([]));
                Ok(Modified::Unchanged(before))
            }
            ("a_change_of_the_id_is_refused", Some(before)) => {
                let _ = change(&before);
                Ok(Modified::Changed(before))
            }
            ("a_change_to_a_taken_name_conflicts_and_nothing_is_written", Some(before)) => {
                let after = change(&before).ok_or_else(error)?;
                if let Some(other) = self.inner.by_login_name(after.login_name()).await? {
                    self.inner.delete(other.id()).await?;
                }
                self.inner.modify(id, change).await
            }
            ("of_concurrent_renames_to_one_name_one_succeeds", Some(before)) => {
                let modified = self.inner.modify(id, change).await;
                Ok(modified.unwrap_or(Modified::Changed(before)))
            }
            // This is like an application that loads the whole user, and writes it back later.
            ("no_change_is_lost", Some(before)) => {
                let after = change(&before).ok_or_else(error)?;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                self.inner.modify(id, &mut |_| Some(after.clone())).await
            }
            ("a_password_is_set_only_over_the_stamp_that_was_seen", Some(_)) => {
                let first =
                    self.stale.lock().expect("no test panics under the lock").get(id).cloned();
                match first {
                    Some(first) => {
                        let after = change(&first).unwrap_or_else(|| Account::clone(&first));
                        self.inner.modify(id, &mut |_| Some(after.clone())).await
                    }
                    None => self.inner.modify(id, change).await,
                }
            }
            ("a_rehash_is_written_only_over_the_hash_that_was_seen", Some(before)) => {
                let after = change(&before).unwrap_or_else(|| {
                    let mut after = Account::clone(&before);
                    after.rehash("written all the same");
                    after
                });
                self.inner.modify(id, &mut |_| Some(after.clone())).await
            }
            ("an_interrupted_change_leaves_the_old_or_the_new", Some(before)) => {
                let mut half = change(&before).ok_or_else(error)?;
                half.set_login_name(before.login_name());
                replace(&self.inner, &half).await?;
                yield_now().await;
                self.inner.modify(id, change).await
            }
            _ => self.inner.modify(id, change).await,
        }
    }

    async fn delete(&self, id: &UserId) -> Result<bool> {
        if self.breaks("an_interrupted_delete_leaves_all_or_nothing")
            && let Some(before) = self.inner.by_id(id).await?
        {
            let mut half = Account::clone(&before);
            half.set_login_name(format!("{} no more", before.login_name()));
            replace(&self.inner, &half).await?;
            yield_now().await;
        }
        let deleted = self.inner.delete(id).await?;
        Ok(deleted || self.breaks("a_deleted_user_is_gone_and_the_name_is_free"))
    }
}

#[async_trait]
impl SessionStore for Broken {
    async fn create(&self, login: &NewLogin<'_>) -> Result<Creation> {
        let created = Creation::created(vec![], vec![]);
        let mut record = login.record.clone();
        match self.clause {
            // Keeps times and numbers in columns that are too small.
            "a_created_session_is_loaded_as_it_was" => {
                record.expires = record.expires.min(Timestamp::from_secs(i32::MAX as u32));
            }
            "a_remember_period_comes_back_with_both_parts" => {
                if let Some(remember) = &mut record.remember {
                    remember.seconds = remember.seconds.min(i32::MAX as u32);
                }
            }
            "the_details_come_back_byte_for_byte" => {
                record.details = SessionDetails::new(record.details.as_str().trim());
            }
            "odd_users_are_kept_or_refused" => {
                record.user = record.user.as_str().replace('\0', "").into();
            }
            _ => {}
        }
        let mut login = login.clone();
        login.record = &record;
        match self.clause {
            "a_taken_key_conflicts_and_nothing_is_written" => {
                return Ok(self.inner.create(&login).await.unwrap_or(created));
            }
            "a_new_login_ends_those_that_it_replaces" => login.replacing = &[],
            "of_two_logins_in_one_session_one_remains"
            | "of_many_logins_in_one_session_one_remains" => {
                // Ends the given sessions, but follows none of their successors.
                let end = End::new(record.created, EndReason::Replaced, login.keep_ended_until);
                self.inner.revoke(login.replacing, &end).await?;
                login.replacing = &[];
            }
            // Follows only a limited number of successors.
            "however_many_logins_send_one_old_cookie_one_session_remains"
                if self.logins.fetch_add(1, Ordering::Relaxed) > 1_000 =>
            {
                login.replacing = &[];
            }
            "a_session_that_was_never_used_keeps_nobody_out" if login.limit.is_some() => {
                return Ok(Creation::Full);
            }
            "far_too_many_sessions_end_at_once_except_the_newest"
            | "a_limit_looks_past_what_has_expired" => login.limit = None,
            "many_replays_are_returned_in_batches" => {
                self.inner.create(&login).await?;
                return Ok(created);
            }
            "a_full_limit_refuses_and_writes_nothing" => login.limit = None,
            "a_full_limit_ends_the_oldest" => {
                let refuse = |limit: SessionLimit| SessionLimit::new(limit.max, WhenFull::Refuse);
                login.limit = login.limit.map(refuse);
            }
            "a_limit_counts_what_is_live_and_not_replaced" => {
                if let Some(limit) = &mut login.limit {
                    limit.max -= 1;
                }
            }
            "concurrent_logins_keep_to_the_limit" => {
                let listed = self.inner.list(&record.user, record.created, 100).await?;
                yield_now().await;
                if login.limit.is_some_and(|limit| listed.len() >= limit.max) {
                    return Ok(Creation::Full);
                }
                login.limit = None;
            }
            "a_user_is_notified_of_a_replay_once" => {
                self.inner.create(&login).await?;
                return Ok(created);
            }
            "an_interrupted_login_leaves_all_or_nothing" => {
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
        let overlaid =
            self.overlay.lock().expect("no test panics under the lock").get(key).cloned();
        match overlaid {
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
            "a_rotation_extends_and_never_shortens" => rotation.expires = Timestamp::from_secs(0),
            "an_interrupted_rotation_leaves_all_or_nothing" => {
                let mut touch = Touch::new(rotation.key, rotation.at, rotation.expires);
                touch.remember_expires = rotation.remember_expires;
                self.inner.touch(&[touch]).await?;
                yield_now().await;
            }
            _ => {}
        }
        let rotated = self.inner.rotate(&rotation).await?;
        if self.breaks("the_acting_user_comes_back") {
            self.change(&rotation.key, |record| record.acting_user = None).await;
        }
        Ok(match rotated {
            Some(Rotated::Lost(record))
                if self.breaks("a_rotation_of_an_ended_session_loses")
                    || self.breaks("of_many_rotations_one_wins_each_generation") =>
            {
                Some(Rotated::Won(record))
            }
            other => other,
        })
    }

    async fn mark_seen(&self, marks: &[SeenMark]) -> Result<()> {
        if self.breaks("a_generation_is_marked_as_seen_once") {
            for mark in marks {
                self.change(&mark.key, |record| record.seen_at = Some(mark.at)).await;
            }
        }
        self.inner.mark_seen(marks).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<()> {
        for touch in touches {
            match self.clause {
                "ended_sessions_are_neither_touched_nor_marked"
                | "a_server_whose_clock_is_behind_sets_nothing_back" => {
                    self.change(&touch.key, |record| record.last_seen = touch.at).await;
                }
                "touch_only_moves_forward" => return Ok(()),
                "touch_extends_remembering_only_of_the_remembered" => {
                    let day = |expires| RememberPeriod::new(expires, 24 * 3_600);
                    let remember = touch.remember_expires.map(day);
                    self.change(&touch.key, |record| record.remember = remember).await;
                }
                _ => {}
            }
        }
        self.inner.touch(touches).await
    }

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> Result<usize> {
        match self.clause {
            "unknown_keys_are_nothing_and_insert_nothing" => return Ok(keys.len()),
            "a_revocation_beats_every_rotation" => return Ok(1),
            "of_several_ends_the_first_counts" => {
                let ended = Ended::new(end.at, end.reason);
                for key in keys {
                    self.change(key, |record| record.ended = Some(ended.clone())).await;
                }
            }
            // Lets a later end replace a reason that it does not know.
            "an_unknown_reason_keeps_its_word" => {
                for key in keys {
                    self.change(key, |record| match &mut record.ended {
                        Some(ended) if matches!(ended.reason, EndReason::Unknown(_)) => {
                            ended.reason = end.reason;
                        }
                        _ => {}
                    })
                    .await;
                }
            }
            "an_ended_session_is_kept_as_requested" => {
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
            "interrupted_ends_leave_all_or_nothing" => {
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
            "an_end_of_all_holds_for_every_call" => end.at = end.at.plus(1),
            "a_session_that_outlives_its_login_by_use_ends_with_all" => return Ok(()),
            "what_stays_at_one_end_of_all_ends_at_the_next" if except.is_some() => return Ok(()),
            "a_purge_removes_what_ended_together" => end.keep_until = Timestamp::MAX,
            "all_sessions_of_a_user_end_except_one" => except = None,
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
        if self.breaks("a_list_is_of_live_sessions_the_last_used_first") {
            listed.reverse();
        }
        Ok(listed)
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize> {
        match self.clause {
            "a_purge_removes_what_expired_in_batches" => self.inner.purge(before, limit * 10).await,
            "what_was_purged_never_comes_back" => Ok(0),
            _ => self.inner.purge(before, limit).await,
        }
    }
}

#[async_trait]
impl LoginStore for Broken {
    async fn load_login(
        &self,
        key: &SessionKey,
        user_hint: Option<&UserId>,
    ) -> Result<Option<StoredLogin<Account>>> {
        let Some(mut record) = self.load(key).await? else {
            let breaks = self.breaks("an_unknown_key_is_no_login");
            let Some(user) = user_hint.filter(|_| breaks) else { return Ok(None) };
            let record = Arc::new(sessions::new_record(user));
            return Ok(Some(StoredLogin::new(record, None)));
        };
        if self.breaks("a_login_has_every_field_of_its_record") {
            Arc::make_mut(&mut record).acting_user = None;
        }
        let id = match user_hint {
            Some(user_hint) if self.breaks("the_record_says_whose_login_it_is") => user_hint,
            _ => &record.user,
        };
        let mut user = self.inner.by_id(id).await?;
        if self.breaks("a_login_is_its_record_and_its_user") {
            let mut stale = self.stale.lock().expect("no test panics under the lock");
            user = user.map(|user| stale.entry(id.clone()).or_insert(user).clone());
        }
        if user.is_none() && self.breaks("a_login_of_a_deleted_user_has_no_user") {
            return Ok(None);
        }
        Ok(Some(StoredLogin::new(record, user)))
    }
}
