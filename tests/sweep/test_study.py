"""Who may join a study, and which trials are given up."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage

from metacalo.errors import ConfigError, MissingExtraError, OutputError
from metacalo.sweep import trial_storage as storages
from metacalo.sweep.study import pruner_of
from metacalo.sweep.trial_storage import open_storage, opened_storage, storage_url, without_password
from tests.sweep.conftest import PASSWORD
from tests.sweep.toy import OPEN, join


def opened(path: str) -> BaseStorage:
    OPEN.append(open_storage(storage_url(path)))
    return OPEN[-1]


def test_a_study_is_joined_with_the_same_settings_only(storage):
    made = join(storage)
    assert join(storage).study_name == made.study_name
    assert len(join(storage).trials) == 1  # the default waits, once
    with pytest.raises(
        ConfigError,
        match=r"^study 'toy' of this storage was made with another shots \(400\) than this run "
        r"\(200\); run with the same, or choose another --study$",
    ):
        join(storage, shots=200)
    assert join(storage, name="another", shots=200).study_name == "another"


def test_a_study_of_another_program_is_refused(tmp_path):
    path = str(tmp_path / "study.db")
    study = optuna.create_study(storage=opened(path), study_name="toy")
    study.ask()
    with pytest.raises(ConfigError, match="study 'toy' of this storage was not made by metacalo sweep"):
        join(path)


def test_a_study_whose_maker_was_killed_before_the_first_trial_is_adopted(tmp_path):
    path = str(tmp_path / "study.db")
    optuna.create_study(storage=opened(path), study_name="toy")
    join(path)
    with pytest.raises(ConfigError, match="another shots"):
        join(path, shots=1)


def test_names_of_storages():
    assert storage_url("out/s.db") == f"sqlite:///{Path.cwd()}/out/s.db"
    assert storage_url("/disk/s.db") == storage_url("sqlite:////disk/s.db") == "sqlite:////disk/s.db"
    assert (
        storage_url("postgres://me@host/x") == storage_url("postgresql://me@host/x") == "postgresql+psycopg://me@host/x"
    )
    with pytest.raises(ConfigError, match=r"^--storage sweeps: neither a URL nor a file"):
        storage_url("sweeps")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hush@host:5432/x",
        "postgresql+psycopg://me:hu@sh@host/x",
        "postgresql://:hush@host/x",
        "postgresql://me@host/x?sslmode=require&password=hush",
        "metacalo sweep --storage 'postgresql://me:hush@host/x' --trials 5",
    ],
)
def test_no_password_is_reported(text):
    message = without_password(text)
    assert "***" in message
    assert not re.search("hu@?sh", message)
    assert "host" in message
    assert without_password("sqlite:///out/s.db") == "sqlite:///out/s.db"


def test_a_storage_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"cannot be written \(.*\); choose another --storage$"):
        open_storage(storage_url(str(tmp_path / "file" / "s.db")))
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(ConfigError, match=r"text.db: cannot be used \(file is not a database\)"):
        open_storage(storage_url(str(tmp_path / "text.db")))
    with pytest.raises(ConfigError, match="no such kind of storage"):
        open_storage("carrier-pigeon://host/x")
    monkeypatch.setattr(storages, "find_spec", lambda _: None)
    with pytest.raises(
        MissingExtraError, match=r"needs psycopg, which is not installed: pip install 'metacalo\[postgres\]'"
    ):
        open_storage(storage_url("postgresql://me:hush@host/x"))


def test_a_storage_that_fails_while_trials_run_is_one_sentence(tmp_path):
    path = tmp_path / "study.db"
    with (
        pytest.raises(
            OutputError, match=r"study.db: failed while the sweep ran \(.*\); mend it, and run the same command"
        ),
        opened_storage(storage_url(str(path))) as storage,
    ):
        path.write_bytes(b"")
        optuna.create_study(storage=storage)


def test_a_server_that_refuses_is_reported_without_the_password(postgres):
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigError, match="password authentication failed") as refused:
        open_storage(storage_url(postgres.replace(PASSWORD, "wrong-word")))
    assert "wrong-word" not in str(refused.value)
    port = re.search(r":(\d+)/", postgres)[1]
    with pytest.raises(ConfigError, match="cannot be used") as silent:
        open_storage(storage_url(postgres.replace(port, "1")))
    assert PASSWORD not in str(silent.value)


@pytest.mark.parametrize(("rule", "pruned"), [("median", {4}), ("none", set())])
def test_a_trial_worse_than_the_median_is_given_up_once_enough_have_ended(rule, pruned):
    study = optuna.create_study(pruner=pruner_of(rule, 40, 4))
    found = set()
    for number, loss in enumerate([3.0, 1.0, 2.0, 9.0, 5.0, 1.5]):
        trial = study.ask()
        trial.report(loss + 10, 5)
        assert not trial.should_prune()  # the learning rate is still rising
        trial.report(loss, 10)
        found |= {number} if trial.should_prune() else set()
        study.tell(trial, loss)
    assert found == pruned
