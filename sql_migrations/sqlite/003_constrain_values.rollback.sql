-- The tables of 001 again, to the letter, so that the earlier app can write to them as it did. Times keep
-- the one form that 003 gave them: it is one of those that the earlier app wrote itself.
-- Rows that 003 had to mend or withhold return as they were, unless they have been saved over since.
CREATE TABLE held_sequences AS
SELECT
    name,
    seq
FROM sqlite_sequence
WHERE name IN ('user_patterns', 'conversation_context', 'user_insights');

CREATE TABLE held_patterns AS
SELECT * FROM user_patterns;

DROP TABLE user_patterns;

CREATE TABLE user_patterns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    pattern_type TEXT NOT NULL,
    pattern_key TEXT NOT NULL,
    pattern_value TEXT NOT NULL,
    confidence REAL DEFAULT 1.0,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (user_id) REFERENCES users (id),
    UNIQUE (user_id, pattern_type, pattern_key)
);

INSERT INTO user_patterns
SELECT * FROM held_patterns;

DROP TABLE held_patterns;

CREATE INDEX idx_user_patterns_user_type
ON user_patterns (user_id, pattern_type);

INSERT OR REPLACE INTO user_patterns (
    id, user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at
)
SELECT
    row_id,
    user_id,
    kind,
    item_key,
    value,
    score,
    created_at,
    updated_at
FROM legacy_rows
WHERE
    migration_id = '003_constrain_values'
    AND table_name = 'user_patterns'
    AND NOT EXISTS (
        SELECT 1 FROM user_patterns
        WHERE
            user_patterns.id = legacy_rows.row_id
            AND JULIANDAY(user_patterns.updated_at)
            IS NOT COALESCE(
                CASE
                    WHEN TYPEOF(legacy_rows.updated_at) = 'text'
                        THEN JULIANDAY(legacy_rows.updated_at)
                END,
                JULIANDAY('1970-01-01')
            )
    );

CREATE TABLE held_context AS
SELECT * FROM conversation_context;

DROP TABLE conversation_context;

CREATE TABLE conversation_context (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    context_value TEXT NOT NULL,
    session_id TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP,
    FOREIGN KEY (user_id) REFERENCES users (id)
);

INSERT INTO conversation_context
SELECT * FROM held_context;

DROP TABLE held_context;

CREATE INDEX idx_conversation_context_user
ON conversation_context (user_id, session_id);

INSERT OR REPLACE INTO conversation_context (
    id, user_id, context_key, context_value, session_id, created_at, expires_at
)
SELECT
    row_id,
    user_id,
    item_key,
    value,
    session_id,
    created_at,
    expires_at
FROM legacy_rows
WHERE migration_id = '003_constrain_values' AND table_name = 'conversation_context';

CREATE TABLE held_insights AS
SELECT * FROM user_insights;

DROP TABLE user_insights;

CREATE TABLE user_insights (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    insight_type TEXT NOT NULL,
    insight_data TEXT NOT NULL,
    importance REAL DEFAULT 0.5,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (user_id) REFERENCES users (id)
);

INSERT INTO user_insights
SELECT * FROM held_insights;

DROP TABLE held_insights;

CREATE INDEX idx_user_insights_user
ON user_insights (user_id, insight_type);

INSERT OR REPLACE INTO user_insights (
    id, user_id, insight_type, insight_data, importance, created_at
)
SELECT
    row_id,
    user_id,
    kind,
    value,
    score,
    created_at
FROM legacy_rows
WHERE migration_id = '003_constrain_values' AND table_name = 'user_insights';

DELETE FROM legacy_rows
WHERE migration_id = '003_constrain_values';

DELETE FROM sqlite_sequence
WHERE name IN ('user_patterns', 'conversation_context', 'user_insights');

INSERT INTO sqlite_sequence (name, seq)
SELECT
    name,
    seq
FROM held_sequences;

DROP TABLE held_sequences;
