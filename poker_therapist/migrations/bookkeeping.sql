-- What the migrations themselves keep in the database.

-- name: applied_migrations()
-- yoyo's record of what has been applied.
SELECT migration_id FROM _yoyo_migration;
