// LibTorch as Par04 uses it: the conditions as a vector without an axis of showers, no gradients.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/script.h>

#include "Inference.hh"

namespace {

class TorchInference : public Inference {
 public:
  explicit TorchInference(const std::string& path) : module_(torch::jit::load(path)) { module_.eval(); }

  std::vector<float> run(std::vector<float> conditions) override {
    const torch::NoGradGuard no_gradients;
    at::set_num_threads(1);  // of the calling thread, so that it is no use to set it once
    const at::Tensor found = module_.forward({torch::tensor(conditions)}).toTensor().contiguous();
    const float* values = found.data_ptr<float>();
    return {values, values + found.numel()};
  }

 private:
  torch::jit::Module module_;
};

}  // namespace

std::unique_ptr<Inference> torch_inference(const std::string& path) { return std::make_unique<TorchInference>(path); }

void seed_torch(unsigned long long seed) { at::manual_seed(seed); }
