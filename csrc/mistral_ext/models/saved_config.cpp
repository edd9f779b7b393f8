#include "mistral_ext/models/saved_config.h"

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/models/gather.h"
#include "mistral_ext/parallel/agreement.h"

namespace mistral_ext::models {

io::StateDict tensors_to_save(const MistralForCausalLM& model) {
  auto state = gather_state_dict(model, /*everywhere=*/false);
  if (!state.empty() && !model.config().tie_word_embeddings) {
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
  for (const auto& [key, value] : model.extra_config()) config.try_emplace(key, value);
  return config;
}

void on_first_rank(const MistralForCausalLM& model, const std::function<void()>& write) {
  const auto& ranks = model.parallel();
  const auto first = [&] {
    if (ranks.rank() == 0) write();
  };
  parallel::on_all_ranks("save", first, model.device(), ranks);
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  MISTRAL_EXT_CHECK(std::filesystem::is_directory(folder),
                    "save: {}: must be a folder that can be made, got \"{}\"",
                    io::printable(folder.native()),
                    error.message());
}

}  // namespace mistral_ext::models
