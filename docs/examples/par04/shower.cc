// Runs a file of `metacalo export` as Geant4's example Par04 (11.4) does, one shower at a time, and checks what it gives.
//
//   shower MODEL [--energy GEV] [--theta RAD] [--phi RAD] [--showers N] [--threads N] [--optimise] [--seed N] [--out FILE]
//
// Ends with 1 and one sentence where a check fails, with 2 where it cannot be run as it is asked to.
#include <chrono>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <numbers>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "Checks.hh"
#include "Inference.hh"
#include "Sidecar.hh"

namespace {

constexpr double kMeVPerGeV = 1000;
constexpr std::size_t kFewest = 10;  // showers of which means are told

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Options {
  std::string model;
  Particle particle{10 * kMeVPerGeV, std::numbers::pi / 2, 0};
  std::size_t showers = 100, threads = 1;
  bool optimise = false;
  std::optional<unsigned long long> seed;
  std::string out;
};

template <typename Number>
Number number(const std::string& option, const std::string& text, Number least) {
  double value = 0;
  std::size_t read = 0;
  try {
    value = std::stod(text, &read);
  } catch (const std::exception&) {
  }
  const Number cast = static_cast<Number>(value);
  if (read != text.size() || read == 0 || !(value >= static_cast<double>(least)) || static_cast<double>(cast) != value) {
    throw UsageError(option + ": '" + text + "' is no number it can be");
  }
  return cast;
}

Options parsed(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--optimise") {
      options.optimise = true;
    } else if (name.rfind("--", 0) == 0) {
      if (++i == count) throw UsageError(name + " needs a value");
      const std::string value = arguments[i];
      if (name == "--energy") {
        options.particle.energy_MeV = kMeVPerGeV * number(name, value, 1e-3);
      } else if (name == "--theta") {
        options.particle.theta = number(name, value, 0.0);
      } else if (name == "--phi") {
        options.particle.phi = number(name, value, -2 * std::numbers::pi);
      } else if (name == "--showers") {
        options.showers = number<std::size_t>(name, value, 1);
      } else if (name == "--threads") {
        options.threads = number<std::size_t>(name, value, 1);
      } else if (name == "--seed") {
        options.seed = number<unsigned long long>(name, value, 0);
      } else if (name == "--out") {
        options.out = value;
      } else {
        throw UsageError("there is no option " + name);
      }
    } else if (options.model.empty()) {
      options.model = name;
    } else {
      throw UsageError("one model at a time, not also " + name);
    }
  }
  if (options.model.empty()) throw UsageError("which model? shower MODEL [--energy GEV] [--showers N] [--optimise] ...");
  return options;
}

std::unique_ptr<Inference> inference(const Options& options, const Sidecar& told) {
  if (told.interface != "par04") {
    throw UsageError(options.model + ": its interface is '" + told.interface +
                     "'; export it with --interface par04");
  }
  if (told.format == "onnx") {
    if (options.seed) throw UsageError("--seed: an ONNX file holds its seed; give it to 'metacalo export'");
#ifdef WITH_ONNX
    return onnx_inference(options.model, options.optimise);
#endif
  } else {
    if (options.optimise) throw UsageError("--optimise is for ONNX files");
#ifdef WITH_TORCH
    if (options.seed) seed_torch(*options.seed);
    return torch_inference(options.model);
#endif
  }
  throw UsageError(options.model + ": it is " + told.format + ", which this program was built without");
}

double cpu_milliseconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
}

struct Cost {
  double wall = 0, cpu = 0;  // milliseconds of all showers but the first
};

// The part of one worker thread, with its own session, as Geant4's have.
Cost draw(Inference& model, const Particle& particle, std::vector<Shower>& showers, std::size_t first,
          std::size_t last) {
  Cost cost;
  for (std::size_t i = first; i < last; ++i) {
    // the last slot is that of a detector which Par04's own model was not trained for
    const std::vector<float> conditions = {static_cast<float>(particle.energy_MeV / kMeVPerGeV),
                                           static_cast<float>(particle.phi),
                                           static_cast<float>(particle.theta), 0, 0, 0, 0, 1};
    const auto began = std::chrono::steady_clock::now();
    const double worked = cpu_milliseconds();
    const std::vector<float> energies = model.run(conditions);
    if (i > first) {
      cost.wall += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
      cost.cpu += cpu_milliseconds() - worked;
    }
    showers[i].assign(energies.begin(), energies.end());
    for (double& energy : showers[i]) energy *= kMeVPerGeV;
  }
  return cost;
}

