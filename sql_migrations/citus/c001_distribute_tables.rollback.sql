-- Everything comes back to the coordinator: see that its disk has room for it, twice over for a moment.
-- Citus does not undistribute a table that counts its ids by itself (its issue 6808), so three of the four
-- are rebuilt: their rows are held, the table is made anew after its own pattern, and the rows return.
-- Whoever reads or writes waits until that is done.
--
-- Nobody sees the new tables before they are whole, so they need no care for others:
-- squawk-ignore-file adding-serial-primary-key-field, constraint-missing-not-valid
-- squawk-ignore-file disallowed-unique-constraint, require-concurrent-index-creation
-- squawk-ignore-file renaming-object, renaming-table
SET LOCAL lock_timeout = '2s';

-- The copying may take longer than a query may.
SET LOCAL statement_timeout = 0;

SELECT undistribute_table('legacy_rows');

-- Citus selects from a distributed table into a new one, not into one that is there.
CREATE TEMPORARY TABLE held_patterns ON COMMIT DROP AS
SELECT * FROM user_patterns;

CREATE TABLE local_patterns (
    LIKE user_patterns INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING CONSTRAINTS
);

INSERT INTO local_patterns OVERRIDING SYSTEM VALUE
SELECT * FROM held_patterns;

-- An id that was given once is never given again: not on the coordinator, and not by a node, which counts in
-- a far higher range.
SELECT
    setval(
        'local_patterns_id_seq',
        greatest(last_value + is_called::INT, (SELECT max(local_patterns.id) + 1 FROM local_patterns)),
        FALSE
    )
FROM user_patterns_id_seq;

DROP TABLE user_patterns;

ALTER TABLE local_patterns RENAME TO user_patterns;

ALTER SEQUENCE local_patterns_id_seq RENAME TO user_patterns_id_seq;

ALTER TABLE user_patterns
ADD CONSTRAINT user_patterns_pkey PRIMARY KEY (user_id, id),
ADD CONSTRAINT user_patterns_key UNIQUE (user_id, pattern_type, pattern_key);

CREATE INDEX idx_user_patterns_updated
ON user_patterns (user_id, pattern_type, updated_at, id);

CREATE TEMPORARY TABLE held_context ON COMMIT DROP AS
SELECT * FROM conversation_context;

CREATE TABLE local_context (
    LIKE conversation_context INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING CONSTRAINTS
);

INSERT INTO local_context OVERRIDING SYSTEM VALUE
SELECT * FROM held_context;

SELECT
    setval(
        'local_context_id_seq',
        greatest(last_value + is_called::INT, (SELECT max(local_context.id) + 1 FROM local_context)),
        FALSE
    )
FROM conversation_context_id_seq;

DROP TABLE conversation_context;

ALTER TABLE local_context RENAME TO conversation_context;

ALTER SEQUENCE local_context_id_seq RENAME TO conversation_context_id_seq;

ALTER TABLE conversation_context
ADD CONSTRAINT conversation_context_pkey PRIMARY KEY (user_id, id);

CREATE INDEX idx_conversation_context_key
ON conversation_context (user_id, context_key, created_at, id);

CREATE INDEX idx_conversation_context_session
ON conversation_context (user_id, session_id, created_at, id);

CREATE INDEX idx_conversation_context_created
ON conversation_context (user_id, created_at, id);

CREATE INDEX idx_conversation_context_expires
ON conversation_context (user_id, expires_at)
WHERE expires_at IS NOT NULL;

CREATE TEMPORARY TABLE held_insights ON COMMIT DROP AS
SELECT * FROM user_insights;

CREATE TABLE local_insights (
    LIKE user_insights INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING CONSTRAINTS
);

INSERT INTO local_insights OVERRIDING SYSTEM VALUE
SELECT * FROM held_insights;

SELECT
    setval(
        'local_insights_id_seq',
        greatest(last_value + is_called::INT, (SELECT max(local_insights.id) + 1 FROM local_insights)),
        FALSE
    )
FROM user_insights_id_seq;

DROP TABLE user_insights;

ALTER TABLE local_insights RENAME TO user_insights;

ALTER SEQUENCE local_insights_id_seq RENAME TO user_insights_id_seq;

ALTER TABLE user_insights
ADD CONSTRAINT user_insights_pkey PRIMARY KEY (user_id, id);

CREATE INDEX idx_user_insights_type
ON user_insights (user_id, insight_type, created_at, id);

CREATE INDEX idx_user_insights_created
ON user_insights (user_id, created_at, id);

CREATE INDEX idx_user_insights_importance
ON user_insights (user_id, importance, created_at, id);
