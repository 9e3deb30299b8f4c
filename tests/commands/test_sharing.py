"""`metacalo push` and `metacalo pull` as a user runs them, against a hub of this process; mistakes in one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from metacalo.adapt import AdaptSettings, adapt
from metacalo.model_folders.adapted import load_model
from metacalo.model_folders.base import resolve_base
from metacalo.sharing import push
from metacalo.showers import data_folder
from tests.hub import TOKEN, Hub, Stored

constants = pytest.importorskip("huggingface_hub.constants")

# of huggingface_hub's own, where it uploads
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

BASE = "base-no-pblar"
HERE = "group/pblar"


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """An empty hub that knows this user."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage is a server of its own
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(scope="module")
def library(tmp_path_factory, sample) -> Path:
    """A model that takes no time: a library of shots, of which no figures were measured."""
    settings = AdaptSettings(base=BASE, shots=20, generator="frozen", compared_showers=0)
    return adapt(sample, tmp_path_factory.mktemp("library") / "model", settings, quiet=True).out


@pytest.fixture
def shared(hub, library) -> Stored:
    """That model as it lies on the hub."""
    push(library, HERE, quiet=True)
    hub.asked.clear()
    return hub.repositories[HERE]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "profiles.pdf"}


def header(readme: bytes) -> dict[str, Any]:
    _, lines, _ = readme.decode().split("---\n", 2)
    return yaml.safe_load(lines)


def measured(readme: bytes) -> dict[tuple[str, str, str], float]:
    """Data, generator and metric to value, as the hub reads them."""
    (model,) = header(readme)["model-index"]
    return {
        (result["dataset"]["name"], metric["config"], metric["type"]): metric["value"]
        for result in model["results"]
        for metric in result["metrics"]
    }


def test_an_adapted_model_comes_back_as_it_went(adapted, command, hub, tmp_path):
    ran = command("push", "--model", adapted.out, "--repository", HERE)
    stored = hub.repositories[HERE]
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"10 files pushed to {hub.url}/{HERE}   commit {stored.branches['main']}\n"
    assert stored.messages == ["initial commit", "metacalo 0.1.0: push model"]
    out = tmp_path / "pblar"
    ran = command("pull", "--repository", HERE, "--out", out)
    known = f"its base '{BASE}' with hash {resolve_base(BASE).hash[:12]} is here"
    message = f"model written to {out}   commit {stored.branches['main']}\n{known}\n"
    assert (ran.code, ran.out, ran.err) == (0, message, "")
    card = contents(out).pop("CARD.md")
    assert contents(out) == {**contents(adapted.out), "CARD.md": card}
    assert stored.files()["README.md"].endswith(card)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pblar"]


def test_the_card_of_an_adapted_model_has_the_figures_of_its_metrics(adapted, hub):
    push(adapted.out, HERE, quiet=True)
    readme = hub.repositories[HERE].files()["README.md"]
    message = header(readme)
    assert (message["library_name"], message["license"]) == ("metacalo", "mit")
    assert {"metacalo", "calorimeter", "geant4", "adapted"} <= set(message["tags"])
    fidelity = adapted.metrics["fidelity"]
    assert measured(readme) == {
        ("Geant4 showers, PbLAr, 60 shots", generator, metric): fidelity[f"after ({generator})"][metric]["value"]
        for generator in ("ar", "diffusion")
        for metric in ("mean_w1",)
    }
    (result,) = message["model-index"][0]["results"]
    assert result["source"]["url"] == f"{hub.url}/{HERE}/blob/main/metrics.json"
    text = readme.decode()
    w1 = fidelity["after (ar)"]["mean_w1"]
    assert f"| after (ar) | {w1['value']:.3f} ({w1['floor']:.3f}) | " in text
    assert "- **Shots**: 60 Geant4 showers." in text
    assert f"- **Base**: `{BASE}` with hash `{resolve_base(BASE).hash}`" in text
    assert "![profiles](profiles.png)" in text


def test_the_manifest_has_the_hash_of_every_file(shared):
    files = shared.files()
    message = json.loads(files["metacalo.json"])
    assert (message["kind"], message["base"], message["base_hash"]) == ("adapted", BASE, resolve_base(BASE).hash)
    assert {name: (each["size"], each["sha256"]) for name, each in message["files"].items()} == {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
        if name not in ("metacalo.json", ".gitattributes")
    }


