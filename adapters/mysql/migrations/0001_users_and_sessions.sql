-- Users of the type Account, session records, and counters. Times are seconds since 1970. Texts
-- that have to be compared byte by byte are in binary columns, because the text collations of MySQL
-- ignore trailing spaces.
CREATE TABLE IF NOT EXISTS keep_versions (version BIGINT NOT NULL PRIMARY KEY) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS keep_users (
    id VARBINARY(2000) NOT NULL PRIMARY KEY,
    -- The name that the user enters to log in.
    login_name VARBINARY(2000) NOT NULL UNIQUE,
    password_hash BLOB NOT NULL,
    -- Whether the user may log in and stay logged in.
    active BOOLEAN NOT NULL,
    -- If this changes, all earlier logins of the user end.
    security_stamp BLOB NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS keep_sessions (
    -- The SHA-256 hash of the session's id. The id itself is only in the session's cookies.
    session_key BINARY(32) NOT NULL PRIMARY KEY,
    -- The user who logged in.
    user_id VARBINARY(2000) NOT NULL,
    -- The user who acts as user_id, such as an administrator. Null if user_id acts for itself.
    acting_user VARBINARY(2000),
    -- If this is lower than the user's epoch in keep_epochs, the session has ended.
    epoch BIGINT NOT NULL DEFAULT 0,
    -- How often the session's cookies were rotated (replaced).
    generation BIGINT NOT NULL,
    -- When the current generation began. Null for the first generation.
    rotated_at BIGINT,
    -- When the browser first sent a cookie of the current generation. Null before that.
    seen_at BIGINT,
    -- Random input for the check of the remember cookie.
    salt BINARY(16) NOT NULL,
    -- When the user logged in.
    created BIGINT NOT NULL,
    -- When the login was made, or last restored or confirmed.
    session_started BIGINT NOT NULL,
    -- When the session was last used, accurate to the touch interval of the layer.
    last_seen BIGINT NOT NULL,
    -- Until when the last remember cookie is valid, and how many seconds each new remember cookie
    -- is valid. Both are null if the login is not remembered.
    remember_expires BIGINT,
    remember_seconds BIGINT,
    -- When the session expires. For an ended session: until when the row is kept.
    expires BIGINT NOT NULL,
    -- JSON with details that are only shown to the user, such as the device. The type is TEXT,
    -- because the text has to be returned byte for byte.
    details TEXT NOT NULL,
    -- When and why the session ended. Null if it has not ended, or ended only with its epoch.
    ended_at BIGINT,
    end_reason VARCHAR(64),
    -- The session_key of the login that replaced the session in the same browser. Null if no login
    -- replaced it.
    successor BINARY(32),
    -- Whether the user was notified of the end. A user is notified only of an end after a replay (a
    -- late use of an old remember cookie).
    notified BOOLEAN NOT NULL,
    INDEX keep_sessions_used (user_id, epoch, ended_at, last_seen),
    INDEX keep_sessions_begun (user_id, epoch, ended_at, created),
    INDEX keep_sessions_to_notify (user_id, end_reason, notified),
    INDEX keep_sessions_expiring (expires)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- One row for each user whose sessions have been ended all together at least once.
CREATE TABLE IF NOT EXISTS keep_epochs (
    user_id VARBINARY(2000) NOT NULL PRIMARY KEY,
    -- Raised whenever all of the user's sessions are ended. Sessions with a lower epoch have ended.
    epoch BIGINT NOT NULL,
    -- When and why the sessions of the previous epoch ended.
    ended_at BIGINT NOT NULL,
    end_reason VARCHAR(64) NOT NULL,
    -- Until when the sessions of earlier epochs are kept.
    kept_until BIGINT NOT NULL,
    -- Whether the sessions of earlier epochs have been deleted.
    purged BOOLEAN NOT NULL,
    INDEX keep_epochs_to_purge (purged, kept_until)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- How often something was tried or used, such as a login. The layer makes the keys.
CREATE TABLE IF NOT EXISTS keep_counters (
    -- A digest of what is counted.
    counter_key BINARY(32) NOT NULL PRIMARY KEY,
    -- How many uses were taken, and when the last one was.
    uses BIGINT NOT NULL,
    last_use BIGINT NOT NULL,
    -- Raised whenever the counter starts over.
    epoch BIGINT NOT NULL,
    -- From when on the counter has no effect.
    expires BIGINT NOT NULL,
    INDEX keep_counters_expiring (expires)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ROW_FORMAT = DYNAMIC;

-- Each user has one of these 256 rows, chosen by a hash of the id. A login locks this row, so
-- logins of one user wait for each other.
CREATE TABLE IF NOT EXISTS keep_locks (slot SMALLINT NOT NULL PRIMARY KEY) ENGINE = InnoDB;

INSERT IGNORE INTO keep_locks (slot)
    WITH RECURSIVE slots (slot) AS (
        SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot < 255
    )
    SELECT slot FROM slots;

INSERT IGNORE INTO keep_versions (version) VALUES (1);
