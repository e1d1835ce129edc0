"""Migrations of any schema, made safe: this package knows no engine and no table."""
