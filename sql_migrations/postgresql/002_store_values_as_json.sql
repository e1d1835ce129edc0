-- Values are JSON since 001: there is nothing to convert. What this migration has in common with its SQLite
-- twin is the table of rows that could not be kept to the letter there. `poker-therapist copy` brings them
-- along, so that the player can export them and have them forgotten here too; nothing else fills it.
-- depends: 001_add_pattern_storage

-- One shape for all three tables: kind is the type, item_key the key, score the confidence or the importance.
CREATE TABLE legacy_rows (
    migration_id TEXT COLLATE "C" NOT NULL,
    table_name TEXT COLLATE "C" NOT NULL,
    row_id BIGINT NOT NULL,
    user_id BIGINT NOT NULL,
    -- As SQLite held them, of whatever type they were: JSON keeps apart a text and a number.
    kind JSON,
    item_key JSON,
    value JSON,
    score JSON,
    -- Plain, as rows are looked for by it.
    session_id TEXT COLLATE "C",
    created_at JSON,
    updated_at JSON,
    expires_at JSON,
    -- By player first: serves the export and the forgetting of one.
    CONSTRAINT legacy_rows_pkey PRIMARY KEY (user_id, migration_id, table_name, row_id)
);
