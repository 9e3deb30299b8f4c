"""A detector.toml to begin with, which has every key."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from metacalo.storage.checkpoint import atomic_file
from metacalo.typing import PathLike

__all__ = ["TEMPLATE", "write_template"]

TEMPLATE: Final = """\
# A detector: what stands where, what is shot at it, how deposits are scored. Lengths in mm. Lines that begin with "# "
# and a key show what is taken where the key is left out, or what may be added.

name = "my-detector"
# n_layers = 45               # periods; by default as many as the mesh is deep

# One period, in the order the particle meets it: any number of sheets, at least one of them active.
# Materials: W, Pb, Fe, Cu, steel, brass, WCu, Si, lAr, LKr, polystyrene, PVT, PbWO4, LYSO, G10, Kapton, air, ...
# also by Geant4's names (G4_W), or your own below.
[[layers]]
material = "W"
thickness_mm = 2.5

[[layers]]
material = "polystyrene"
thickness_mm = 3.0
active = true

# [[layers]]                  # such as a gap, or a plate that holds the active sheet
# material = "air"
# thickness_mm = 0.5

# A material by its composition: element -> mass fraction.
# [materials.heavy-alloy]
# density_g_cm3 = 17.6
# composition = { W = 0.93, Ni = 0.05, Fe = 0.02 }

# Cells of the cylindrical mesh along the particle. The bases that ship know 9 x 16 x 45.
[grid]
n_r = 9
n_phi = 16
n_z = 45
# dr_mm = 9.5                 # by default 0.5 Moliere radii
# dz_mm = 5.5                 # by default the multiple of the period that is nearest to 0.8 radiation lengths

# What follows is for `metacalo simulate` alone.
[geometry]
shape = "barrel"              # cylinders around z; or "planar", sheets across x
inner_radius_mm = 800         # from where the particle starts to the first layer
# length_mm = 4000            # by default 4 m, or what the angles ask for

# [[geometry.front]]          # dead material before the first layer, in the order the particle meets it
# material = "Al"
# thickness_mm = 20

[beam]
particle = "e-"               # e-, e+, gamma; with hadronic physics pi-, pi+, proton, neutron
energy_GeV = "1:100"          # a range, one energy (10), or several ([10, 50, 100])
spectral_index = 1            # dN/dE ~ E^-index in a range: 1 is log-uniform, 0 uniform
theta = "0.87:2.27"           # rad; pi/2 is normal to the layers
# phi = "0:6.2832"            # rad; by default all of it, and 0 where planar

[physics]
constructor = "G4EmStandardPhysics"
production_cut_mm = 0.7
threshold_MeV = 0.01515       # cells with less are empty, after division by the sampling fraction
"""


def write_template(path: PathLike, *, force: bool = False) -> Path:
    """Writes `TEMPLATE`, its name that of the file.

    Raises:
        OutputError: the file exists and not `force`, or cannot be written.
    """
    path = Path(path)
    with atomic_file(path, force=force) as temporary:
        temporary.write_text(TEMPLATE.replace("my-detector", path.stem.replace('"', "")), encoding="utf-8")
    return path
