//! The user type of this application, and how it is read from its tables.

use std::borrow::Cow;
use std::str::FromStr;

use sqlx::MySqlPool;
use tower_keep::password::{PasswordStore, PasswordUser, PasswordWrite, own_passwords};
use tower_keep::store::{StoreError, StoreErrorKind};
use tower_keep::{AuthUser, UserId, UserRoles};
use tower_keep_mysql::MySqlStore;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// Writes articles.
    Author,
    /// Changes other members.
    Admin,
}

impl FromStr for Role {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "author" => Ok(Self::Author),
            "admin" => Ok(Self::Admin),
            _ => Err(()),
        }
    }
}

/// A row of the table `member`, with the member's roles.
#[derive(Clone, sqlx::FromRow)]
pub(crate) struct Member {
    id: i64,
    /// The login name.
    pub(crate) email: String,
    password_hash: String,
    active: bool,
    /// Words with commas between them.
    roles: String,
}

impl AuthUser for Member {
    fn id(&self) -> UserId {
        self.id.into()
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn security_stamp(&self) -> Cow<'_, [u8]> {
        // A new password has a new hash, which ends every earlier login.
        Cow::Borrowed(self.password_hash.as_bytes())
    }
}

impl UserRoles for Member {
    type Role = Role;

    fn has_role(&self, role: &Role) -> bool {
        self.roles.split(',').any(|word| word.parse() == Ok(*role))
    }
}

impl PasswordUser for Member {
    fn password_hash(&self) -> &str {
        &self.password_hash
    }

    fn with_password_hash(&self, hash: String) -> Self {
        Self { password_hash: hash, ..self.clone() }
    }

    // The same password, hashed with other parameters.
    fn with_rehash(&self, hash: String) -> Self {
        self.with_password_hash(hash)
    }
}

/// Opens the store on the pool of the application. It reads members from the application's tables,
/// and keeps sessions and the counters of the sign-in in tables of its own.
pub(crate) async fn open(pool: MySqlPool) -> Result<MySqlStore<Member>, StoreError> {
    // The short names `m` and `r` matter: without them, a condition such as `id = id` is always true.
    let select = "SELECT m.id, m.email, m.password_hash, m.active,
        COALESCE((SELECT GROUP_CONCAT(r.role) FROM member_role r WHERE r.member_id = m.id), '')
            AS roles
        FROM member m";
    MySqlStore::builder_on(pool)
        .migrate()
        .with_users::<Member, i64>(
            format!("{select} WHERE m.id = ?"),
            format!("{select} WHERE m.email = ?"),
        )
        .build()
        .await
}

/// Returns the store of passwords, for `Passwords::change`. A new hash is written only if the old
/// one is still stored.
pub(crate) fn password_store(
    users: MySqlStore<Member>,
    pool: MySqlPool,
) -> impl PasswordStore<User = Member> {
    own_passwords(users, move |write: PasswordWrite| {
        let pool = pool.clone();
        async move {
            let Some(id) = write.id.parse::<i64>() else { return Ok(false) };
            let sql = "UPDATE member SET password_hash = ? WHERE id = ? AND password_hash = ?";
            let update = sqlx::query(sql).bind(write.new).bind(id).bind(write.expected);
            let done = update.execute(&pool).await;
            let done = done.map_err(|error| {
                StoreError::new(StoreErrorKind::Unavailable, "mysql").with_source(error)
            })?;
            Ok(done.rows_affected() == 1)
        }
    })
}
