// What must hold for showers that a detector simulation is to believe.
#pragma once

#include <vector>

#include "Sidecar.hh"

using Shower = std::vector<double>;  // cell energies in MeV, r slowest, then phi, then z

struct Particle {
  double energy_MeV, theta, phi;
};

// Means over showers.
struct Profiles {
  double total_MeV;
  double response;                // total over the energy of the particle
  double response_error;          // standard error of that
  std::vector<double> r, phi, z;  // energy in each ring, sector and layer
  std::vector<double> phi_error;  // standard errors of the sectors

  Profiles(const std::vector<Shower>& showers, const Particle& particle, const Sidecar& told);
};

// Energy of a shower in MeV, its hit cells, and the layer that has most of it.
struct Summary {
  double total_MeV;
  int hits, maximum;

  Summary(const Shower& shower, const Sidecar& told);
};

// Where the mean profile is to have its maximum, in layers: ln(E / E_c) - 1/2 radiation lengths, for electrons.
double expected_maximum(const Particle& particle, const Sidecar& told);

// Layer of the largest value, by a parabola through it and its neighbours.
double maximum(const std::vector<double>& profile);

// Number of values, and that each can be an energy. Throws std::runtime_error, as the others do.
void check_cells(const Shower& shower, const Sidecar& told);

// That no shower is there twice, as it would be where two sessions draw the same noise.
void check_all_differ(const std::vector<Shower>& showers);

// Total against the mean response; order of the cells by the shapes that electrons have along z, r and phi.
void check_means(const Profiles& means, const Particle& particle, const Sidecar& told);