def test_a_base_comes_back_with_its_card_and_is_taken_by_its_path(command, hub, library, tmp_path):
    assert command("push", "--model", BASE, "--repository", "group/base").code == 0
    out = tmp_path / "base"
    ran = command("pull", "--repository", "group/base", "--out", out)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith(
        f"base '{BASE}' with hash {resolve_base(BASE).hash[:12]}: adapt it by metacalo adapt --base {out}\n"
    )
    shipped = data_folder("pretrained") / BASE
    assert contents(out) == contents(shipped)
    assert load_model(library, base=out).base.path == out
    readme = hub.repositories["group/base"].files()["README.md"]
    figures = measured(readme)
    row = next(line for line in (shipped / "CARD.md").read_text().splitlines() if "| 400 | diffusion |" in line)
    task, _, _, _, w1, fpd, *_ = (cell.strip() for cell in row.strip("|").split("|"))
    for metric, cell in (("mean_w1", w1), ("fpd", fpd)):
        found = figures[f"Geant4 showers, {task}, 400 shots", "diffusion", metric]
        assert found == float(cell.split("(")[0])
    assert {generator for _, generator, _ in figures} == {"ar", "diffusion"}


def test_a_pull_in_a_process_of_its_own(hub, library, process, monkeypatch, tmp_path):
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    push(library, HERE, quiet=True)
    ran = process("pull", "--repository", HERE, "--out", tmp_path / "model", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert contents(tmp_path / "model").keys() == {*contents(library), "CARD.md"}


def test_what_is_no_part_of_a_model_stays(command, hub, library, tmp_path):
    folder = shutil.copytree(library, tmp_path / "model")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "Weights.safetensors").write_bytes(b"")
    (folder / "state.pkl").write_bytes(pickle.dumps([1]))
    (folder / "older").mkdir()
    ran = command("push", "--model", folder, "--repository", HERE)
    assert ran.code == 0
    message = "what is no part of a model stayed there (Weights.safetensors, notes.txt, older, state.pkl)"
    assert ran.err == f"warning: {folder}: {message}\n"
    assert hub.repositories[HERE].files().keys() - {".gitattributes", "metacalo.json", "README.md"} == {
        path.name for path in library.iterdir()
    }


def test_a_pickle_and_names_that_lead_out_are_never_fetched(command, hub, shared, tmp_path):
    shared.files().update({"state.pkl": pickle.dumps([1]), "../evil.json": b"{}", "more/config.json": b"{}"})
    ran = command("pull", "--repository", HERE, "--out", tmp_path / "in" / "model")
    assert ran.code == 0
    message = f"warning: {HERE}: not fetched, as no part of the model (../evil.json, more/config.json, state.pkl)\n"
    assert ran.err == message
    assert not hub.fetched() & {"state.pkl", "../evil.json", "more/config.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.fixture
def not_pulled(refused, tmp_path) -> Callable[..., str]:
    """The sentence of a pull that must fail, which names no folder of its own."""

    def run(*options, repository: str = HERE) -> str:
        message = refused("pull", "--repository", repository, "--out", tmp_path / "model", *options)
        assert str(tmp_path) not in message
        return message

    return run


def rewritten(stored: Stored, name: str, content: bytes | None, **message: object) -> None:
    """Changes a file of a repository and what its manifest says of it, so that only its content can tell."""
    files = stored.files()
    manifest = json.loads(files["metacalo.json"])
    manifest["files"].pop(name, None)
    files.pop(name, None)
    if content is not None:
        files[name] = content
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files["metacalo.json"] = json.dumps({**manifest, **message}).encode()


@pytest.mark.parametrize("name", ["frozen.safetensors", "config.json", "README.md"])
def test_a_changed_byte_is_found(name, shared, not_pulled):
    content = bytearray(shared.files()[name])
    content[-2] ^= 1
    shared.files()[name] = bytes(content)
    assert f"'{name}' is not the file that was pushed" in not_pulled()


def test_another_size_is_found_before_the_file_is_fetched(hub, shared, not_pulled):
    shared.files()["frozen.safetensors"] += b"more"
    assert "'frozen.safetensors' has" in not_pulled()
    assert hub.fetched() == {"metacalo.json"}


@pytest.mark.parametrize("name", ["profiles.png", "frozen.safetensors", "config.json"])
def test_a_pickle_under_the_name_of_something_else_is_refused(name, shared, not_pulled):
    rewritten(shared, name, pickle.dumps([1]))
    assert name in not_pulled()


@pytest.mark.parametrize(
    "name", ["state.pkl", "../evil.json", "/etc/evil.json", "a/config.json", "*.json", "Config.json"]
)
def test_a_manifest_that_names_what_is_no_part_of_a_model_is_refused(name, hub, shared, not_pulled):
    rewritten(shared, name, b"{}")
    assert "metacalo.json: 'files." in not_pulled()
    assert hub.fetched() == {"metacalo.json"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "metacalo.json: not readable as JSON"),
        (b"[]", "metacalo.json: holds list"),
        (b"{}", "'kind' is missing"),
        (b" " * 2_000_000, "metacalo.json has 2,000,000 bytes"),
    ],
)
def test_a_manifest_that_is_none_is_refused(content, words, shared, not_pulled):
    shared.files()["metacalo.json"] = content
    assert words in not_pulled()


