"""Where the trials of a study are kept: SQLite, PostgreSQL or another database."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, SQLAlchemyError

from metacalo.errors import ConfigError, MissingExtraError, OutputError

__all__ = ["close_storage", "open_storage", "opened_storage", "storage_url", "without_password"]

_PASSWORD: Final = re.compile(r"(://[^:/\s]*:)[^\s'\"]*@")
_QUERY: Final = re.compile(r"([?&](?:password|sslpassword|passwd|pwd)=)[^&\s'\"]*", re.IGNORECASE)
_EXAMPLES: Final = "sweep.db, sqlite:////disk/sweep.db or postgresql://user@host/database"
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
    """What --storage means: a URL, or the path of a file *.db, which SQLite keeps.

    Paths of SQLite become absolute; a relative one in a URL is a warning, since it is easily taken for an absolute one.

    Raises:
        ConfigError: it is neither.

    Example:
        >>> storage_url("/disk/sweep.db"), storage_url("postgres://me@host/sweeps")
        ('sqlite:////disk/sweep.db', 'postgresql+psycopg://me@host/sweeps')
    """
    if text.endswith(".log") or text.startswith("journal:"):
        raise ConfigError(
            f"--storage {text}: journal files lose a study when a write is cut short, and are not taken; give a file "
            "*.db on a disk of this machine, or a PostgreSQL server for several machines (docs/how-to/sweep.md)"
        )
    if "://" not in text and text.endswith((".db", ".sqlite", ".sqlite3")):
        return f"sqlite:///{Path(text).expanduser().absolute()}"
    if text.startswith("sqlite:///"):
        path, mark, query = text.removeprefix("sqlite:///").partition("?")
        if path in ("", ":memory:") or path.startswith("/"):
            return text
        here = Path(path).absolute()
        warnings.warn(
            f"--storage {text} is {here}, with three slashes another study in every folder; give workers elsewhere "
            f"--storage {here}, or sqlite:////{path} if /{path} was meant",
            stacklevel=2,
        )
        return f"sqlite:///{here}{mark}{query}"
    if "://" in text:
        return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text)
    raise ConfigError(f"--storage {text}: neither a URL nor a file *.db; give for example {_EXAMPLES}")


def open_storage(url: str) -> BaseStorage:
    """The storage of a URL as `storage_url` gives it, with its tables made where there are none.

    Raises:
        ConfigError: no such kind of storage, or the server does not answer.
        MissingExtraError: the driver of the database is not installed.
        OutputError: its file cannot be written.
    """
    scheme, _, rest = url.partition("://")
    if scheme.startswith("sqlite") and rest.strip("/"):
        _make_file(Path(rest.removeprefix("/").partition("?")[0]), url)
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


def _make_file(path: Path, url: str) -> None:
    """An empty file, which is a database too, with the folders that it needs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise OutputError(f"{url}: cannot be written ({error.strerror}); choose another --storage") from None


def _database(url: str) -> BaseStorage:
    shown_url = without_password(url)
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
            f"{shown_url}: needs {missing}, which is not installed: pip install {missing}, or use SQLite"
        ) from None
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(f"--storage {shown_url}: no such kind of storage; give for example {_EXAMPLES}") from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise ConfigError(
            f"--storage {shown_url}: cannot be used ({_reason(error)}); start it, or choose another"
        ) from None
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
