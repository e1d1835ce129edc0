-- The earlier app reads JSON first, so what 002 quoted stays quoted and reads the same. What 002 had to
-- change, NaN, goes back word for word, unless the row has been deleted or saved over since.
UPDATE user_patterns SET pattern_value = legacy_rows.value
FROM legacy_rows
WHERE
    legacy_rows.migration_id = '002_store_values_as_json'
    AND legacy_rows.table_name = 'user_patterns'
    AND legacy_rows.row_id = user_patterns.id
    AND legacy_rows.user_id = user_patterns.user_id
    -- By instant, not by text: 003 may have written the same time in its own form.
    AND julianday(legacy_rows.updated_at) IS julianday(user_patterns.updated_at);

UPDATE conversation_context SET context_value = legacy_rows.value
FROM legacy_rows
WHERE
    legacy_rows.migration_id = '002_store_values_as_json'
    AND legacy_rows.table_name = 'conversation_context'
    AND legacy_rows.row_id = conversation_context.id
    AND legacy_rows.user_id = conversation_context.user_id;

UPDATE user_insights SET insight_data = legacy_rows.value
FROM legacy_rows
WHERE
    legacy_rows.migration_id = '002_store_values_as_json'
    AND legacy_rows.table_name = 'user_insights'
    AND legacy_rows.row_id = user_insights.id
    AND legacy_rows.user_id = user_insights.user_id;

DROP TABLE legacy_rows;
