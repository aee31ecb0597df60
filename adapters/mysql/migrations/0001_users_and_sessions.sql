-- Users of the type Account, and session records. Times are seconds since 1970. Texts that are
-- compared byte by byte are stored as bytes, because MySQL's text collations ignore trailing
-- spaces.
CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS keep_users (
    id VARBINARY(2000) NOT NULL PRIMARY KEY,
    login_name VARBINARY(2000) NOT NULL UNIQUE,
    password_hash BLOB NOT NULL,
    active BOOLEAN NOT NULL,
    security_stamp BLOB NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS keep_sessions (
    -- The SHA-256 hash of the session's id. The id itself is only in the session's cookies.
    session_key BINARY(32) NOT NULL PRIMARY KEY,
    user_id VARBINARY(2000) NOT NULL,
    -- If this is lower than the user's epoch, the session has ended together with all others.
    epoch BIGINT NOT NULL DEFAULT 0,
    generation BIGINT NOT NULL,
    rotated_at BIGINT,
    seen_at BIGINT,
    salt BINARY(16) NOT NULL,
    created BIGINT NOT NULL,
    session_started BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    remember_expires BIGINT,
    remember_seconds BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    address VARCHAR(64),
    user_agent TEXT NOT NULL,
    method TEXT NOT NULL,
    ended_at BIGINT,
    end_reason VARCHAR(64),
    successor BINARY(32),
    notified BOOLEAN NOT NULL,
    INDEX keep_sessions_used (user_id, epoch, ended_at, last_seen),
    INDEX keep_sessions_begun (user_id, epoch, ended_at, created),
    INDEX keep_sessions_to_notify (user_id, end_reason, notified),
    INDEX keep_sessions_expiring (expires)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- One row for each user whose sessions have all been ended: a number that grows with each such end,
-- when and why the last one happened, and how long those sessions are kept.
CREATE TABLE IF NOT EXISTS keep_epochs (
    user_id VARBINARY(2000) NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    end_reason VARCHAR(64) NOT NULL,
    kept_until BIGINT NOT NULL,
    tidied BOOLEAN NOT NULL,
    INDEX keep_epochs_untidy (tidied, kept_until)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- Logins of one user wait for each other: each locks the user's row, one of these 256.
CREATE TABLE IF NOT EXISTS keep_locks (slot SMALLINT NOT NULL PRIMARY KEY) ENGINE = InnoDB;

INSERT IGNORE INTO keep_locks (slot)
    WITH RECURSIVE slots (slot) AS (
        SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot < 255
    )
    SELECT slot FROM slots;

INSERT IGNORE INTO keep_versions (version) VALUES (1);
