"""What is SQLite's own about migrating: the backend, backups, reading a schema, comparing rows."""
