"""What an AI poker coach remembers of its players; start with `get_pattern_storage`."""

from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseReadOnly,
    DatabaseUnreadable,
    InvalidInput,
    InvalidMigration,
    MigrationEdited,
    MigrationError,
    MigrationFailed,
    PokerTherapistError,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
    StorageClosed,
    StorageError,
)
from poker_therapist.storage import PatternStorage, get_pattern_storage

__all__ = [
    "DatabaseBusy",
    "DatabaseFull",
    "DatabaseNotFound",
    "DatabaseReadOnly",
    "DatabaseUnreadable",
    "InvalidInput",
    "InvalidMigration",
    "MigrationEdited",
    "MigrationError",
    "MigrationFailed",
    "PatternStorage",
    "PokerTherapistError",
    "SchemaMissing",
    "SchemaOutdated",
    "SchemaTooNew",
    "StorageClosed",
    "StorageError",
    "get_pattern_storage",
]
