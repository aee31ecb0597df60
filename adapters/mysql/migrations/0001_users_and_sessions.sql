-- Users of the ready type, and session records. Times are seconds since 1970. What is compared byte for
-- byte is kept as bytes: MySQL's collations of text leave spaces at the end out of account.
CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS keep_users (
    id VARBINARY(2000) NOT NULL PRIMARY KEY,
    login VARBINARY(2000) NOT NULL UNIQUE,
    password_hash BLOB NOT NULL,
    active BOOLEAN NOT NULL,
    stamp BLOB NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS keep_sessions (
    -- The SHA-256 of the session's id, which is in its cookies alone.
    session_key BINARY(32) NOT NULL PRIMARY KEY,
    user_id VARBINARY(2000) NOT NULL,
    -- Below the user's epoch, it has ended with all others.
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
    told BOOLEAN NOT NULL,
    INDEX keep_sessions_used (user_id, epoch, ended_at, last_seen),
    INDEX keep_sessions_begun (user_id, epoch, ended_at, created),
    INDEX keep_sessions_untold (user_id, end_reason, told),
    INDEX keep_sessions_expiring (expires)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- Users all of whose sessions were ended: a number that grows with each end, when that was, why, and how
-- long those sessions are kept.
CREATE TABLE IF NOT EXISTS keep_epochs (
    user_id VARBINARY(2000) NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    end_reason VARCHAR(64) NOT NULL,
    kept_until BIGINT NOT NULL,
    tidied BOOLEAN NOT NULL,
    INDEX keep_epochs_untidy (tidied, kept_until)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- Logins of one user wait for each other; there are 256 places to wait at.
CREATE TABLE IF NOT EXISTS keep_locks (slot SMALLINT NOT NULL PRIMARY KEY) ENGINE = InnoDB;

INSERT IGNORE INTO keep_locks (slot)
    WITH RECURSIVE slots (slot) AS (
        SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot < 255
    )
    SELECT slot FROM slots;

INSERT IGNORE INTO keep_versions (version) VALUES (1);
