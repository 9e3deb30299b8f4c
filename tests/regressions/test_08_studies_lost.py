"""A study is not lost to a write that was cut short, and is the same study from every folder."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
from pathlib import Path

import optuna
import pytest

from metacalo.errors import ConfigError
from metacalo.sweep.trial_storage import opened_storage, storage_url

BATCH = Path(__file__).parents[2] / "docs" / "batch"


@pytest.mark.parametrize("text", ["journal:///shared/s.log", "/shared/s.log", "s.log"])
def test_journals_are_refused_with_what_to_use(text):
    with pytest.raises(ConfigError, match=r"lose a study when a write is cut short.*\*\.db .*PostgreSQL server"):
        storage_url(text)


@pytest.mark.filterwarnings("ignore:--storage sqlite")
@pytest.mark.parametrize("text", ["study.db", "sqlite:///study.db"])
def test_a_relative_path_is_one_study_for_a_worker_that_moves(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = storage_url(text)
    assert url == f"sqlite:///{tmp_path}/study.db"
    with opened_storage(url) as storage:
        optuna.create_study(storage=storage, study_name="mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with opened_storage(url) as storage:
        assert [study.study_name for study in storage.get_all_studies()] == ["mine"]


def test_an_unfinished_write_leaves_the_study(tmp_path):
    url = storage_url(str(tmp_path / "study.db"))
    with opened_storage(url) as storage:
        study = optuna.create_study(storage=storage, study_name="mine")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    # what SQLite leaves where the disk was full or the writer was killed within a transaction
    (tmp_path / "study.db-journal").write_bytes(b"\xd9\xd5\x05\xf9")
    with opened_storage(url) as storage:
        assert len(optuna.load_study(storage=storage, study_name="mine").trials) == 3


def test_a_relative_path_in_a_url_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f"is {tmp_path}/shared/s.db, with three slashes another study in every folder"
    with pytest.warns(
        UserWarning, match=rf"{re.escape(message)}.* or sqlite:////shared/s.db if /shared/s.db was meant"
    ):
        storage_url("sqlite:///shared/s.db")


def test_storages_of_batch_files_are_taken():
    found = []
    for path in BATCH.iterdir():
        text = path.read_text()
        assert "journal" not in text
        found += re.findall(r"^storage\s*= (\S+)$", text, flags=re.MULTILINE)
    assert found
    assert all(storage_url(text).startswith("postgresql+psycopg://") for text in found)


@pytest.mark.skipif(not list(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), reason="no PostgreSQL here")
def test_a_server_of_ones_own_serves_workers_elsewhere(tmp_path, monkeypatch):
    psycopg = pytest.importorskip("psycopg")
    owner, other = pwd.getpwuid(os.getuid()).pw_name, []
    if not os.getuid():  # as root the server does not run
        owner = "postgres"
        other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        for path in (tmp_path, *list(tmp_path.parents)[:3]):  # a process of xdist has one more
            path.chmod(0o755)
    home, folder = tmp_path / "home", tmp_path / "server"
    for path in (home, folder):
        path.mkdir()
        if other:
            shutil.chown(path, owner, owner)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = shutil.copy(BATCH / "storage.sh", tmp_path)
    environment = {**os.environ, "HOME": str(home), "USER": owner}
    stop = next(iter(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")))
    try:
        for _ in range(2):  # a server that runs goes on
            command = [*other, "bash", script, folder, str(port)]
            done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        url = re.search(r"^--storage (\S+)$", done.stdout, flags=re.MULTILINE)[1]
        assert (home / ".pgpass").stat().st_mode & 0o777 == 0o600
        assert (home / ".pgpass").read_text().split(":")[4].strip() not in done.stdout + done.stderr
        monkeypatch.setenv("PGPASSFILE", str(home / ".pgpass"))
        with opened_storage(storage_url(url)) as storage:
            optuna.create_study(storage=storage, study_name="mine")
        monkeypatch.setenv("PGPASSFILE", "/dev/null")
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(url)
    finally:
        subprocess.run([*other, stop, "-D", folder / "data", "-m", "immediate", "stop"], cwd="/", check=False)
