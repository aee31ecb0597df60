-- Users of the type Account, and session records. Times are seconds since 1970.
CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY);

CREATE TABLE keep_users (
    id TEXT NOT NULL PRIMARY KEY,
    login_name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    active INTEGER NOT NULL,
    security_stamp BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keep_sessions (
    -- The SHA-256 hash of the session's id. The id itself is only in the session's cookies.
    session_key BLOB NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    -- If this is lower than the user's epoch, the session has ended together with all others.
    epoch INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL,
    rotated_at INTEGER,
    seen_at INTEGER,
    salt BLOB NOT NULL,
    created INTEGER NOT NULL,
    session_started INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    remember_expires INTEGER,
    remember_seconds INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    address TEXT,
    user_agent TEXT NOT NULL,
    method TEXT NOT NULL,
    ended_at INTEGER,
    end_reason TEXT,
    successor BLOB,
    notified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keep_sessions_used ON keep_sessions (user_id, epoch, last_seen) WHERE ended_at IS NULL;
CREATE INDEX keep_sessions_begun ON keep_sessions (user_id, epoch, created) WHERE ended_at IS NULL;
CREATE INDEX keep_sessions_expiring ON keep_sessions (expires);
CREATE INDEX keep_sessions_to_notify ON keep_sessions (user_id)
    WHERE end_reason = 'replay' AND notified = FALSE;

-- One row for each user whose sessions have all been ended: a number that grows with each such end,
-- when and why the last one happened, and how long those sessions are kept.
CREATE TABLE keep_epochs (
    user_id TEXT NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    end_reason TEXT NOT NULL,
    kept_until INTEGER NOT NULL,
    tidied INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keep_epochs_untidy ON keep_epochs (kept_until) WHERE tidied = FALSE;

INSERT INTO keep_versions (version) VALUES (1);
