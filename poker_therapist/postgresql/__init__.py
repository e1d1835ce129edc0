"""What is PostgreSQL's own about migrating: the backend, reading a schema."""
