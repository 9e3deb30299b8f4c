"""A study is not lost to a write that was cut short, and is the same study from every folder."""

from __future__ import annotations

import optuna
import pytest

from metacalo.errors import ConfigError
from metacalo.sweep.storage import opened_storage, storage_url


@pytest.mark.parametrize("text", ["journal:///shared/s.log", "/shared/s.log", "s.log"])
def test_journals_are_refused_with_what_to_use(text):
    with pytest.raises(ConfigError, match=r"lose a study when a write is cut short.*\*\.db .*PostgreSQL server"):
        storage_url(text)


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
