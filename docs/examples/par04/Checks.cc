#include "Checks.hh"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <sstream>
#include <stdexcept>

namespace {

constexpr double kLeastLoss = 2e-3;   // of a cell at the threshold, in single precision
constexpr double kResponse = 0.1;     // how far the mean may lie from the sidecar's: it depends on energy and angle
constexpr double kLayers = 3;         // how far the maximum may lie from the formula, which is of one material
constexpr double kSectors = 0.1;      // how far a sector may lie from the mean of all
constexpr double kErrors = 5;         // standard errors that are added to each
constexpr double kLeastRing = 1e-3;   // share of the energy below which rings are not compared

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::runtime_error(sentence.str());
}

std::size_t cells(const Sidecar& told) { return static_cast<std::size_t>(told.n_r) * told.n_phi * told.n_z; }

}  // namespace

Profiles::Profiles(const std::vector<Shower>& showers, const Particle& particle, const Sidecar& told)
    : r(told.n_r), phi(told.n_phi), z(told.n_z), phi_error(told.n_phi) {
  const double n = static_cast<double>(showers.size());
  double squares = 0;
  std::vector<double> phi_squares(told.n_phi);
  total_MeV = 0;
  for (const Shower& shower : showers) {
    std::vector<double> own(told.n_phi);
    const double* cell = shower.data();
    for (int i = 0; i < told.n_r; ++i) {
      for (int j = 0; j < told.n_phi; ++j) {
        for (int k = 0; k < told.n_z; ++k, ++cell) {
          r[i] += *cell / n;
          own[j] += *cell;
          z[k] += *cell / n;
        }
      }
    }
    const double total = std::accumulate(own.begin(), own.end(), 0.0);
    total_MeV += total / n;
    squares += total * total / n;
    for (int j = 0; j < told.n_phi; ++j) {
      phi[j] += own[j] / n;
      phi_squares[j] += own[j] * own[j] / n;
    }
  }
  const auto error = [n](double square, double mean) { return std::sqrt(std::max(square - mean * mean, 0.0) / n); };
  response = total_MeV / particle.energy_MeV;
  response_error = error(squares, total_MeV) / particle.energy_MeV;
  for (int j = 0; j < told.n_phi; ++j) phi_error[j] = error(phi_squares[j], phi[j]);
}

Summary::Summary(const Shower& shower, const Sidecar& told)
    : total_MeV(std::accumulate(shower.begin(), shower.end(), 0.0)),
      hits(static_cast<int>(std::count_if(shower.begin(), shower.end(), [](double cell) { return cell > 0; }))) {
  std::vector<double> layers(told.n_z);
  for (std::size_t cell = 0; cell < shower.size(); ++cell) layers[cell % told.n_z] += shower[cell];
  maximum = static_cast<int>(std::max_element(layers.begin(), layers.end()) - layers.begin());
}

double expected_maximum(const Particle& particle, const Sidecar& told) {
  return (std::log(particle.energy_MeV / told.E_c_MeV) - 0.5) * told.X0_mm / told.dz_mm - 0.5;
}

double maximum(const std::vector<double>& profile) {
  const auto at = std::max_element(profile.begin(), profile.end()) - profile.begin();
  if (at == 0 || at + 1 == static_cast<std::ptrdiff_t>(profile.size())) return static_cast<double>(at);
  const double before = profile[at - 1], after = profile[at + 1];
  return static_cast<double>(at) + 0.5 * (before - after) / (before - 2 * profile[at] + after);
}

void check_cells(const Shower& shower, const Sidecar& told) {
  if (shower.size() != cells(told)) fail("the model gives ", shower.size(), " values and its mesh has ", cells(told));
  for (std::size_t cell = 0; cell < shower.size(); ++cell) {
    const double energy = shower[cell];
    if (!std::isfinite(energy)) fail("cell ", cell, " is no number: ", energy);
    if (energy < 0) fail("cell ", cell, " has a negative energy: ", energy, " MeV");
    if (energy > 0 && energy < told.threshold_MeV * (1 - kLeastLoss)) {
      fail("cell ", cell, " has ", energy, " MeV, which is below the threshold of ", told.threshold_MeV, " MeV");
    }
  }
}

void check_all_differ(const std::vector<Shower>& showers) {
  std::vector<const Shower*> sorted;
  for (const Shower& shower : showers) sorted.push_back(&shower);
  std::sort(sorted.begin(), sorted.end(), [](const Shower* one, const Shower* other) { return *one < *other; });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (*sorted[i - 1] == *sorted[i]) {
      const auto [first, second] = std::minmax(sorted[i - 1], sorted[i]);
      fail("showers ", first - showers.data() + 1, " and ", second - showers.data() + 1,
           " are the same: their sessions draw the same noise");
    }
  }
}

void check_means(const Profiles& means, const Particle& particle, const Sidecar& told) {
  const double tolerance = kResponse * told.mean_response + kErrors * means.response_error;
  if (std::abs(means.response - told.mean_response) > tolerance) {
    fail("the showers have ", means.response, " +- ", means.response_error, " of the particle's energy and the model ",
         told.mean_response, ": wrong units or another model");
  }
  const double found = maximum(means.z), expected = expected_maximum(particle, told);
  if (std::abs(found - expected) > kLayers) {
    fail("the mean profile along z has its maximum in layer ", found, " and not near ", expected, ": wrong order");
  }
  for (int ring = 1; ring < told.n_r && means.r[ring] > kLeastRing * means.total_MeV; ++ring) {
    if (means.r[ring] / (2 * ring + 1) > means.r[ring - 1] / (2 * ring - 1)) {
      fail("energy per area rises from ring ", ring - 1, " to ", ring, ": wrong order");
    }
  }
  if (std::abs(particle.theta - std::numbers::pi / 2) > 1e-3) return;  // inclined, the stack is not the same all round
  const double level = means.total_MeV / told.n_phi;
  for (int sector = 0; sector < told.n_phi; ++sector) {
    if (std::abs(means.phi[sector] - level) > kSectors * level + kErrors * means.phi_error[sector]) {
      fail("sector ", sector, " has ", means.phi[sector] / level, " of the mean of all at a right angle: wrong order");
    }
  }
}
