//! The contract of [`SessionStore`].

pub(super) mod calls;
mod create;
mod ends;
mod fields;
mod limits;
mod purges;
mod rotations;
mod usage;

use tower_keep_core::SessionStore;

use super::clauses::clauses;

pub use self::calls::new_record;
pub use self::create::*;
pub use self::ends::*;
pub use self::fields::*;
pub use self::limits::*;
pub use self::purges::*;
pub use self::rotations::*;
pub use self::usage::*;

clauses! {
    SessionStore;
    load_returns_every_field_as_create_wrote_it
    every_call_keeps_the_details_byte_for_byte
    every_call_keeps_the_acting_user
    every_call_keeps_both_fields_of_the_remember_period
    unknown_keys_are_not_an_error_and_insert_nothing
    create_with_a_taken_key_conflicts_and_writes_nothing
    sessions_of_unusual_user_ids_are_stored_as_given_or_rejected
    a_login_ends_the_sessions_that_it_replaces
    a_login_that_replaces_a_replaced_session_ends_its_successor
    concurrent_logins_that_replace_the_same_session_leave_one_live_session
    very_many_logins_that_replace_the_same_session_leave_one_live_session
    create_beyond_a_limit_that_refuses_returns_full_and_writes_nothing
    an_unused_session_ends_to_make_room_for_a_login
    create_beyond_the_limit_ends_only_the_oldest_sessions
    a_limit_counts_only_live_sessions_that_are_not_being_replaced
    a_limit_never_counts_expired_sessions_however_many_there_are
    create_far_beyond_the_limit_ends_all_sessions_except_the_newest
    concurrent_logins_never_exceed_the_limit
    a_user_is_notified_of_a_replay_once
    a_login_that_notifies_nobody_leaves_the_replays_to_the_next_login
    many_replays_are_returned_in_batches
    a_rotation_begins_the_next_generation
    a_rotation_from_another_generation_loses
    a_rotation_of_an_ended_session_loses
    exactly_one_concurrent_rotation_from_each_generation_wins
    a_rotation_extends_and_never_shortens_the_expiry
    a_revoked_session_stays_ended_during_concurrent_rotations
    a_generation_is_marked_as_seen_once
    touch_only_moves_last_seen_and_expires_forward
    touch_extends_the_remember_period_only_of_remembered_logins
    touch_and_mark_seen_do_not_change_ended_sessions
    only_the_first_end_of_a_session_is_kept
    every_call_keeps_an_unknown_end_reason
    a_revoked_session_is_kept_until_keep_until
    an_expired_session_can_be_ended
    revoke_all_ends_all_sessions_of_a_user_except_the_given_session
    every_call_treats_a_session_that_revoke_all_ended_as_ended
    a_session_kept_by_one_revoke_all_ends_with_the_next
    revoke_all_ends_a_session_whose_expiry_a_touch_extended
    list_returns_live_sessions_most_recently_used_first
    a_purge_removes_expired_records_in_batches
    a_purge_removes_sessions_that_revoke_all_ended
    no_call_brings_back_a_purged_session
    a_clock_that_is_behind_moves_no_time_back_except_by_a_rotation
    dropping_the_future_of_create_leaves_all_or_nothing
    dropping_the_future_of_rotate_leaves_all_or_nothing
    dropping_the_future_of_revoke_touch_or_mark_seen_leaves_all_or_nothing
}
