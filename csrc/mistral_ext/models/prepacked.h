#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "mistral_ext/io/state_dict.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

// A folder's prepacked checkpoint is this file; docs/cpp.md describes it.
inline constexpr const char* kPrepackedFile = "model.prepacked.safetensors";

// dtype, device, requires_grad and parallel are those of LoadOptions.
struct PrepackedOptions {
  // Absent: the file's, which is what the CPU maps; another one is converted.
  std::optional<at::ScalarType> dtype = std::nullopt;
  at::Device device = at::kCPU;
  // Whether the parameters require gradients: to train. For load_prepacked.
  bool requires_grad = false;
  // The ranks over which the weights are spread, as in LoadOptions.
  // GCC wants it for designated initialisers that leave it out.
  parallel::Context parallel = {};  // NOLINT(readability-redundant-member-init)
  // Reads every tensor at once and compares its checksum. Without it only the header is checked,
  // and no page of a weight is touched before the model uses it.
  bool verify = false;
};

// What a prepacked checkpoint holds.
struct PrepackedWeights {
  std::string config_text;  // JSON
  MistralConfig config;
  ConfigMap extra_config;  // see MistralForCausalLM::extra_config
  // By Hugging Face's names; a head that is the embedding is absent. On the CPU, in the file's own
  // dtype, its mapping.
  io::StateDict tensors;
};

// Writes the model's prepacked checkpoint into the folder, which is made where there is none. It
// appears whole or not at all. Other files there stay as they are; this one needs none of them.
//   more: further fields of the configuration, such as eos_token_id, as for save_pretrained.
// Throws ValueError that names the file, and the tensor that is missing, unknown, of another shape
// or of another dtype than the others.
void save_prepacked(const MistralForCausalLM& model,
                    const std::filesystem::path& folder,
                    const ConfigMap& more = {});
void save_prepacked(const ConfigMap& config,
                    const io::StateDict& tensors,
                    const std::filesystem::path& folder);

// The model of a folder's prepacked checkpoint. On the CPU its weights are mapped, as
// load_pretrained maps what needs no conversion. The parameters require no gradients unless options
// say so. Throws ValueError that names the file and the field or the tensor, for another version of
// the format and for damage too.
std::shared_ptr<MistralForCausalLM> load_prepacked(const std::filesystem::path& folder,
                                                   const PrepackedOptions& options = {});
PrepackedWeights read_prepacked(const std::filesystem::path& folder,
                                const PrepackedOptions& options = {});

// The configuration alone.
ConfigMap read_prepacked_config(const std::filesystem::path& folder);

}  // namespace mistral_ext::models
