from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep import toy

PASSWORD = "open-sesame"


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres; Debian does not put it on the path."""
    on_path = shutil.which("initdb")
    places = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "postgres").exists()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a database on a PostgreSQL server that runs for these tests alone, and ends with them even if killed."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed here: pip install 'metacalo[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="metacalo-postgres-"))
    other = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []  # QUIT: at once
    if os.geteuid() == 0:  # as whom the server does not run
        shutil.chown(folder, "postgres", "postgres")
        other += ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def started(program: str, *arguments: object) -> subprocess.Popen[bytes]:
        command = [*other, str(programs / program), "-D", str(folder / "data"), *map(str, arguments)]
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            return subprocess.Popen(command, cwd="/", stdout=log, stderr=log)

    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    try:
        login = ("-U", "sweeper", "-A", "scram-sha-256", f"--pwfile={password}")
        assert started("initdb", *login, "--no-sync", "-E", "UTF8").wait() == 0
        options = ("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
        url = f"postgresql://sweeper:{PASSWORD}@127.0.0.1:{port}/postgres"
        server = started("postgres", "-p", port, "-k", folder, *options)
        try:
            while True:
                try:
                    psycopg.connect(url).close()
                    break
                except psycopg.OperationalError:  # it is starting
                    assert server.poll() is None, "the server ended"
                    time.sleep(0.1)
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        (folder.parent / f"{folder.name}.log").unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    toy.close()


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty storage of each kind."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres")
        yield url
        toy.close()
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("drop schema public cascade")
            connection.execute("create schema public")
    else:
        yield str(tmp_path / "shared" / "study.db")
