//! The calls about sessions, each wrong for the clauses that it breaks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::yield_now;
use tower_keep_core::{
    Creation, End, EndReason, Ended, NewLogin, RememberPeriod, Rotated, Rotation, SeenMark,
    SessionDetails, SessionKey, SessionLimit, SessionRecord, SessionStore, StoreResult, Timestamp,
    Touch, UserId, WhenFull, async_trait,
};

use crate::store::{BrokenStore, lock};

impl BrokenStore {
    /// Makes `load` return this record with a change, while the stored record stays as it is.
    async fn alter(&self, key: &SessionKey, change: impl FnOnce(&mut SessionRecord)) {
        if let Ok(Some(before)) = self.load(key).await {
            let mut record = SessionRecord::clone(&before);
            change(&mut record);
            if record == *before {
                return;
            }
            lock(&self.altered_records).insert(*key, record);
        }
    }
}

#[async_trait]
impl SessionStore for BrokenStore {
    async fn create(&self, login: &NewLogin<'_>) -> StoreResult<Creation> {
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
            | "create_beyond_a_limit_that_refuses_returns_full_and_writes_nothing"
            | "a_limit_never_counts_expired_sessions_however_many_there_are" => login.limit = None,
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
                yield_now().await;
                if login.limit.is_some_and(|limit| listed.len() >= limit.max) {
                    return Ok(Creation::Full);
                }
                login.limit = None;
            }
            "many_replays_are_returned_in_batches" | "a_user_is_notified_of_a_replay_once" => {
                self.inner.create(&login).await?;
                return Ok(created);
            }
            "a_login_that_notifies_nobody_leaves_the_replays_to_the_next_login" => {
                login.notifies_user = true;
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

    async fn load(&self, key: &SessionKey) -> StoreResult<Option<Arc<SessionRecord>>> {
        let altered = lock(&self.altered_records).get(key).cloned();
        match altered {
            Some(record) => Ok(Some(Arc::new(record))),
            None => self.inner.load(key).await,
        }
    }

    async fn rotate(&self, rotation: &Rotation) -> StoreResult<Option<Rotated>> {
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

    async fn mark_seen(&self, marks: &[SeenMark]) -> StoreResult<()> {
        if self.breaks("a_generation_is_marked_as_seen_once") {
            for mark in marks {
                self.alter(&mark.key, |record| record.seen_at = Some(mark.at)).await;
            }
        }
        self.inner.mark_seen(marks).await
    }

    async fn touch(&self, touches: &[Touch]) -> StoreResult<()> {
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

    async fn revoke(&self, keys: &[SessionKey], end: &End) -> StoreResult<usize> {
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
    ) -> StoreResult<()> {
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
    ) -> StoreResult<Vec<Arc<SessionRecord>>> {
        let mut listed = self.inner.list(user, now, limit).await?;
        if self.breaks("list_returns_live_sessions_most_recently_used_first") {
            listed.reverse();
        }
        Ok(listed)
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> StoreResult<usize> {
        match self.clause {
            "a_purge_removes_expired_records_in_batches" => {
                self.inner.purge(before, limit * 10).await
            }
            "no_call_brings_back_a_purged_session" => Ok(0),
            _ => self.inner.purge(before, limit).await,
        }
    }
}
