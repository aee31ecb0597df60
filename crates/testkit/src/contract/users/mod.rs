//! The contracts of [`UserStore`](tower_keep_core::UserStore),
//! [`UserLookup`](tower_keep_core::UserLookup) and [`UserDirectory`].

pub(super) mod calls;
mod changes;
mod deletes;
mod inserts;
mod lookups;
mod passwords;

use tower_keep_core::{Account, UserDirectory};

use super::clauses::clauses;

pub use self::calls::replace;
pub use self::changes::*;
pub use self::deletes::*;
pub use self::inserts::*;
pub use self::lookups::*;
pub use self::passwords::*;

clauses! {
    UserDirectory<User = Account>;
    by_id_returns_the_user_as_stored
    by_login_name_compares_names_byte_for_byte
    unknown_and_unusual_ids_and_names_find_no_user
    users_with_unusual_ids_or_names_are_stored_as_given_or_rejected
    by_ids_returns_one_entry_for_each_id_in_order
    insert_with_a_taken_id_or_name_conflicts_and_writes_nothing
    exactly_one_concurrent_insert_succeeds
    insert_if_absent_can_be_repeated
    modify_replaces_the_user_and_frees_the_old_name
    modify_passes_the_stored_user_and_writes_nothing_if_the_change_returns_none
    modify_rejects_a_change_of_the_id
    modify_to_a_taken_name_conflicts_and_writes_nothing
    exactly_one_concurrent_rename_to_the_same_name_succeeds
    modify_of_an_unknown_id_inserts_nothing
    no_concurrent_change_is_lost
    set_password_writes_only_if_the_seen_security_stamp_is_still_stored
    rehash_writes_only_if_the_seen_hash_is_still_stored
    delete_removes_the_user_and_frees_the_name
    dropping_the_future_of_insert_leaves_all_or_nothing
    dropping_the_future_of_modify_leaves_the_old_or_the_new_user
    dropping_the_future_of_delete_leaves_all_or_nothing
}
