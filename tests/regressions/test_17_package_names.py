"""`from metacalo import adapt, ...` works in whatever order functions, modules and settings are imported."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

FIRST = "from metacalo import adapt, evaluate, generate, load_model\n"
SECOND = (
    "from metacalo.evaluate.metrics import fpd\nfrom metacalo.adapt import AdaptSettings\nimport metacalo.generate\n"
)
CHECK = """
import inspect, metacalo
from metacalo import adapt, generate, evaluate, load_model
from metacalo.adapt import AdaptSettings, adapt as function
from metacalo.evaluate import EvaluateSettings
from metacalo.generate import GenerateSettings
assert metacalo.adapt is adapt and metacalo.generate is generate and metacalo.evaluate is evaluate
assert inspect.signature(adapt) == inspect.signature(function)
assert list(inspect.signature(evaluate).parameters)[:3] == ["generated", "reference", "out"]
from metacalo.errors import MetacaloError
for call in (lambda: adapt("no.h5", "out"), lambda: generate("none", "out.h5"), lambda: load_model("none"),
             lambda: evaluate("no.h5", "no.h5", "out/none")):
    try:
        call()
    except MetacaloError as error:
        print(str(error).splitlines()[0])
    else:
        raise AssertionError("called nothing")
"""


@pytest.mark.parametrize("order", [FIRST + SECOND, SECOND + FIRST, "import metacalo\nmetacalo.adapt\n"])
def test_functions_and_modules_in_either_order(order, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", order + CHECK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4


def test_they_go_into_other_processes():
    from metacalo import adapt

    assert pickle.loads(pickle.dumps(adapt)) is adapt
    assert callable(adapt)


def test_other_names_are_reported():
    import metacalo

    with pytest.raises(AttributeError, match="no attribute 'adopt'"):
        _ = metacalo.adopt