def test_a_repository_without_a_manifest_holds_no_model(shared, not_pulled):
    del shared.files()["metacalo.json"]
    assert "holds no metacalo.json, so no model that metacalo pushed" in not_pulled()


def test_a_file_that_is_missing_is_reported(hub, shared, not_pulled):
    hub.gone = {"normaliser.safetensors"}
    assert f"{hub.url}/{HERE}" in not_pulled()
    del shared.files()["normaliser.safetensors"]
    assert "'normaliser.safetensors' is missing there" in not_pulled()
    rewritten(shared, "normaliser.safetensors", None)
    assert "normaliser.safetensors: missing" in not_pulled()


def test_another_base_than_the_manifest_tells_is_found(shared, not_pulled):
    rewritten(shared, "none.json", None, base_hash="0" * 64)
    assert f"metacalo.json says 'adapted' and {'0' * 12}" in not_pulled()


def test_a_model_whose_base_is_not_here_is_pulled_and_reported(command, shared, tmp_path):
    config = json.loads(shared.files()["config.json"])
    rewritten(shared, "config.json", json.dumps({**config, "base": "theirs"}).encode())
    out = tmp_path / "model"
    ran = command("pull", "--repository", HERE, "--out", out)
    assert ran.code == 0
    needed = f"its base 'theirs' with hash {config['base_hash']} is not here; pull it too and name it by --base"
    assert ran.err == f"warning: {out}: {needed}\n"
    assert load_model(out, base=BASE).libraries


def test_a_base_that_is_another_one_is_reported(shared, not_pulled):
    assert f"was adapted from base '{BASE}' with hash" in not_pulled("--base", "base")


@pytest.mark.parametrize("name", ["", "pblar", "a/b/c", "group/p b", "group/a--b", "../pblar", "group/pblar.git"])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_name_that_is_none_is_reported(verb, name, hub, library, refused, tmp_path):
    options = ("--model", library) if verb == "push" else ("--out", tmp_path / "model")
    assert f"'{name}' is no name of a repository" in refused(verb, "--repository", name, *options)
    assert hub.asked == []


def test_what_is_not_on_the_hub_is_reported(hub, shared, not_pulled, monkeypatch):
    message = not_pulled(repository="group/pblaar")
    assert f"{hub.url}/group/pblaar: there is no such repository, or it is private" in message
    assert "has no revision 'v9'" in not_pulled("--revision", "v9")
    shared.private = True
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "log in (hf auth login, or HF_TOKEN)" in not_pulled()


