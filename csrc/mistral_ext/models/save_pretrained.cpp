#include "mistral_ext/models/save_pretrained.h"

#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/write_safetensors.h"
#include "mistral_ext/models/saved_config.h"

namespace mistral_ext::models {
void save_pretrained(const MistralForCausalLM& model,
                     const std::filesystem::path& folder,
                     const ConfigMap& more) {
  make_folder(folder);
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
