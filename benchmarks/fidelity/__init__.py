"""Fidelity of bases: rows of generators, shots and samplers beside Geant4's own figures."""
