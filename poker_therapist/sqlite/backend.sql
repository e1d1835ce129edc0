-- What the SQLite backend asks.

-- name: kept_without_texts(migration_table)
-- For texts that are longer than any of a migration. Not to have one of the rollback forbids to run it.
SELECT -- noqa: ST06
    cast(migration_id AS TEXT) AS migration_id,
    cast(applied_at AS TEXT) AS applied_at,
    substr(checksum, 1, 64) AS checksum,
    '-- too long to be read' AS apply_sql,
    NULL AS rollback_sql
FROM _migration_text
WHERE migration_table = :migration_table AND migration_id IS NOT NULL AND apply_sql IS NOT NULL;

-- name: all_tables()
SELECT name FROM sqlite_schema
WHERE type = 'table';

-- name: tables_of_schema(schema_name)
-- SQLite has none that could be dropped.
SELECT name FROM sqlite_schema
WHERE name IS NULL AND :schema_name IS NULL;

-- name: user_tables()
-- Tables that hold somebody's data, not the bookkeeping of SQLite, yoyo or ours.
SELECT name FROM sqlite_schema
WHERE
    type = 'table'
    AND name NOT GLOB 'sqlite_*'
    AND name NOT GLOB '_yoyo_*'
    AND name NOT GLOB '_migration_*'
    AND name <> 'yoyo_lock';

-- name: present()
-- In this file alone: a migration may have made a temporary table of the same name.
-- A virtual table, which has no page of its own, may need a module that only the app loads.
SELECT
    lower(type || ' ' || name),
    printf('DROP %s "%w";', upper(type), name) AS dropping
FROM sqlite_schema
WHERE sql IS NOT NULL AND tbl_name NOT GLOB '_yoyo_*' AND tbl_name NOT GLOB '_migration_*'
UNION ALL
SELECT
    lower('column ' || "table".name || '.' || "column".name),
    printf('ALTER TABLE "%w" DROP COLUMN "%w";', "table".name, "column".name)
FROM sqlite_schema AS "table", pragma_table_xinfo("table".name, 'main') AS "column"
WHERE "table".type = 'table' AND "table".rootpage > 0;

-- name: countable()
-- The columns of the tables that hold somebody's data; what a virtual table keeps for itself is not that.
SELECT
    'main' AS schema_name,
    "table".name AS table_name,
    "column".name AS column_name,
    printf('main."%w"', "table".name) AS written,
    printf('"%w"', "column".name) AS column_written
FROM sqlite_schema AS "table", pragma_table_xinfo("table".name, 'main') AS "column"
WHERE
    "table".type = 'table'
    AND "table".rootpage > 0
    AND "column".hidden IN (0, 3)
    AND "table".name NOT GLOB 'sqlite_*'
    AND "table".name NOT GLOB '_yoyo_*'
    AND "table".name NOT GLOB '_migration_*'
    AND "table".name <> 'yoyo_lock'
    AND "table".name NOT IN (
        SELECT listed.name FROM pragma_table_list AS listed
        WHERE listed.type = 'shadow' AND listed.schema = 'main'
    );

-- name: tables()
SELECT
    name,
    sql
FROM sqlite_schema
WHERE type = 'table';

-- name: triggers()
SELECT
    tbl_name,
    sql
FROM sqlite_schema
WHERE type = 'trigger';

-- name: foreign_keys()
SELECT
    child.name,
    foreign_key.id,
    foreign_key."table",
    foreign_key."from",
    foreign_key."to"
FROM sqlite_schema AS child, pragma_foreign_key_list(child.name, 'main') AS foreign_key
WHERE child.type = 'table'
ORDER BY child.name, foreign_key.id, foreign_key.seq;

-- name: columns(table_name)
-- pk is the place in the primary key, or 0.
SELECT
    name,
    pk
FROM pragma_table_xinfo(:table_name, 'main');

-- name: without_rowid(table_name)
SELECT 1 FROM pragma_table_list
WHERE name = :table_name AND schema = 'main' AND wr;

-- name: unique_indexes(table_name)
SELECT name FROM pragma_index_list(:table_name, 'main')
WHERE "unique" AND NOT partial;

-- name: index_columns(index_name)
SELECT name FROM pragma_index_info(:index_name, 'main');

-- name: create_noted_violation()
-- A temporary table may spill to disk: an old database can have such a row for each that it has.
CREATE TEMPORARY TABLE noted_violation (
    child TEXT NOT NULL,
    parent TEXT NOT NULL,
    columns TEXT NOT NULL,
    row_key ANY NOT NULL,
    PRIMARY KEY (child, parent, columns, row_key)
) STRICT, WITHOUT ROWID;

-- name: drop_noted_violation()
DROP TABLE noted_violation;
