// What `metacalo export` tells of a model in MODEL.json.
#pragma once

#include <string>

struct Sidecar {
  std::string format;     // onnx or torchscript
  std::string interface;  // par04 or named
  std::string detector;
  int n_r, n_phi, n_z;       // cells of the mesh
  double dz_mm;              // depth of a cell
  double X0_mm, E_c_MeV;     // radiation length and critical energy of the stack
  double mean_response;      // energy of all cells over that of the particle
  double threshold_MeV;      // least energy of a cell that is not empty
  double least_MeV, most_MeV;      // energies of the shots, or of the base at zero shots
  double least_theta, most_theta;  // their polar angles in rad

  // Reads the one that lies beside `model`; throws std::runtime_error with a sentence where that cannot be done.
  explicit Sidecar(const std::string& model);
};
