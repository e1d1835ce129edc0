-- From here on the database itself refuses what is wrong: types are STRICT, nothing is NULL that means
-- something, values are JSON, confidence and importance lie between 0 and 1, keys are not empty, and each
-- time has the one form YYYY-MM-DDTHH:MM:SS.ffffff+00:00 (UTC), which sorts as text. The foreign key to the
-- app's users goes: SQLite never enforced it for the app, and its rows may name users that do not exist.
--
-- Rows that break the new rules are met like this; each stays in legacy_rows as it was, and the rollback
-- puts it back:
--   confidence or importance out of range    the nearest bound; NULL or no number: the default
--   an empty key or type                     '(empty)'; bytes: their hexadecimal digits
--   created_at or updated_at no time         1970-01-01, older than anything known
--   expires_at no time                       NULL, it never expires: the earlier app showed it too
--   user_id no integer, or a mended key
--   that the player has already              kept in legacy_rows alone
--
-- SQLite cannot add a constraint to a table, so each is rebuilt: its rows are held, the table is made anew
-- under its own name and the rows return. (Renaming would be one copy less, but it fails where the operator
-- has a view on the table, and it leaves the name in quotes.)
-- depends: 002_store_values_as_json

-- An id that was given once is never given again, so where each table's counter stood is held too.
CREATE TABLE held_sequences AS
SELECT
    name,
    seq
FROM sqlite_sequence
WHERE name IN ('user_patterns', 'conversation_context', 'user_insights');

INSERT INTO legacy_rows (
    migration_id, table_name, row_id, user_id, kind, item_key, value, score, created_at, updated_at
)
SELECT
    '003_constrain_values',
    'user_patterns',
    id,
    user_id,
    pattern_type,
    pattern_key,
    pattern_value,
    confidence,
    created_at,
    updated_at
FROM user_patterns
WHERE
    typeof(user_id) <> 'integer'
    OR typeof(pattern_type) <> 'text' OR pattern_type = ''
    OR typeof(pattern_key) <> 'text' OR pattern_key = ''
    OR typeof(confidence) NOT IN ('real', 'integer') OR confidence NOT BETWEEN 0.0 AND 1.0
    OR typeof(created_at) <> 'text' OR julianday(created_at) IS NULL
    OR typeof(updated_at) <> 'text' OR julianday(updated_at) IS NULL;

CREATE TABLE held_patterns AS
SELECT
    id,
    user_id,
    CASE
        WHEN typeof(pattern_type) = 'blob' THEN hex(pattern_type)
        ELSE coalesce(nullif(pattern_type, ''), '(empty)')
    END AS pattern_type,
    CASE
        WHEN typeof(pattern_key) = 'blob' THEN hex(pattern_key)
        ELSE coalesce(nullif(pattern_key, ''), '(empty)')
    END AS pattern_key,
    iif(json_valid(pattern_value), pattern_value, json_quote(pattern_value)) AS pattern_value,
    CASE
        WHEN typeof(confidence) IN ('real', 'integer') THEN min(max(confidence, 0.0), 1.0)
        ELSE 1.0
    END AS confidence,
    CASE
        WHEN typeof(created_at) <> 'text' OR julianday(created_at) IS NULL
            THEN '1970-01-01T00:00:00.000000+00:00'
        WHEN created_at GLOB '????-??-??T??:??:??.??????+00:00' THEN created_at
        ELSE strftime('%Y-%m-%dT%H:%M:%f000+00:00', created_at)
    END AS created_at,
    CASE
        WHEN typeof(updated_at) <> 'text' OR julianday(updated_at) IS NULL
            THEN '1970-01-01T00:00:00.000000+00:00'
        WHEN updated_at GLOB '????-??-??T??:??:??.??????+00:00' THEN updated_at
        ELSE strftime('%Y-%m-%dT%H:%M:%f000+00:00', updated_at)
    END AS updated_at
FROM user_patterns
WHERE typeof(user_id) = 'integer';

DROP TABLE user_patterns;

CREATE TABLE user_patterns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    pattern_type TEXT NOT NULL CHECK (pattern_type <> ''),
    pattern_key TEXT NOT NULL CHECK (pattern_key <> ''),
    pattern_value TEXT NOT NULL CHECK (json_valid(pattern_value)),
    confidence REAL NOT NULL DEFAULT 1.0 CHECK (confidence BETWEEN 0.0 AND 1.0),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))
    CHECK (created_at GLOB '????-??-??T??:??:??.??????+00:00'),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))
    CHECK (updated_at GLOB '????-??-??T??:??:??.??????+00:00'),
    UNIQUE (user_id, pattern_type, pattern_key)
) STRICT;

-- What needed no mending goes first, so that a mended key never takes the place of a real one.
INSERT INTO user_patterns
SELECT * FROM held_patterns
WHERE
    id NOT IN (
        SELECT legacy_rows.row_id FROM legacy_rows
        WHERE
            legacy_rows.migration_id = '003_constrain_values'
            AND legacy_rows.table_name = 'user_patterns'
    );

INSERT INTO user_patterns
SELECT * FROM held_patterns
WHERE
    id IN (
        SELECT legacy_rows.row_id FROM legacy_rows
        WHERE
            legacy_rows.migration_id = '003_constrain_values'
            AND legacy_rows.table_name = 'user_patterns'
    )
