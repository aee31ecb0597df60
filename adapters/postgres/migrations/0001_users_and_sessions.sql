-- Users of the type Account, and session records. Times are seconds since 1970.
CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY);

CREATE TABLE keep_users (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    login_name TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    security_stamp BYTEA NOT NULL
);

CREATE TABLE keep_sessions (
    -- The SHA-256 hash of the session's id. The id itself is only in the session's cookies.
    session_key BYTEA NOT NULL PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL,
    -- If this is lower than the user's epoch, the session has ended together with all others.
    epoch BIGINT NOT NULL DEFAULT 0,
    generation BIGINT NOT NULL,
    rotated_at BIGINT,
    seen_at BIGINT,
    salt BYTEA NOT NULL,
    created BIGINT NOT NULL,
    session_started BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    remember_expires BIGINT,
    remember_seconds BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    address TEXT,
    user_agent TEXT NOT NULL,
    method TEXT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT,
    successor BYTEA,
    notified BOOLEAN NOT NULL
);

CREATE INDEX keep_sessions_used ON keep_sessions (user_id, epoch, last_seen) WHERE ended_at IS NULL;
CREATE INDEX keep_sessions_begun ON keep_sessions (user_id, epoch, created) WHERE ended_at IS NULL;
CREATE INDEX keep_sessions_expiring ON keep_sessions (expires);
CREATE INDEX keep_sessions_to_notify ON keep_sessions (user_id)
    WHERE end_reason = 'replay' AND NOT notified;

-- One row for each user whose sessions have all been ended: a number that grows with each such end,
-- when and why the last one happened, and how long those sessions are kept.
CREATE TABLE keep_epochs (
    user_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    end_reason TEXT NOT NULL,
    kept_until BIGINT NOT NULL,
    tidied BOOLEAN NOT NULL
);

CREATE INDEX keep_epochs_untidy ON keep_epochs (kept_until) WHERE NOT tidied;

INSERT INTO keep_versions (version) VALUES (1);
