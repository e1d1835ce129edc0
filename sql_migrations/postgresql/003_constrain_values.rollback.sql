-- The rules go, the rows stay as they are. Each statement takes a moment and can be run again; it also takes
-- back what an interrupted run of the migration has left.
SET lock_timeout = '2s';

ALTER TABLE user_insights
DROP CONSTRAINT IF EXISTS user_insights_no_nulls,
DROP CONSTRAINT IF EXISTS user_insights_importance_range,
DROP CONSTRAINT IF EXISTS user_insights_insight_type_not_empty,
ALTER COLUMN importance DROP NOT NULL,
ALTER COLUMN created_at DROP NOT NULL;

ALTER TABLE conversation_context
DROP CONSTRAINT IF EXISTS conversation_context_no_nulls,
DROP CONSTRAINT IF EXISTS conversation_context_context_key_not_empty,
ALTER COLUMN created_at DROP NOT NULL;

ALTER TABLE user_patterns
DROP CONSTRAINT IF EXISTS user_patterns_no_nulls,
DROP CONSTRAINT IF EXISTS user_patterns_confidence_range,
DROP CONSTRAINT IF EXISTS user_patterns_pattern_key_not_empty,
DROP CONSTRAINT IF EXISTS user_patterns_pattern_type_not_empty,
ALTER COLUMN confidence DROP NOT NULL,
ALTER COLUMN created_at DROP NOT NULL,
ALTER COLUMN updated_at DROP NOT NULL;