ON CONFLICT (user_id, pattern_type, pattern_key) DO NOTHING;

DROP TABLE held_patterns;

CREATE INDEX idx_user_patterns_user_type
ON user_patterns (user_id, pattern_type);

INSERT INTO legacy_rows (
    migration_id, table_name, row_id, user_id, item_key, value, session_id, created_at, expires_at
)
SELECT
    '003_constrain_values',
    'conversation_context',
    id,
    user_id,
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE
    typeof(user_id) <> 'integer'
    OR typeof(context_key) <> 'text' OR context_key = ''
    OR typeof(session_id) = 'blob'
    OR typeof(created_at) <> 'text' OR julianday(created_at) IS NULL
    OR (expires_at IS NOT NULL AND (typeof(expires_at) <> 'text' OR julianday(expires_at) IS NULL));

CREATE TABLE held_context AS
SELECT
    id,
    user_id,
    CASE
        WHEN typeof(context_key) = 'blob' THEN hex(context_key)
        ELSE coalesce(nullif(context_key, ''), '(empty)')
    END AS context_key,
    iif(json_valid(context_value), context_value, json_quote(context_value)) AS context_value,
    iif(typeof(session_id) = 'blob', hex(session_id), session_id) AS session_id,
    CASE
        WHEN typeof(created_at) <> 'text' OR julianday(created_at) IS NULL
            THEN '1970-01-01T00:00:00.000000+00:00'
        WHEN created_at GLOB '????-??-??T??:??:??.??????+00:00' THEN created_at
        ELSE strftime('%Y-%m-%dT%H:%M:%f000+00:00', created_at)
    END AS created_at,
    CASE
        WHEN typeof(expires_at) <> 'text' OR julianday(expires_at) IS NULL THEN NULL
        WHEN expires_at GLOB '????-??-??T??:??:??.??????+00:00' THEN expires_at
        ELSE strftime('%Y-%m-%dT%H:%M:%f000+00:00', expires_at)
    END AS expires_at
FROM conversation_context
WHERE typeof(user_id) = 'integer';

DROP TABLE conversation_context;

CREATE TABLE conversation_context (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    context_key TEXT NOT NULL CHECK (context_key <> ''),
    context_value TEXT NOT NULL CHECK (json_valid(context_value)),
    session_id TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))
    CHECK (created_at GLOB '????-??-??T??:??:??.??????+00:00'),
    -- NULL never expires.
    expires_at TEXT CHECK (expires_at GLOB '????-??-??T??:??:??.??????+00:00')
) STRICT;

INSERT INTO conversation_context
SELECT * FROM held_context;

DROP TABLE held_context;

CREATE INDEX idx_conversation_context_user
ON conversation_context (user_id, session_id);

INSERT INTO legacy_rows (
    migration_id, table_name, row_id, user_id, kind, value, score, created_at
)
SELECT
    '003_constrain_values',
    'user_insights',
    id,
    user_id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE
    typeof(user_id) <> 'integer'
    OR typeof(insight_type) <> 'text' OR insight_type = ''
    OR typeof(importance) NOT IN ('real', 'integer') OR importance NOT BETWEEN 0.0 AND 1.0
    OR typeof(created_at) <> 'text' OR julianday(created_at) IS NULL;

CREATE TABLE held_insights AS
SELECT
    id,
    user_id,
    CASE
        WHEN typeof(insight_type) = 'blob' THEN hex(insight_type)
        ELSE coalesce(nullif(insight_type, ''), '(empty)')
    END AS insight_type,
    iif(json_valid(insight_data), insight_data, json_quote(insight_data)) AS insight_data,
    CASE
        WHEN typeof(importance) IN ('real', 'integer') THEN min(max(importance, 0.0), 1.0)
        ELSE 0.5
    END AS importance,
    CASE
        WHEN typeof(created_at) <> 'text' OR julianday(created_at) IS NULL
            THEN '1970-01-01T00:00:00.000000+00:00'
        WHEN created_at GLOB '????-??-??T??:??:??.??????+00:00' THEN created_at
        ELSE strftime('%Y-%m-%dT%H:%M:%f000+00:00', created_at)
    END AS created_at
FROM user_insights
WHERE typeof(user_id) = 'integer';

DROP TABLE user_insights;

CREATE TABLE user_insights (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    insight_type TEXT NOT NULL CHECK (insight_type <> ''),
    insight_data TEXT NOT NULL CHECK (json_valid(insight_data)),
    importance REAL NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0.0 AND 1.0),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))
    CHECK (created_at GLOB '????-??-??T??:??:??.??????+00:00')
) STRICT;

INSERT INTO user_insights
SELECT * FROM held_insights;

DROP TABLE held_insights;

CREATE INDEX idx_user_insights_user
ON user_insights (user_id, insight_type);

DELETE FROM sqlite_sequence
WHERE name IN ('user_patterns', 'conversation_context', 'user_insights');

INSERT INTO sqlite_sequence (name, seq)
SELECT
    name,
    seq
FROM held_sequences;

DROP TABLE held_sequences;
