"""Where the trials of a study are kept: SQLite, PostgreSQL or another database, or a journal file on a shared disk."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, SQLAlchemyError

from metacalo.errors import ConfigError, MissingExtraError, OutputError

__all__ = ["close_storage", "open_storage", "opened_storage", "storage_url", "without_password"]

_PASSWORD: Final = re.compile(r"(://[^:/\s]*:)[^\s'\"]*@")
_QUERY: Final = re.compile(r"([?&](?:password|sslpassword|passwd|pwd)=)[^&\s'\"]*", re.IGNORECASE)
_EXAMPLES: Final = "sqlite:///sweep.db, journal:///shared/sweep.log or postgresql://user@host/database"
_PATIENCE: Final = 60  # seconds that a worker waits for SQLite while others write
_TRIES: Final = 5  # of making the tables, which two workers may do at the same time


def without_password(text: str) -> str:
    """A storage URL, or a text with some in it, with *** for every password.

    Example:
        >>> without_password("--storage postgresql://me:secret@host/sweeps")
        '--storage postgresql://me:***@host/sweeps'
    """
    return _QUERY.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def storage_url(text: str) -> str:
    """What --storage means: a URL as it is, a path that ends in .log as a journal, one in .db as SQLite.

    Raises:
        ConfigError: it is none of these.

    Example:
        >>> storage_url("shared/sweep.log"), storage_url("sweep.db")
        ('journal:///shared/sweep.log', 'sqlite:///sweep.db')
    """
    if "://" in text:
        return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text)
    if text.endswith(".log"):
        return f"journal:///{text}"
    if text.endswith((".db", ".sqlite", ".sqlite3")):
        return f"sqlite:///{text}"
    raise ConfigError(f"--storage {text}: neither a URL nor a file *.db or *.log; give for example {_EXAMPLES}")


def open_storage(url: str) -> BaseStorage:
    """The storage of a URL as `storage_url` gives it, with its tables made where there are none.

    Raises:
        ConfigError: no such kind of storage, or the server does not answer.
        MissingExtraError: the driver of the database is not installed.
        OutputError: its file cannot be written.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "journal":
        return _journal(_made(Path(rest.removeprefix("/")), url))
    if scheme.startswith("sqlite") and rest.strip("/"):
        _made(Path(rest.removeprefix("/").partition("?")[0]), url)
    elif scheme.startswith("postgresql") and find_spec("psycopg") is None:
        raise MissingExtraError(
            "a storage in PostgreSQL needs psycopg, which is not installed: pip install 'metacalo[postgres]'"
        )
    return _database(url)


@contextmanager
def opened_storage(url: str) -> Iterator[BaseStorage]:
    """`open_storage` and `close_storage`.

    Raises:
        OutputError: the storage fails within: a full disk, a server that went away.
    """
    storage = open_storage(url)
    try:
        yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        raise OutputError(
            f"{without_password(url)}: failed while the sweep ran ({_reason(error)}); mend it, and run the same "
            "command again to go on"
        ) from None
    finally:
        close_storage(storage)


def _reason(error: BaseException) -> str:
    """The first line of what a database said."""
    said = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return without_password(str(getattr(said, "orig", None) or said)).strip().splitlines()[0]


def close_storage(storage: BaseStorage) -> None:
    """Ends the connections of a storage."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def _made(path: Path, url: str) -> Path:
    """The path of a file, with the folders that it needs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):  # an empty file is a database, and a journal
            pass
    except OSError as error:
        raise OutputError(f"{url}: cannot be written ({error.strerror}); choose another --storage") from None
    return path


def _journal(path: Path) -> BaseStorage:
    try:
        with path.open("rb") as lines:  # Optuna skips a single bad line, as one that is being written
            first = lines.readline()
        if first.endswith(b"\n") and "op_code" not in json.loads(first):
            raise KeyError(first)
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: is no journal of trials; choose another --storage") from None


def _database(url: str) -> BaseStorage:
    told = without_password(url)
    try:
        is_sqlite = make_url(url).get_backend_name() == "sqlite"
        options = {"connect_args": {"timeout": _PATIENCE}} if is_sqlite else {"pool_pre_ping": True}
        for left in reversed(range(_TRIES)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    return RDBStorage(url, engine_kwargs=options)
            except (SQLAlchemyError, StorageInternalError) as error:
                if not left or not _made_by_another(error):
                    raise
                time.sleep(0.2)
    except ImportError as error:
        missing = getattr(error.__cause__ or error, "name", None) or "its driver"
        raise MissingExtraError(
            f"{told}: needs {missing}, which is not installed: pip install {missing}, or use SQLite or a journal"
        ) from None
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(f"--storage {told}: no such kind of storage; give for example {_EXAMPLES}") from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise ConfigError(f"--storage {told}: cannot be used ({_reason(error)}); start it, or choose another") from None
    raise AssertionError


def _made_by_another(error: Exception) -> bool:
    """Whether two workers have made the same tables at the same time."""
    text = f"{error} {error.__cause__}"
    return (
        isinstance(error, IntegrityError)
        or isinstance(error.__cause__, IntegrityError)
        or "already exists" in text
        or (isinstance(error, OperationalError) and "locked" in text)
    )
