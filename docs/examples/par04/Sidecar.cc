#include "Sidecar.hh"

#include <fstream>
#include <initializer_list>
#include <iterator>
#include <stdexcept>

namespace {

// Values are looked up by the names on the way to them, which is enough for a file whose order is known.
class Json {
 public:
  explicit Json(const std::string& path) : path_(path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + ": there is no such file; 'metacalo export' writes it beside the model");
    text_.assign(std::istreambuf_iterator<char>(file), {});
  }

  std::string text(std::initializer_list<const char*> names) const {
    const auto start = text_.find('"', place(names));
    const auto end = text_.find('"', start + 1);
    if (end == std::string::npos) fail(names);
    return text_.substr(start + 1, end - start - 1);
  }

  double number(std::initializer_list<const char*> names) const {
    try {
      return std::stod(text_.substr(text_.find_first_not_of(" \n[", place(names))));
    } catch (const std::exception&) {
      fail(names);
    }
  }

  // The second number of a list of two.
  double second(std::initializer_list<const char*> names) const {
    try {
      return std::stod(text_.substr(text_.find(',', place(names)) + 1));
    } catch (const std::exception&) {
      fail(names);
    }
  }

 private:
  std::size_t place(std::initializer_list<const char*> names) const {
    std::size_t at = 0;
    for (const char* name : names) {
      const std::string key = '"' + std::string(name) + "\":";
      at = text_.find(key, at);
      if (at == std::string::npos) fail(names);
      at += key.size();
    }
    return at;
  }

  [[noreturn]] void fail(std::initializer_list<const char*> names) const {
    throw std::runtime_error(path_ + ": it has no " + *(names.end() - 1) + "; export the model again");
  }

  std::string path_, text_;
};

}  // namespace

Sidecar::Sidecar(const std::string& model) {
  const Json json(model + ".json");
  format = json.text({"format"});
  interface = json.text({"interface", "name"});
  detector = json.text({"detector", "detector"});
  n_r = static_cast<int>(json.number({"mesh", "n_r"}));
  n_phi = static_cast<int>(json.number({"mesh", "n_phi"}));
  n_z = static_cast<int>(json.number({"mesh", "n_z"}));
  dz_mm = json.number({"mesh", "dz_mm"});
  X0_mm = json.number({"detector", "X0_mm"});
  E_c_MeV = json.number({"detector", "E_c_MeV"});
  mean_response = json.number({"mean_response"});
  threshold_MeV = json.number({"threshold_MeV"});
  least_MeV = json.number({"energy_range_MeV"});
  most_MeV = json.second({"energy_range_MeV"});
  least_theta = json.number({"theta_range_rad"});
  most_theta = json.second({"theta_range_rad"});
}
