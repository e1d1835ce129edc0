-- What copying asks of PostgreSQL.

-- name: identity(schema)
-- No two servers started in the same microsecond, whatever name leads to them.
SELECT
    CAST(:schema AS TEXT) AS schema_name,
    CAST(pg_postmaster_start_time() AS TEXT) AS started,
    current_database() AS database_name;

-- name: lift_limits()
-- A copy takes as long as it takes; which limits there are depends on the server's version.
SELECT set_config(name, '0', TRUE) FROM pg_settings
WHERE
    name IN (
        'statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'
    );

-- name: columns(table_name)
SELECT CAST(attribute.attname AS TEXT)
FROM pg_attribute AS attribute
WHERE
    attribute.attrelid = to_regclass(:table_name)
    AND attribute.attnum > 0
    AND NOT attribute.attisdropped
    AND attribute.attgenerated = ''
ORDER BY attribute.attnum;

-- name: counter_of(table_name, column_name)
-- The sequence that counts a table's ids, quoted where it has to be.
SELECT pg_get_serial_sequence(:table_name, :column_name);

-- name: go_on_after(counter, last_id)
SELECT setval(:counter, :last_id, TRUE);

-- name: start_over(counter)
SELECT setval(:counter, 1, FALSE);