def test_an_existing_folder_is_not_replaced(shared, refused, command, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "mine").write_text("mine", encoding="utf-8")
    ran = command("pull", "--repository", HERE, "--out", out)
    assert (ran.code, ran.err) == (2, f"metacalo: {out}: exists already; give --force to replace it or another --out\n")
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert command("pull", "--repository", HERE, "--out", out, "--force").code == 0
    assert not (out / "mine").exists()


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_missing_library_is_reported_with_the_line_that_installs_it(
    verb, hub, library, refused, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    options = ("--model", library) if verb == "push" else ("--out", tmp_path / "model")
    assert "not installed: pip install 'metacalo[hub]'" in refused(verb, "--repository", HERE, *options)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_no_network_is_reported(verb, hub, library, refused, monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    options = ("--model", library) if verb == "push" else ("--out", tmp_path / "model")
    message = refused(verb, "--repository", HERE, *options)
    assert f"{url}/{HERE}: cannot be reached" in message
    assert "name a mirror by HF_ENDPOINT" in message


def test_a_server_that_is_no_hub_is_reported(hub, not_pulled, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "hub.example.org")
    assert "HF_ENDPOINT is 'hub.example.org', which is no address" in not_pulled()
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/elsewhere")
    assert "the server answered 404" in not_pulled()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.repositories[HERE] = Stored(branches={"main": "../../x"}, commits={"../../x": {}})
    assert "the server names a commit '../../x', which is not a commit" in not_pulled()
    hub.repositories[HERE] = Stored(branches={"a" * 40: "b" * 40}, commits={"b" * 40: {}})
    assert f"gives commit {'b' * 40} for {'a' * 40}" in not_pulled("--revision", "a" * 40)


@pytest.fixture
def not_pushed(refused) -> Callable[..., str]:
    return lambda model, *options: refused("push", "--model", model, "--repository", HERE, *options)


def test_what_is_no_model_is_not_pushed(hub, library, not_pushed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("empty")
    assert f"is {folder} a metacalo model folder?" in not_pushed(folder)
    assert "did you mean 'base'?" in not_pushed("bas")
    broken = shutil.copytree(library, folder / "broken")
    (broken / "frozen.safetensors").write_bytes((library / "frozen.safetensors").read_bytes()[:-1])
    assert "not a readable safetensors file" in not_pushed(broken)
    spoilt = shutil.copytree(library, folder / "spoilt")
    (spoilt / "metrics.json").write_text('{"fidelity": {"response": 3, "after (ar)": 4}}', encoding="utf-8")
    assert "not what adapt writes" in not_pushed(spoilt)
    assert hub.asked == []


def test_a_repository_that_holds_a_model_is_not_replaced_unawares(command, hub, library, shared, not_pushed):
    first = shared.branches["main"]
    shared.commits[first] |= {"adapters-ar.safetensors": b"old", "LICENSE": b"ours"}
    assert "holds files already; give --force" in not_pushed(library)
    assert shared.branches["main"] == first
    assert command("push", "--model", library, "--repository", HERE, "--force", "--license", "cc-by-4.0").code == 0
    files = shared.files()
    assert "adapters-ar.safetensors" not in files
    assert files["LICENSE"] == b"ours"
    assert header(files["README.md"])["license"] == "cc-by-4.0"
    assert "adapters-ar.safetensors" in shared.files(first)


def test_a_commit_of_somebody_else_in_between_is_reported(hub, library, shared, not_pushed):
    hub.before_commit = lambda stored: stored.add("main", {**stored.files(), "LICENSE": b"ours"}, "licence")
    assert "was changed by somebody else meanwhile" in not_pushed(library, "--force")
    assert shared.messages[-1] == "licence"


def test_a_private_model_is_not_pushed_where_everybody_sees_it(command, hub, library, not_pushed):
    assert command("push", "--model", library, "--repository", HERE, "--private").code == 0
    assert hub.repositories[HERE].private
    hub.repositories[HERE] = Stored()
    first = hub.repositories[HERE].add("main", {}, "initial commit")
    assert "is public; make it private there first" in not_pushed(library, "--private")
    assert hub.repositories[HERE].branches == {"main": first}


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_nobody", "log in (hf auth login, or HF_TOKEN)"), ("hf_reader", "your token may not write")],
)
def test_a_token_that_may_not_write_is_reported(token, words, hub, library, not_pushed, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.read_only = {"hf_reader"}
    assert words in not_pushed(library)


def test_revisions_are_branches_and_commits(adapted, command, hub, library, shared, tmp_path):
    first = shared.branches["main"]
    ran = command("push", "--model", adapted.out, "--repository", HERE, "--revision", "both/2", "--force")
    assert ran.code == 0
    assert shared.branches["main"] == first
    assert "frozen.safetensors" not in shared.files("both/2")
    for revision, wanted in (("both/2", adapted.out), (shared.branches["main"], library)):
        out = tmp_path / revision.replace("/", "-")
        assert command("pull", "--repository", HERE, "--out", out, "--revision", revision).code == 0
        assert contents(out).keys() == {*contents(wanted), "CARD.md"}


def test_a_card_without_figures_says_so_and_claims_none(hub, library, shared, tmp_path):
    readme = shared.files()["README.md"]
    assert "model-index" not in header(readme)
    assert b"No figures were measured." in readme
    base = shutil.copytree(data_folder("pretrained") / BASE, tmp_path / BASE)
    (base / "CARD.md").unlink()
    push(base, "group/base", quiet=True)
    readme = hub.repositories["group/base"].files()["README.md"]
    assert "model-index" not in header(readme)
    assert b"No figures were measured." in readme


def test_figures_of_other_weights_are_not_those_of_a_base(hub, tmp_path):
    base = shutil.copytree(data_folder("pretrained") / BASE, tmp_path / BASE)
    card = (base / "CARD.md").read_text(encoding="utf-8")
    (base / "CARD.md").write_text(card.replace(resolve_base(BASE).hash, "0" * 64), encoding="utf-8")
    push(base, "group/base", quiet=True)
    assert "model-index" not in header(hub.repositories["group/base"].files()["README.md"])


def test_the_card_goes_round_without_growing(hub, shared, library, command, tmp_path):
    once = copy.deepcopy(shared.files())
    assert command("pull", "--repository", HERE, "--out", tmp_path / "model").code == 0
    assert command("push", "--model", tmp_path / "model", "--repository", HERE, "--force").code == 0
    assert shared.files() == once
