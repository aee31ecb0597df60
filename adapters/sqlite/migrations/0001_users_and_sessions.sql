-- Users of the type Account, session records, and counters. Times are seconds since 1970.
CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY);

CREATE TABLE keep_users (
    id TEXT NOT NULL PRIMARY KEY,
    -- The name that the user enters to log in.
    login_name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    -- Whether the user may log in and stay logged in.
    active INTEGER NOT NULL,
    -- If this changes, all earlier logins of the user end.
    security_stamp BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keep_sessions (
    -- The SHA-256 hash of the session's id. The id itself is only in the session's cookies.
    session_key BLOB NOT NULL PRIMARY KEY,
    -- The user who logged in.
    user_id TEXT NOT NULL,
    -- The user who acts as user_id, such as an administrator. Null if user_id acts for itself.
    acting_user TEXT,
    -- If this is lower than the user's epoch in keep_epochs, the session has ended.
    epoch INTEGER NOT NULL DEFAULT 0,
    -- How often the session's cookies were rotated (replaced).
    generation INTEGER NOT NULL,
    -- When the current generation began. Null for the first generation.
    rotated_at INTEGER,
    -- When the browser first sent a cookie of the current generation. Null before that.
    seen_at INTEGER,
    -- Random input for the check of the remember cookie.
    salt BLOB NOT NULL,
    -- When the user logged in.
    created INTEGER NOT NULL,
    -- When the login was made, or last restored or confirmed.
    session_started INTEGER NOT NULL,
    -- When the session was last used, accurate to the touch interval of the layer.
    last_seen INTEGER NOT NULL,
    -- Until when the last remember cookie is valid, and how many seconds each new remember cookie
    -- is valid. Both are null if the login is not remembered.
    remember_expires INTEGER,
    remember_seconds INTEGER,
    -- When the session expires. For an ended session: until when the row is kept.
    expires INTEGER NOT NULL,
    -- JSON with details that are only shown to the user, such as the device. The type is TEXT,
    -- because the text has to be returned byte for byte.
    details TEXT NOT NULL,
    -- When and why the session ended. Null if it has not ended, or ended only with its epoch.
    ended_at INTEGER,
    end_reason TEXT,
    -- The session_key of the login that replaced the session in the same browser. Null if no login
    -- replaced it.
    successor BLOB,
    -- Whether the user was notified of the end. A user is notified only of an end after a replay (a
    -- late use of an old remember cookie).
    notified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keep_sessions_used ON keep_sessions (user_id, epoch, last_seen) WHERE ended_at IS NULL;
CREATE INDEX keep_sessions_begun ON keep_sessions (user_id, epoch, created) WHERE ended_at IS NULL;
CREATE INDEX keep_sessions_expiring ON keep_sessions (expires);
CREATE INDEX keep_sessions_to_notify ON keep_sessions (user_id)
    WHERE end_reason = 'replay' AND notified = FALSE;

-- One row for each user whose sessions have been ended all together at least once.
CREATE TABLE keep_epochs (
    user_id TEXT NOT NULL PRIMARY KEY,
    -- Raised whenever all of the user's sessions are ended. Sessions with a lower epoch have ended.
    epoch INTEGER NOT NULL,
    -- When and why the sessions of the previous epoch ended.
    ended_at INTEGER NOT NULL,
    end_reason TEXT NOT NULL,
    -- Until when the sessions of earlier epochs are kept.
    kept_until INTEGER NOT NULL,
    -- Whether the sessions of earlier epochs have been deleted.
    purged INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keep_epochs_to_purge ON keep_epochs (kept_until) WHERE purged = FALSE;

-- How often something was tried or used, such as a login. The layer makes the keys.
CREATE TABLE keep_counters (
    -- A digest of what is counted.
    counter_key BLOB NOT NULL PRIMARY KEY,
    -- How many uses were taken, and when the last one was.
    uses INTEGER NOT NULL,
    last_use INTEGER NOT NULL,
    -- Raised whenever the counter starts over.
    epoch INTEGER NOT NULL,
    -- From when on the counter has no effect.
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keep_counters_expiring ON keep_counters (expires);

INSERT INTO keep_versions (version) VALUES (1);
