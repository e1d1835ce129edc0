-- The indexes of 004 again; no row is changed. As in the migration, no statement blocks readers or writers,
-- and each can be run again.
SET lock_timeout = 0;
SET statement_timeout = 0;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_importance;
CREATE INDEX CONCURRENTLY idx_user_insights_importance
ON user_insights (user_id, importance, created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_created;
CREATE INDEX CONCURRENTLY idx_user_insights_created
ON user_insights (user_id, created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_type;
CREATE INDEX CONCURRENTLY idx_user_insights_type
ON user_insights (user_id, insight_type, created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_created;
CREATE INDEX CONCURRENTLY idx_conversation_context_created
ON conversation_context (user_id, created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_session;
CREATE INDEX CONCURRENTLY idx_conversation_context_session
ON conversation_context (user_id, session_id, created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_key;
CREATE INDEX CONCURRENTLY idx_conversation_context_key
ON conversation_context (user_id, context_key, created_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_patterns_updated;
CREATE INDEX CONCURRENTLY idx_user_patterns_updated
ON user_patterns (user_id, pattern_type, updated_at, id);

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_foremost;

DROP INDEX CONCURRENTLY IF EXISTS idx_user_insights_newest_of_type;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_newest_of_session;

DROP INDEX CONCURRENTLY IF EXISTS idx_conversation_context_newest_of_key;
