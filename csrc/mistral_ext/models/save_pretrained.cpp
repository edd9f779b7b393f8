#include "mistral_ext/models/save_pretrained.h"

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/io/write_safetensors.h"
#include "mistral_ext/models/load.h"

namespace mistral_ext::models {
namespace {

// A head that is the embedding's tensor is left out where the configuration says that they are
// tied.
io::StateDict tensors_to_save(const MistralForCausalLM& model) {
  auto state = state_dict(model);
  if (!model.config().tie_word_embeddings) {
    state.try_emplace("lm_head.weight", state.at("model.embed_tokens.weight"));
  }
  return state;
}

ConfigMap config_to_save(const MistralForCausalLM& model, const ConfigMap& more) {
  auto config = model.config().to_map();
  const std::string& type = model.config().model_type;
  const char* name = type == "ministral"    ? "MinistralForCausalLM"
                     : type == "ministral3" ? "Ministral3ForCausalLM"
                                            : "MistralForCausalLM";
  config["architectures"] = {ConfigList{{name}}};
  switch (model.dtype()) {
    case at::kFloat:
      config["dtype"] = {"float32"};
      break;
    case at::kBFloat16:
      config["dtype"] = {"bfloat16"};
      break;
    case at::kHalf:
      config["dtype"] = {"float16"};
      break;
    case at::kDouble:
      config["dtype"] = {"float64"};
      break;
    default:
      break;
  }
  for (const auto& [key, value] : more) config.try_emplace(key, value);
  return config;
}

}  // namespace

void save_pretrained(const MistralForCausalLM& model,
                     const std::filesystem::path& folder,
                     const ConfigMap& more) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  MISTRAL_EXT_CHECK(std::filesystem::is_directory(folder),
                    "save: {}: must be a folder that can be made, got \"{}\"",
                    io::printable(folder.native()),
                    error.message());
  io::AtomicFile config(folder / "config.json");
  const auto text = io::to_json(config_to_save(model, more), config.label());
  config.write(text.data(), std::ssize(text));
  config.finish();
  io::AtomicFile weights(folder / "model.safetensors");
  // Hugging Face's readers ask for this word.
  io::write_safetensors(weights, tensors_to_save(model), {{"format", "pt"}});
  weights.finish();
  weights.commit();
  config.commit();
}

}  // namespace mistral_ext::models
