// ONNX Runtime as Par04 uses it: the name of the last input, all outputs asked for, the first one read.
#include <onnxruntime_cxx_api.h>

#include <stdexcept>

#include "Inference.hh"

namespace {

class OnnxInference : public Inference {
 public:
  OnnxInference(const std::string& path, bool optimise) : env_(ORT_LOGGING_LEVEL_WARNING, "shower"), session_(nullptr) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    options.SetGraphOptimizationLevel(optimise ? ORT_ENABLE_ALL : ORT_DISABLE_ALL);
    session_ = Ort::Session(env_, path.c_str(), options);
    Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t i = 0; i < session_.GetInputCount(); ++i) {
      input_ = session_.GetInputNameAllocated(i, allocator).get();
    }
    for (std::size_t i = 0; i < session_.GetOutputCount(); ++i) {
      outputs_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
    }
  }

  std::vector<float> run(std::vector<float> conditions) override {
    const std::vector<int64_t> shape = {1, static_cast<int64_t>(conditions.size())};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto given = Ort::Value::CreateTensor<float>(memory, conditions.data(), conditions.size(), shape.data(), 2);
    std::vector<const char*> asked;
    for (const auto& name : outputs_) asked.push_back(name.c_str());
    const char* input = input_.c_str();
    const auto found = session_.Run(Ort::RunOptions{nullptr}, &input, &given, 1, asked.data(), asked.size());
    const auto& energies = found.front();
    const float* values = energies.GetTensorData<float>();
    return {values, values + energies.GetTensorTypeAndShapeInfo().GetElementCount()};
  }

 private:
  Ort::Env env_;
  Ort::Session session_;
  std::string input_;
  std::vector<std::string> outputs_;
};

}  // namespace

std::unique_ptr<Inference> onnx_inference(const std::string& path, bool optimise) {
  if (OrtGetApiBase()->GetApi(ORT_API_VERSION) == nullptr) {
    throw std::runtime_error("the library of ONNX Runtime is " + std::string(OrtGetApiBase()->GetVersionString()) +
                             " and older than the headers this was built with; build it with those of that version");
  }
  return std::make_unique<OnnxInference>(path, optimise);
}
