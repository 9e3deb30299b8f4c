"""Inner loops with learn2learn (arXiv:2008.12284): its MAML and Meta-SGD wrappers. An optional extra."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from metacalo.errors import MissingExtraError
from metacalo.meta.engines.inner_loop import FastModel, InnerLoop, InnerLoss, InnerModel

__all__ = ["Learn2LearnEngine"]

_INSTALL = (
    "pip install 'Cython<3.1' 'setuptools<81' wheel && pip install --no-deps --no-build-isolation --use-pep517 "
    "-C--global-option=build_ext learn2learn==0.2.0"
)


class Learn2LearnEngine:
    """`learn2learn.algorithms.MAML`, or `MetaSGD` where parameters have rates of their own.

    Raises:
        MissingExtraError: learn2learn is not installed.
    """

    def __init__(self) -> None:
        with _bare_packages():
            self._maml = importlib.import_module("learn2learn.algorithms.maml").MAML
            self._meta_sgd = importlib.import_module("learn2learn.algorithms.meta_sgd").MetaSGD

    def adapt(self, model: nn.Module, loop: InnerLoop, loss: InnerLoss) -> FastModel:
        """See `Engine`."""
        inner, first_order = InnerModel(model, loop), not loop.second_order
        if isinstance(loop.rate, Mapping):
            wrapped = self._meta_sgd(inner, lrs=list(loop.rates().values()), first_order=first_order)
        else:
            wrapped = self._maml(inner, lr=loop.rate, first_order=first_order)
        learner = wrapped.clone()
        for step in range(loop.steps):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MetaSGD keeps gradients in `.grad` of tensors that are no leaves
                learner.adapt(_known_to_all(loss(learner, step), learner))
        return learner  # type: ignore[no-any-return]


def _known_to_all(loss: Tensor, learner: Any) -> Tensor:
    """The same loss with a gradient, if only zero, for each parameter: MetaSGD refuses those without."""
    return loss + 0 * torch.stack([tensor.sum() for tensor in learner.inner().values()]).sum()


@contextmanager
def _bare_packages() -> Iterator[None]:
    """Lets modules of learn2learn be imported without its packages' `__init__`, which want torchvision, gym and more.

    Packages that are not imported yet are stood in for by modules that only know their folder, and are gone afterwards:
    whoever imports learn2learn later gets the real ones.
    """
    if "learn2learn.algorithms" in sys.modules:
        yield
        return
    spec = find_spec("learn2learn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"the engine 'learn2learn' needs learn2learn, which is not installed: {_INSTALL}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    places = {"learn2learn": folder, "learn2learn.algorithms": folder / "algorithms"}
    stand_ins = {name: ModuleType(name) for name in places if name not in sys.modules}
    for name, module in stand_ins.items():
        module.__path__ = [str(places[name])]
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)