Cost draw_all(const Options& options, const Sidecar& told, std::vector<Shower>& showers) {
  const std::size_t n = showers.size(), threads = std::min(options.threads, n);
  std::vector<std::unique_ptr<Inference>> sessions;
  for (std::size_t i = 0; i < threads; ++i) sessions.push_back(inference(options, told));
  std::vector<Cost> costs(threads);
  std::vector<std::exception_ptr> failures(threads);
  std::vector<std::thread> workers;
  for (std::size_t i = 0; i < threads; ++i) {
    workers.emplace_back([&, i] {
      try {
        costs[i] = draw(*sessions[i], options.particle, showers, i * n / threads, (i + 1) * n / threads);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  Cost sum;
  for (std::size_t i = 0; i < threads; ++i) {
    if (failures[i]) std::rethrow_exception(failures[i]);
    sum.wall += costs[i].wall;
    sum.cpu += costs[i].cpu;
  }
  const double timed = static_cast<double>(n - threads);
  return n > threads ? Cost{sum.wall / timed, sum.cpu / timed} : Cost{};
}

void write(const std::string& path, const std::vector<Shower>& showers) {
  std::ofstream file(path, std::ios::binary);
  for (const Shower& shower : showers) {
    const std::vector<float> cells(shower.begin(), shower.end());
    file.write(reinterpret_cast<const char*>(cells.data()), static_cast<std::streamsize>(cells.size() * sizeof(float)));
  }
  file.close();
  if (!file) throw UsageError(path + ": it cannot be written");
}

void run(const Options& options) {
  const Sidecar told(options.model);
  const Particle& particle = options.particle;
  if (particle.energy_MeV < 0.97 * told.least_MeV || particle.energy_MeV > 1.03 * told.most_MeV) {
    std::fprintf(stderr, "note: the model was made from showers of %g to %g GeV\n", told.least_MeV / kMeVPerGeV,
                 told.most_MeV / kMeVPerGeV);
  }
  if (particle.theta < told.least_theta - 0.02 || particle.theta > told.most_theta + 0.02) {
    std::fprintf(stderr, "note: the model was made from showers at theta %g to %g rad\n", told.least_theta,
                 told.most_theta);
  }
  std::vector<Shower> showers(options.showers);
  const Cost cost = draw_all(options, told, showers);
  if (!options.out.empty()) write(options.out, showers);
  for (std::size_t i = 0; i < showers.size(); ++i) {
    check_cells(showers[i], told);
    const Summary own(showers[i], told);
    std::printf("shower %zu: %.3f GeV in %d cells, most in layer %d\n", i + 1, own.total_MeV / kMeVPerGeV, own.hits,
                own.maximum);
  }
  check_all_differ(showers);
  const Profiles means(showers, particle, told);
  std::printf("%s, %zu showers of %g GeV: response %.4f +- %.4f (%.4f), maximum of the profile in layer %.1f (%.1f)\n",
              told.detector.c_str(), showers.size(), particle.energy_MeV / kMeVPerGeV, means.response,
              means.response_error, told.mean_response, maximum(means.z), expected_maximum(particle, told));
  if (cost.wall > 0) std::printf("%.2f ms a shower, %.2f of the CPU\n", cost.wall, cost.cpu);
  if (showers.size() < kFewest) {
    std::printf("order and total are checked from %zu showers on\n", kFewest);
    return;
  }
  check_means(means, particle, told);
  std::printf("cells, order and total are as they must be\n");
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run(parsed(count, arguments));
    return 0;
  } catch (const UsageError& error) {
    std::cerr << "shower: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "shower: " << error.what() << '\n';
    return 1;
  }
}
