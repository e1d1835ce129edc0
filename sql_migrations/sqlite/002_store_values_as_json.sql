-- Every value becomes valid JSON, and reads as it read before.
-- The earlier app wrote a text as it was and everything else as JSON; it read JSON first and took what
-- was no JSON for text. So a value that is valid JSON stays to the letter, and any other text becomes a
-- JSON string of itself.
--
-- One thing JSON has no word for: NaN and the infinities, which Python wrote bare and read back. Each
-- becomes the string of its name ("NaN", "Infinity", "-Infinity"; float() of it is the number again),
-- alone or inside an object, and the row as it was is kept in legacy_rows.
-- depends: 001_add_pattern_storage

-- Rows that a migration could not keep to the letter, as they stood before it; its rollback puts them
-- back. One shape for all three tables: kind is the type, item_key the key, score the confidence or the
-- importance.
CREATE TABLE legacy_rows (
    migration_id TEXT NOT NULL,
    table_name TEXT NOT NULL,
    row_id INTEGER NOT NULL,
    -- ANY keeps even what has the wrong type.
    user_id ANY NOT NULL,
    kind ANY,
    item_key ANY,
    value ANY,
    score ANY,
    session_id ANY,
    created_at ANY,
    updated_at ANY,
    expires_at ANY,
    -- By player first: serves the export and the forgetting of one.
    PRIMARY KEY (user_id, migration_id, table_name, row_id)
) STRICT, WITHOUT ROWID;

-- The values that need more than quoting, and the JSON that each becomes.
CREATE TABLE odd_values (
    table_name TEXT NOT NULL,
    row_id INTEGER NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (table_name, row_id)
) STRICT, WITHOUT ROWID;

WITH
stored AS (
    SELECT
        'user_patterns' AS table_name,
        id AS row_id,
        pattern_value AS value
    FROM user_patterns
    UNION ALL
    SELECT
        'conversation_context',
        id,
        context_value
    FROM conversation_context
    UNION ALL
    SELECT
        'user_insights',
        id,
        insight_data
    FROM user_insights
),

-- A text with NaN in it may be JSON but for that. Escaped backslashes and quotes, char(92, 92) and
-- char(92, 34), are masked by control characters, which no JSON text holds bare, so that every quote left
-- opens or closes a string.
suspect AS (
    SELECT
        table_name,
        row_id,
        replace(replace(value, char(92, 92), char(1)), char(92, 34), char(2)) AS masked
    FROM stored
    WHERE
        typeof(value) = 'text'
        AND NOT json_valid(value)
        AND (instr(value, 'NaN') OR instr(value, 'Infinity'))
        AND NOT instr(value, char(0))
        AND NOT instr(value, char(1))
        AND NOT instr(value, char(2))
        AND NOT instr(value, char(3))
),

-- Cut at the quotes, by making a JSON array of the pieces: those with an even key lie outside strings.
piece AS (
    SELECT
        suspect.table_name,
        suspect.row_id,
        cut.key AS place,
        cut.value AS inside,
        CASE
            WHEN cut.key % 2 = 0
                THEN replace(replace(cut.value, '-Infinity', char(3)), 'Infinity', '"Infinity"')
        END AS outside
    FROM suspect, json_each('[' || replace(json_quote(suspect.masked), char(92, 34), '","') || ']') AS cut
),

-- Whether it is JSON shows with null in the place of each number: a name is no key, and 1NaN no number.
repair AS (
    SELECT
        table_name,
        row_id,
        group_concat(
            coalesce(
                replace(replace(replace(outside, char(3), 'null'), '"Infinity"', 'null'), 'NaN', 'null'),
                inside
            ), '"'
        ) AS probe,
        group_concat(
            coalesce(replace(replace(outside, 'NaN', '"NaN"'), char(3), '"-Infinity"'), inside), '"'
        ) AS repaired
    FROM (
        SELECT * FROM piece
        ORDER BY table_name, row_id, place
    ) AS in_order
    GROUP BY table_name, row_id
)

INSERT INTO odd_values (table_name, row_id, json)
SELECT
    table_name,
    row_id,
    replace(replace(repaired, char(2), char(92, 34)), char(1), char(92, 92))
FROM repair
WHERE json_valid(replace(replace(probe, char(2), char(92, 34)), char(1), char(92, 92)))
UNION ALL
-- The earlier app wrote no bytes; should some be there, their hexadecimal digits stand for them.
SELECT
    table_name,
    row_id,
    json_quote(hex(value))
FROM stored
WHERE typeof(value) = 'blob';

INSERT INTO legacy_rows (
    migration_id, table_name, row_id, user_id, kind, item_key, value, score, created_at, updated_at
)
SELECT
    '002_store_values_as_json',
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
WHERE id IN (
    SELECT odd_values.row_id FROM odd_values
    WHERE odd_values.table_name = 'user_patterns'
);

INSERT INTO legacy_rows (
    migration_id, table_name, row_id, user_id, item_key, value, session_id, created_at, expires_at
)
SELECT
    '002_store_values_as_json',
    'conversation_context',
    id,
    user_id,
    context_key,
    context_value,
    session_id,
    created_at,
    expires_at
FROM conversation_context
WHERE id IN (
    SELECT odd_values.row_id FROM odd_values
    WHERE odd_values.table_name = 'conversation_context'
);

INSERT INTO legacy_rows (
    migration_id, table_name, row_id, user_id, kind, value, score, created_at
)
SELECT
    '002_store_values_as_json',
    'user_insights',
    id,
    user_id,
    insight_type,
    insight_data,
    importance,
    created_at
FROM user_insights
WHERE id IN (
    SELECT odd_values.row_id FROM odd_values
    WHERE odd_values.table_name = 'user_insights'
);

UPDATE user_patterns SET pattern_value = odd_values.json
FROM odd_values
WHERE odd_values.table_name = 'user_patterns' AND odd_values.row_id = user_patterns.id;

UPDATE conversation_context SET context_value = odd_values.json
FROM odd_values
WHERE odd_values.table_name = 'conversation_context' AND odd_values.row_id = conversation_context.id;

UPDATE user_insights SET insight_data = odd_values.json
FROM odd_values
WHERE odd_values.table_name = 'user_insights' AND odd_values.row_id = user_insights.id;

DROP TABLE odd_values;

-- json_valid() reads up to the first NUL; Python read on and found no JSON.
UPDATE user_patterns SET pattern_value = json_quote(pattern_value)
WHERE NOT json_valid(pattern_value) OR instr(pattern_value, char(0));

UPDATE conversation_context SET context_value = json_quote(context_value)
WHERE NOT json_valid(context_value) OR instr(context_value, char(0));

UPDATE user_insights SET insight_data = json_quote(insight_data)
WHERE NOT json_valid(insight_data) OR instr(insight_data, char(0));
