"""Shape aliases shared by every module.

Axis names: `n` showers, `r phi z` the cylindrical mesh, `layer` = z, `token` patches of the mesh,
`width` the transformer width, `cond` the condition vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

__all__ = ["Codes", "Conditions", "FloatArray", "PathLike", "RingTensor", "ShowerArray", "ShowerTensor", "Tokens"]

FloatArray = NDArray[np.float32] | NDArray[np.float64]
ShowerArray = Float[np.ndarray, "n r phi z"]  # MeV
ShowerTensor = Float[torch.Tensor, "n r phi z"]
RingTensor = Float[torch.Tensor, "n r z"]
Conditions = Float[torch.Tensor, "n cond"]
Tokens = Float[torch.Tensor, "n token width"]
Codes = Int[torch.Tensor, "n position"]
PathLike = str | Path
