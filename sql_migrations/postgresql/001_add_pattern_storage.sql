-- What Rex remembers of a player: patterns, the context of a conversation, and insights.
-- Earlier versions of the app knew SQLite alone, so there is nothing here to adopt or to convert, and what
-- the SQLite twin has to leave to its later migrations can be right at once: values are JSON (not JSONB,
-- which reorders keys, changes numbers and refuses an escaped NUL), times know that they are UTC, and there
-- is no foreign key to the users of an app whose table may lie elsewhere.
--
-- Every key starts with user_id: so all of one player's rows can live on one node of a Citus cluster.
-- Texts are compared by their bytes (COLLATE "C"), as SQLite does: both engines sort alike, and an upgrade
-- of the operating system's locales can break no index.
--
-- The tables are new, so nobody waits for them while they are indexed:
-- squawk-ignore-file require-concurrent-index-creation, require-lock-timeout
CREATE TABLE user_patterns (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    user_id BIGINT NOT NULL,
    pattern_type TEXT COLLATE "C" NOT NULL,
    pattern_key TEXT COLLATE "C" NOT NULL,
    pattern_value JSON NOT NULL,
    confidence DOUBLE PRECISION DEFAULT 1.0,
    created_at TIMESTAMPTZ DEFAULT now(),
    updated_at TIMESTAMPTZ DEFAULT now(),
    CONSTRAINT user_patterns_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT user_patterns_key UNIQUE (user_id, pattern_type, pattern_key)
);

CREATE INDEX idx_user_patterns_user_type
ON user_patterns (user_id, pattern_type);

CREATE TABLE conversation_context (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    user_id BIGINT NOT NULL,
    context_key TEXT COLLATE "C" NOT NULL,
    context_value JSON NOT NULL,
    session_id TEXT COLLATE "C",
    created_at TIMESTAMPTZ DEFAULT now(),
    -- NULL never expires.
    expires_at TIMESTAMPTZ,
    CONSTRAINT conversation_context_pkey PRIMARY KEY (user_id, id)
);

CREATE INDEX idx_conversation_context_user
ON conversation_context (user_id, session_id);

CREATE TABLE user_insights (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    user_id BIGINT NOT NULL,
    insight_type TEXT COLLATE "C" NOT NULL,
    insight_data JSON NOT NULL,
    importance DOUBLE PRECISION DEFAULT 0.5,
    created_at TIMESTAMPTZ DEFAULT now(),
    CONSTRAINT user_insights_pkey PRIMARY KEY (user_id, id)
);

CREATE INDEX idx_user_insights_user
ON user_insights (user_id, insight_type);
