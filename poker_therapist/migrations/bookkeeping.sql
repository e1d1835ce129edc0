-- What the migrations keep in a database beside yoyo's own tables; both engines understand all of it.

-- name: applied_migrations()
-- yoyo's record, asked at every opening. A file that comes from elsewhere may have a view without end there.
SELECT substr(migration_id, 1, 1000) AS migration_id
FROM _yoyo_migration
LIMIT 100000;

-- name: kept_ids(migration_table)
-- Whose text we kept, and so ours; asked where an applied id is not known.
SELECT substr(migration_id, 1, 1000) AS migration_id
FROM _migration_text
WHERE migration_table = :migration_table AND apply_sql IS NOT NULL
LIMIT 100000;

-- name: create_texts()
-- What was applied, word for word: an edit of a file shows, and a migration whose file is gone can be taken
-- back. Keyed by yoyo's table too, for yoyo can keep several in one database.
CREATE TABLE IF NOT EXISTS _migration_text (
    migration_table TEXT NOT NULL,
    migration_id TEXT NOT NULL,
    -- yoyo's own time of it: if the two differ, somebody else applied it again. NULL: it was interrupted.
    applied_at TEXT,
    -- NULL, as the texts: version 0.1.0 noted so what plain yoyo had applied before.
    checksum TEXT,
    apply_sql TEXT,
    rollback_sql TEXT,
    PRIMARY KEY (migration_table, migration_id)
);

-- name: create_adopted()
-- The tables that a migration has found and not made: its rollback must not drop them.
CREATE TABLE IF NOT EXISTS _migration_adopted (
    migration_table TEXT NOT NULL,
    migration_id TEXT NOT NULL,
    table_name TEXT NOT NULL,
    PRIMARY KEY (migration_table, migration_id, table_name)
);

-- name: keep_adopted(migration_table, migration_id, table_name)
INSERT INTO _migration_adopted (migration_table, migration_id, table_name)
VALUES (:migration_table, :migration_id, :table_name)
ON CONFLICT DO NOTHING;

-- name: adopted_tables(migration_table)
SELECT
    migration_id,
    table_name
FROM _migration_adopted
WHERE migration_table = :migration_table
ORDER BY migration_id, table_name;

-- name: drop_adopted(migration_table, migration_id)
DELETE FROM _migration_adopted
WHERE migration_table = :migration_table AND migration_id = :migration_id;

-- name: keep_text(migration_table, migration_id, applied_at, checksum, apply_sql, rollback_sql)
INSERT INTO _migration_text (
    migration_table, migration_id, applied_at, checksum, apply_sql, rollback_sql
)
VALUES (:migration_table, :migration_id, :applied_at, :checksum, :apply_sql, :rollback_sql)
ON CONFLICT (migration_table, migration_id) DO UPDATE SET
    applied_at = excluded.applied_at,
    checksum = excluded.checksum,
    apply_sql = excluded.apply_sql,
    rollback_sql = excluded.rollback_sql;

-- name: kept_texts(migration_table)
-- As text, whatever a file that comes from elsewhere holds.
SELECT
    cast(migration_id AS TEXT) AS migration_id,
    cast(applied_at AS TEXT) AS applied_at,
    cast(checksum AS TEXT) AS checksum,
    cast(apply_sql AS TEXT) AS apply_sql,
    cast(rollback_sql AS TEXT) AS rollback_sql
FROM _migration_text
WHERE migration_table = :migration_table AND migration_id IS NOT NULL
ORDER BY migration_id;

-- name: drop_text(migration_table, migration_id)
DELETE FROM _migration_text
WHERE migration_table = :migration_table AND migration_id = :migration_id;

-- name: comment_log(comment, id)
UPDATE _yoyo_log SET comment = :comment
WHERE id = :id;

-- name: logged()
-- yoyo's log. As text, and no more than a terminal shows, whatever a file that comes from elsewhere holds.
SELECT
    substr(cast(created_at_utc AS TEXT), 1, 30) AS at,
    substr(cast(operation AS TEXT), 1, 255) AS operation,
    substr(cast(migration_id AS TEXT), 1, 255) AS migration_id,
    substr(cast(username AS TEXT), 1, 255) AS username,
    substr(cast(hostname AS TEXT), 1, 255) AS hostname,
    substr(cast(comment AS TEXT), 1, 255) AS comment
FROM _yoyo_log
ORDER BY created_at_utc, id
LIMIT 100000;
