#include "mistral_ext/models/prepacked.h"

#include <c10/core/InferenceMode.h>

#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/prepacked_file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/models/load.h"
#include "mistral_ext/models/parameter_shapes.h"
#include "mistral_ext/models/parameter_shard.h"
#include "mistral_ext/models/read_part.h"
#include "mistral_ext/models/saved_config.h"
#include "mistral_ext/models/stored_config.h"
#include "mistral_ext/parallel/agreement.h"

namespace mistral_ext::models {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHead = "lm_head.weight";

MistralConfig read_config(const ConfigMap& map, const std::string& label) {
  try {
    return config_of_stored(map);
  } catch (const c10::ValueError& error) {
    MISTRAL_EXT_CHECK(false, "{}: {}", label, error.what_without_backtrace());
    throw;
  }
}

bool is_model_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf ||
         dtype == at::kDouble;
}

// The parameters that a checkpoint of this configuration holds, in the order of their use. `find`
// gives a tensor's dtype and shape by its name, or null; `names` are all that it knows. Throws
// where they do not fit each other.
template <class Find>
std::vector<std::string> check_tensors(const MistralConfig& config,
                                       const std::vector<std::string>& names,
                                       const std::string& label,
                                       const Find& find) {
  // A configuration can ask for more layers than there is memory; what has the last one is of their
  // size.
  const auto last =
      fmt::format("model.layers.{}.input_layernorm.weight", config.num_hidden_layers - 1);
  MISTRAL_EXT_CHECK(find(last) != nullptr, "{}: {} is missing", label, last);
  std::vector<std::string> used;
  std::optional<at::ScalarType> dtype;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    const io::TensorInfo* info = find(name);
    if (info == nullptr && name == kHead && config.tie_word_embeddings) continue;
    MISTRAL_EXT_CHECK(info != nullptr, "{}: {} is missing", label, name);
    MISTRAL_EXT_CHECK(info->shape == shape,
                      "{}: {} must have shape {}, got {}",
                      label,
                      name,
                      c10::str(at::IntArrayRef(shape)),
                      c10::str(at::IntArrayRef(info->shape)));
    if (!dtype) dtype = info->dtype;
    MISTRAL_EXT_CHECK(is_model_dtype(*dtype),
                      "{}: {} must be float32, bfloat16, float16 or float64, got {}",
                      label,
                      name,
                      c10::toString(*dtype));
    MISTRAL_EXT_CHECK(info->dtype == *dtype,
                      "{}: {} must be {} as the embedding, got {}",
                      label,
                      name,
                      c10::toString(*dtype),
                      c10::toString(info->dtype));
    used.push_back(name);
  }
  const std::set<std::string_view> known(used.begin(), used.end());
  for (const auto& name : names) {
    MISTRAL_EXT_CHECK(known.contains(name),
                      "{}: {} is not a parameter of this model",
                      label,
                      io::printable(name));
  }
  return used;
}

void check_ranks_agree(const io::PrepackedFile& file, const PrepackedOptions& options) {
  if (!options.parallel.is_sharded()) return;
  parallel::Digest weights;
  weights.add(file.header_checksum());
  weights.add(options.dtype ? static_cast<int64_t>(*options.dtype) : -1);
  parallel::check_agreement(
      {{"the configuration", parallel::Digest().add(file.config_text()).value()},
       {"the checkpoint", weights.value()}},
      options.device,
      options.parallel);
}

}  // namespace

void save_prepacked(const ConfigMap& config, const io::StateDict& tensors, const fs::path& folder) {
  make_folder(folder);
  io::AtomicFile file(folder / kPrepackedFile);
  std::map<std::string, io::TensorInfo> infos;
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    io::check_writable(file, name, tensor);
    infos[name] = {tensor.scalar_type(), tensor.sizes().vec()};
    names.push_back(name);
  }
  const auto used = check_tensors(
      read_config(config, file.label()), names, file.label(), [&](const std::string& name) {
        const auto found = infos.find(name);
        return found == infos.end() ? nullptr : &found->second;
      });
  io::NamedTensors ordered;
  for (const auto& name : used) ordered.emplace_back(name, tensors.at(name));
  io::write_prepacked(file, config, ordered);
  file.finish();
  file.commit();
  io::sync_folder(folder);
}

void save_prepacked(const MistralForCausalLM& model,
                    const fs::path& folder,
                    const ConfigMap& more) {
  const auto tensors = tensors_to_save(model);
  on_first_rank(model, [&] { save_prepacked(config_to_save(model, more), tensors, folder); });
}

PrepackedWeights read_prepacked(const fs::path& folder, const PrepackedOptions& options) {
  options.parallel.check_device(options.device.type());
  const auto on_all_ranks = [&](const std::function<void()>& work) {
    const auto what = fmt::format("load: {}", io::printable((folder / kPrepackedFile).native()));
    parallel::on_all_ranks(what, work, options.device, options.parallel);
  };
  std::optional<io::PrepackedFile> file;
  PrepackedWeights weights;
  std::vector<std::string> used;
  on_all_ranks([&] {
    file.emplace(folder / kPrepackedFile);
    weights.config_text = file->config_text();
    weights.config = read_config(file->config(), file->label());
    weights.extra_config = extra_fields(file->config());
    used =
        check_tensors(weights.config, file->names(), file->label(), [&](const std::string& name) {
          return file->find(name);
        });
    MISTRAL_EXT_CHECK(is_model_dtype(options.dtype.value_or(at::kFloat)),
                      "{}: dtype must be float32, bfloat16, float16 or float64, got {}",
                      file->label(),
                      c10::toString(*options.dtype));
    parallel::check_rank_count(weights.config, options.parallel.size());
  });
  check_ranks_agree(*file, options);
  on_all_ranks([&] {
    if (options.verify) file->verify();
    for (const auto& name : used) {
      const auto dtype = options.dtype.value_or(file->find(name)->dtype);
      const auto shard = parameter_shard(name, weights.config, options.parallel);
      weights.tensors.emplace(name, read_part(*file, name, shard, dtype, options.device));
    }
  });
  return weights;
}

std::shared_ptr<MistralForCausalLM> load_prepacked(const fs::path& folder,
                                                   const PrepackedOptions& options) {
  // Of use to passes that record gradients, wherever it is asked for.
  const c10::InferenceMode ordinary(false);
  const auto weights = read_prepacked(folder, options);
  try {
    auto model = std::make_shared<MistralForCausalLM>(weights.config, options.parallel);
    load_parameters(*model, weights.tensors);
    model->set_extra_config(weights.extra_config);
    for (auto& parameter : model->parameters()) parameter.requires_grad_(options.requires_grad);
    return model;
  } catch (const c10::ValueError& error) {
    MISTRAL_EXT_CHECK(false,
                      "load: {}: {}",
                      io::printable((folder / kPrepackedFile).native()),
                      error.what_without_backtrace());
    throw;
  }
}

ConfigMap read_prepacked_config(const fs::path& folder) {
  return io::PrepackedFile(folder / kPrepackedFile).config();
}

}  // namespace mistral_ext::models
