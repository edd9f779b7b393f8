#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

struct LoadOptions {
  // Absent: what the configuration says, else the dtype in which the embedding is stored.
  std::optional<at::ScalarType> dtype = std::nullopt;
  at::Device device = at::kCPU;
  // Whether the parameters require gradients: to train.
  bool requires_grad = false;
  // The ranks over which the weights are spread. Each reads its part of the file and no more; all
  // call this function, and learn where their files differ.
  // GCC wants it for designated initialisers that leave it out.
  parallel::Context parallel = {};  // NOLINT(readability-redundant-member-init)
};

// Loads a folder that save_pretrained wrote, Hugging Face's or ours: config.json with
// model.safetensors, or with several files and model.safetensors.index.json. Also Mistral's own
// format, params.json with consolidated.safetensors, or with several files and
// consolidated.safetensors.index.json. The model's class is the one that transformers'
// AutoModelForCausalLM takes.
//
// Tensors that are stored as they are asked for, on the CPU, are not read but mapped: the file's
// pages come into memory when they are first used, are shared with other processes, and are copied
// when something is written to them. The file may be replaced or removed meanwhile, not cut short.
// All others are converted one by one.
//
// The parameters require no gradients unless options say so. With tied embeddings the head is the
// embedding, unless the folder has another one. Throws ValueError that names the file, and the
// field or the tensor which is missing, of another shape, or of a part of the model that has no
// such tensor. Tensors of parts that the model does not have, such as a vision tower, stay
// untouched, with a warning.
std::shared_ptr<MistralForCausalLM> load_pretrained(const std::filesystem::path& folder,
                                                    const LoadOptions& options = {});

}  // namespace mistral_ext::models
