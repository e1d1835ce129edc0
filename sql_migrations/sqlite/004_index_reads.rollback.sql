-- The indexes of 001 again; no data is touched.
DROP INDEX idx_user_insights_importance;

DROP INDEX idx_user_insights_created;

DROP INDEX idx_user_insights_type;

CREATE INDEX idx_user_insights_user
ON user_insights (user_id, insight_type);

DROP INDEX idx_conversation_context_expires;

DROP INDEX idx_conversation_context_created;

DROP INDEX idx_conversation_context_session;

DROP INDEX idx_conversation_context_key;

CREATE INDEX idx_conversation_context_user
ON conversation_context (user_id, session_id);

DROP INDEX idx_user_patterns_updated;

CREATE INDEX idx_user_patterns_user_type
ON user_patterns (user_id, pattern_type);
