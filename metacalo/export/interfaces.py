"""What a program sees of an exported generator: its inputs and its output."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metacalo.errors import DetectorError
from metacalo.export.graph import ShowerGraph
from metacalo.export.random import HashedNoise, OwnNoise
from metacalo.typing import ShowerTensor

__all__ = ["INTERFACES", "Interface", "InterfaceName", "Named", "Par04"]

InterfaceName = Literal["par04", "named"]

_MEV_PER_GEV = 1000.0
_CONDITIONS = 8  # energy, phi, theta, and which of five detectors


class Interface(nn.Module):
    """A `ShowerGraph` behind the inputs of a program.

    Attributes:
        inputs: names of the inputs, in their order.
        output: name of the output.
        meanings: what each input and output is, for the sidecar.
    """

    inputs: tuple[str, ...]
    output: str
    meanings: dict[str, str]

    def __init__(self, graph: ShowerGraph) -> None:
        super().__init__()
        self.graph = graph

    def example(self, n: int) -> tuple[Tensor, ...]:
        """Inputs of `n` showers of 10 GeV at a right angle."""
        raise NotImplementedError


class Par04(Interface):
    """The interface of Geant4's example Par04 (11.4) to its diffusion model: eight numbers in, all cells in GeV out.

    Raises:
        DetectorError: the mesh is not the one of that model.
    """

    inputs = ("conditions",)
    output = "energies"
    meanings = {  # noqa: RUF012
        "conditions": "float32 (N, 8): energy in GeV, phi and theta in rad, and five numbers that are not read",
        "energies": "float32 (N, 6480): cell energies in GeV, r slowest, then phi, then z",
    }
    grid = (9, 16, 45)

    def __init__(self, graph: ShowerGraph) -> None:
        super().__init__(graph)
        if graph.grid != self.grid:
            found, wanted = (" x ".join(map(str, grid)) for grid in (graph.grid, self.grid))
            message = f"the interface 'par04' is of a mesh of {wanted} cells and the model has {found}; use 'named'"
            raise DetectorError(message)
        self.noise = OwnNoise(graph.n_normal, graph.n_uniform)

    def forward(self, conditions: Float[Tensor, "n 8"]) -> Float[Tensor, "n cell"]:
        """Also of one shower without the axis of showers, as LibTorch is given it there."""
        conditions = conditions.reshape(-1, _CONDITIONS)
        energy, phi, theta = (conditions[:, k] for k in range(3))
        showers = self.graph(_MEV_PER_GEV * energy, theta, phi, *self.noise(energy))
        return (showers / _MEV_PER_GEV).flatten(1)  # type: ignore[no-any-return]

    def example(self, n: int) -> tuple[Tensor, ...]:
        """See `Interface.example`."""
        return (torch.tensor([10.0, 0.0, torch.pi / 2, 0.0, 0.0, 0.0, 0.0, 1.0]).repeat(n, 1),)


class Named(Interface):
    """One input for each thing that a shower depends on, its seed too; any mesh, in MeV."""

    inputs = ("energy", "theta", "phi", "seed")
    output = "showers"
    meanings = {  # noqa: RUF012
        "energy": "float32 (N,): incident energy in GeV",
        "theta": "float32 (N,): polar angle in rad",
        "phi": "float32 (N,): azimuth in rad",
        "seed": "int64 (N,): 0 or above; the same seed and conditions give the same shower, whatever the batch",
        "showers": "float32 (N, R, PHI, Z): cell energies in MeV",
    }

    def __init__(self, graph: ShowerGraph) -> None:
        super().__init__(graph)
        self.noise = HashedNoise(graph.n_normal, graph.n_uniform)

    def forward(
        self, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"], phi: Float[Tensor, "n"], seed: Int[Tensor, "n"]
    ) -> ShowerTensor:
        """Showers in MeV."""
        return self.graph(_MEV_PER_GEV * energy, theta, phi, *self.noise(seed))  # type: ignore[no-any-return]

    def example(self, n: int) -> tuple[Tensor, ...]:
        """See `Interface.example`."""
        return torch.full((n,), 10.0), torch.full((n,), torch.pi / 2), torch.zeros(n), torch.arange(n)


INTERFACES: dict[InterfaceName, type[Par04 | Named]] = {"par04": Par04, "named": Named}
"""Name to the interface."""
