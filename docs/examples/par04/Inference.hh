// What Par04 asks a model for: one vector of conditions in, the cell energies of one shower out.
#pragma once

#include <memory>
#include <string>
#include <vector>

class Inference {
 public:
  virtual ~Inference() = default;

  // Cell energies in GeV, as many as the model gives, r slowest and z fastest.
  // conditions: energy in GeV, phi and theta in rad, five numbers of which one is 1.
  virtual std::vector<float> run(std::vector<float> conditions) = 0;
};

// A session of its own of ONNX Runtime, of one thread.
// optimise: let the run time rewrite the graph, which Par04 does not by default.
std::unique_ptr<Inference> onnx_inference(const std::string& path, bool optimise);

// A module of LibTorch, of one thread.
std::unique_ptr<Inference> torch_inference(const std::string& path);

// Of LibTorch's one random generator, which all modules of a process share.
void seed_torch(unsigned long long seed);
