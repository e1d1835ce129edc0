-- From here on the database itself refuses what is wrong: nothing is NULL that means something, confidence
-- and importance lie between 0 and 1 (so they are not NaN either), and keys are not empty. That values are
-- JSON and times are times has been in their types since 001.
--
-- The players go on playing meanwhile. Each rule comes NOT VALID first, which takes a moment and holds for
-- what is written from then on; then what is there already is checked, while others read and write. A column
-- becomes NOT NULL by way of a check that proves it, so that nothing is read again while the table is locked.
-- This takes more than one transaction, so each statement can be run again: after an interruption, the same
-- command starts over from the first.
--
-- The storage has never written a row that breaks a rule. Should somebody else have, VALIDATE names the rule,
-- nothing is lost, and the same command goes on once the row is mended.
-- transactional: false
-- depends: 002_store_values_as_json

-- Whoever comes after a statement that waits for a lock waits with it, so it gives up soon.
SET lock_timeout = '2s';

-- Checking a big table may take longer than a query may.
SET statement_timeout = 0;

ALTER TABLE user_patterns
DROP CONSTRAINT IF EXISTS user_patterns_pattern_type_not_empty,
ADD CONSTRAINT user_patterns_pattern_type_not_empty CHECK (pattern_type <> '') NOT VALID,
DROP CONSTRAINT IF EXISTS user_patterns_pattern_key_not_empty,
ADD CONSTRAINT user_patterns_pattern_key_not_empty CHECK (pattern_key <> '') NOT VALID,
DROP CONSTRAINT IF EXISTS user_patterns_confidence_range,
ADD CONSTRAINT user_patterns_confidence_range CHECK (confidence BETWEEN 0 AND 1) NOT VALID,
DROP CONSTRAINT IF EXISTS user_patterns_no_nulls,
ADD CONSTRAINT user_patterns_no_nulls CHECK (
    confidence IS NOT NULL
    AND created_at IS NOT NULL
    AND updated_at IS NOT NULL
) NOT VALID;

-- All in one statement: the table is read once.
ALTER TABLE user_patterns
VALIDATE CONSTRAINT user_patterns_pattern_type_not_empty,
VALIDATE CONSTRAINT user_patterns_pattern_key_not_empty,
VALIDATE CONSTRAINT user_patterns_confidence_range,
VALIDATE CONSTRAINT user_patterns_no_nulls;

ALTER TABLE user_patterns
ALTER COLUMN confidence SET NOT NULL,
ALTER COLUMN created_at SET NOT NULL,
ALTER COLUMN updated_at SET NOT NULL;

-- It has proved what it was there for.
ALTER TABLE user_patterns
DROP CONSTRAINT IF EXISTS user_patterns_no_nulls;

ALTER TABLE conversation_context
DROP CONSTRAINT IF EXISTS conversation_context_context_key_not_empty,
ADD CONSTRAINT conversation_context_context_key_not_empty CHECK (context_key <> '') NOT VALID,
DROP CONSTRAINT IF EXISTS conversation_context_no_nulls,
ADD CONSTRAINT conversation_context_no_nulls CHECK (created_at IS NOT NULL) NOT VALID;

ALTER TABLE conversation_context
VALIDATE CONSTRAINT conversation_context_context_key_not_empty,
VALIDATE CONSTRAINT conversation_context_no_nulls;

ALTER TABLE conversation_context
ALTER COLUMN created_at SET NOT NULL;

ALTER TABLE conversation_context
DROP CONSTRAINT IF EXISTS conversation_context_no_nulls;

ALTER TABLE user_insights
DROP CONSTRAINT IF EXISTS user_insights_insight_type_not_empty,
ADD CONSTRAINT user_insights_insight_type_not_empty CHECK (insight_type <> '') NOT VALID,
DROP CONSTRAINT IF EXISTS user_insights_importance_range,
ADD CONSTRAINT user_insights_importance_range CHECK (importance BETWEEN 0 AND 1) NOT VALID,
DROP CONSTRAINT IF EXISTS user_insights_no_nulls,
ADD CONSTRAINT user_insights_no_nulls CHECK (
    importance IS NOT NULL
    AND created_at IS NOT NULL
) NOT VALID;

ALTER TABLE user_insights
VALIDATE CONSTRAINT user_insights_insight_type_not_empty,
VALIDATE CONSTRAINT user_insights_importance_range,
VALIDATE CONSTRAINT user_insights_no_nulls;

ALTER TABLE user_insights
ALTER COLUMN importance SET NOT NULL,
ALTER COLUMN created_at SET NOT NULL;

ALTER TABLE user_insights
DROP CONSTRAINT IF EXISTS user_insights_no_nulls;
