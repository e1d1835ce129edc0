"""What an AI poker coach remembers of its players; start with `get_pattern_storage`."""

from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseReadOnly,
    DatabaseUnreachable,
    DatabaseUnreadable,
    DriftUnknown,
    InvalidInput,
    InvalidMigration,
    MigrationEdited,
    MigrationError,
    MigrationFailed,
    MigrationInterrupted,
    MigrationOutOfOrder,
    PokerTherapistError,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
    StorageClosed,
    StorageError,
    TransactionConflict,
)
from poker_therapist.records import Context, Export, Forgotten, Insight, Pattern, Recollection
from poker_therapist.storage import PatternStorage, get_pattern_storage
from poker_therapist.values import JSON

# A literal: to read it from the installed package's metadata takes longer than to import this package.
__version__ = "0.1.0"

__all__ = [
    "JSON",
    "Context",
    "DatabaseBusy",
    "DatabaseFull",
    "DatabaseNotFound",
    "DatabaseReadOnly",
    "DatabaseUnreachable",
    "DatabaseUnreadable",
    "DriftUnknown",
    "Export",
    "Forgotten",
    "Insight",
    "InvalidInput",
    "InvalidMigration",
    "MigrationEdited",
    "MigrationError",
    "MigrationFailed",
    "MigrationInterrupted",
    "MigrationOutOfOrder",
    "Pattern",
    "PatternStorage",
    "PokerTherapistError",
    "Recollection",
    "SchemaMissing",
    "SchemaOutdated",
    "SchemaTooNew",
    "StorageClosed",
    "StorageError",
    "TransactionConflict",
    "__version__",
    "get_pattern_storage",
]
