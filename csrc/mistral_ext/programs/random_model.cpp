#include "mistral_ext/programs/random_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <array>
#include <map>

#include "mistral_ext/core/check.h"
#include "mistral_ext/models/load.h"
#include "mistral_ext/programs/machine.h"

namespace mistral_ext::programs {
namespace {

struct Shape {
  const char* name;
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t num_hidden_layers;
  int64_t num_attention_heads;
  int64_t num_key_value_heads;
  int64_t head_dim;
  bool tie_word_embeddings = false;
};

constexpr std::array<Shape, 5> kShapes = {{
    {"tiny", 1000, 256, 512, 2, 4, 2, 64},
    {"SmolLM2-135M", 49152, 576, 1536, 30, 9, 3, 64, true},
    {"1.1B", 32000, 2048, 5632, 22, 32, 4, 64},
    {"Mistral-7B", 32768, 4096, 14336, 32, 32, 8, 128},
    {"Mistral-Nemo", 131072, 5120, 14336, 40, 32, 8, 128},
}};

MistralConfig config_of(const std::string& name) {
  for (const auto& shape : kShapes) {
    if (name != shape.name) continue;
    MistralConfig config;
    config.vocab_size = shape.vocab_size;
    config.hidden_size = shape.hidden_size;
    config.intermediate_size = shape.intermediate_size;
    config.num_hidden_layers = shape.num_hidden_layers;
    config.num_attention_heads = shape.num_attention_heads;
    config.num_key_value_heads = shape.num_key_value_heads;
    config.head_dim = shape.head_dim;
    config.tie_word_embeddings = shape.tie_word_embeddings;
    config.rope.rope_theta = 1e6;
    config.layer_windows.assign(static_cast<size_t>(shape.num_hidden_layers), 0);
    return config;
  }
  MISTRAL_EXT_CHECK(false, "--shape: there is no shape {}", name);
  return {};
}

// Numbers of each weight's shape. Drawn once a shape: layers may be alike, and drawing a billion
// numbers takes its time.
class Draw {
 public:
  explicit Draw(at::TensorOptions options) : options_(options) {}

  at::Tensor operator()(at::IntArrayRef shape) {
    auto& drawn = drawn_[shape.vec()];
    if (!drawn.defined()) {
      drawn = at::empty(shape, options_);
      if (shape.size() == 1) {
        drawn.fill_(1);
      } else {
        drawn.normal_(0, 0.02);
      }
    }
    return drawn.clone();
  }

 private:
  at::TensorOptions options_;
  std::map<std::vector<int64_t>, at::Tensor> drawn_;
};

}  // namespace

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  names.reserve(kShapes.size());
  for (const auto& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

std::shared_ptr<models::MistralForCausalLM> random_model(const std::string& shape,
                                                         at::ScalarType dtype,
                                                         const at::Device& device) {
  const at::NoGradGuard no_grad;
  const auto config = config_of(shape);
  auto model = std::make_shared<models::MistralForCausalLM>(config);
  const auto modules = models::weighted_modules(*model);
  int64_t bytes = 0;
  for (const auto& [name, module] : modules) {
    bytes +=
        c10::multiply_integers(module->shape()) * static_cast<int64_t>(c10::elementSize(dtype));
  }
  MISTRAL_EXT_CHECK(!device.is_cpu() || bytes < memory_bytes(),
                    "--shape: {} needs {:.1f} GB, and this machine has {:.1f} GB",
                    shape,
                    static_cast<double>(bytes) / 1e9,
                    static_cast<double>(memory_bytes()) / 1e9);
  Draw draw(at::TensorOptions(device).dtype(dtype));
  io::StateDict state;
  for (const auto& [name, module] : modules) {
    if (config.tie_word_embeddings && name == "lm_head.weight") continue;
    state.emplace(name, draw(module->shape()));
  }
  models::load_parameters(*model, state);
  return model;
}

}  // namespace mistral_ext::programs
