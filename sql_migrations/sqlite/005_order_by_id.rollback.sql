-- The indexes of 004 again; no row is changed.
DROP INDEX idx_user_insights_foremost;

CREATE INDEX idx_user_insights_importance
ON user_insights (user_id, importance, created_at);

DROP INDEX idx_user_insights_newest;

CREATE INDEX idx_user_insights_created
ON user_insights (user_id, created_at);

DROP INDEX idx_user_insights_newest_of_type;

CREATE INDEX idx_user_insights_type
ON user_insights (user_id, insight_type, created_at);

DROP INDEX idx_conversation_context_newest;

CREATE INDEX idx_conversation_context_created
ON conversation_context (user_id, created_at);

DROP INDEX idx_conversation_context_newest_of_session;

CREATE INDEX idx_conversation_context_session
ON conversation_context (user_id, session_id, created_at);

DROP INDEX idx_conversation_context_newest_of_key;

CREATE INDEX idx_conversation_context_key
ON conversation_context (user_id, context_key, created_at);

CREATE INDEX idx_user_patterns_updated
ON user_patterns (user_id, pattern_type, updated_at);
