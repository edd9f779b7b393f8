#include "mistral_ext/models/save_pretrained.h"

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/folder_change.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/write_safetensors.h"
#include "mistral_ext/models/parameter_shapes.h"
#include "mistral_ext/models/saved_config.h"

namespace mistral_ext::models {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// Hugging Face's readers ask for this word.
std::map<std::string, std::string> metadata() { return {{"format", "pt"}}; }

// On the first rank; elsewhere one without tensors. Consecutive parameters, as many as go into a
// file each.
std::vector<io::StateDict> split(const MistralForCausalLM& model, int64_t most) {
  const auto state = tensors_to_save(model);
  std::vector<io::StateDict> shards(1);
  int64_t bytes = 0;
  for (const auto& [name, shape] : parameter_shapes(model.config())) {
    const auto found = state.find(name);
    if (found == state.end()) continue;
    const auto size = static_cast<int64_t>(found->second.nbytes());
    if (bytes > 0 && bytes + size > most) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += size;
    shards.back().insert(*found);
  }
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

// Whether a file is named as one of several is.
bool is_shard(const std::string& name) {
  const std::string pattern = shard_name(0, 0);
  if (name.size() != pattern.size()) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool is_digit = name[i] >= '0' && name[i] <= '9';
    const bool wants_digit = pattern[i] >= '0' && pattern[i] <= '9';
    if (wants_digit ? !is_digit : name[i] != pattern[i]) return false;
  }
  return true;
}

ConfigMap index_of(const std::vector<io::StateDict>& shards) {
  ConfigMap files;
  int64_t parameters = 0;
  int64_t bytes = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const auto& [name, tensor] : shards[i]) {
      files[name] = {shard_name(i, shards.size())};
      parameters += tensor.numel();
      bytes += static_cast<int64_t>(tensor.nbytes());
    }
  }
  return {{"metadata", {ConfigMap{{"total_parameters", {parameters}}, {"total_size", {bytes}}}}},
          {"weight_map", {std::move(files)}}};
}

// Files that are complete under temporary names, in the order in which they get their own.
class Files {
 public:
  explicit Files(fs::path folder) : folder_(std::move(folder)) {}

  io::AtomicFile& add(const std::string& name) {
    names_.insert(name);
    return *files_.emplace_back(std::make_unique<io::AtomicFile>(folder_ / name));
  }
  void add_json(const std::string& name, const ConfigMap& map) {
    auto& file = add(name);
    const auto text = io::to_json(map, file.label());
    file.write(text.data(), std::ssize(text));
    file.finish();
  }
  void add_weights(const std::string& name, const io::StateDict& tensors) {
    auto& file = add(name);
    io::write_safetensors(file, tensors, metadata());
    file.finish();
  }

  void commit() {
    // A whole model's file is preferred to several, and an old index would take new files for its
    // own: the old model goes before the first new file is there.
    io::FolderChange change;
    if (!names_.contains(kWeights)) {
      change.remove(folder_ / kWeights);
      change.remove(folder_ / kIndex);
      io::sync_folder(folder_);
    }
    for (const auto& file : files_) change.put(*file);
    io::sync_folder(folder_);
    remove_others(change);
    change.keep();
  }

 private:
  void remove_others(io::FolderChange& change) const {
    if (!names_.contains(kIndex)) change.remove(folder_ / kIndex);
    std::vector<fs::path> others;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const auto name = entry.path().filename().string();
      if (is_shard(name) && !names_.contains(name)) others.push_back(entry.path());
    }
    for (const auto& path : others) change.remove(path);
  }

  fs::path folder_;
  std::set<std::string> names_;
  std::vector<std::unique_ptr<io::AtomicFile>> files_;
};

void write_files(const std::vector<io::StateDict>& shards,
                 const MistralForCausalLM& model,
                 const fs::path& folder,
                 const ConfigMap& more,
                 const SaveOptions& options) {
  make_folder(folder);
  Files files(folder);
  if (shards.size() == 1) {
    files.add_weights(kWeights, shards.front());
  } else {
    for (size_t i = 0; i < shards.size(); ++i) {
      files.add_weights(shard_name(i, shards.size()), shards[i]);
    }
    files.add_json(kIndex, index_of(shards));
  }
  files.add_json("config.json", config_to_save(model, more));
  if (options.generation_config) {
    files.add_json("generation_config.json", *options.generation_config);
  }
  files.commit();
}

}  // namespace

void save_pretrained(const MistralForCausalLM& model,
                     const fs::path& folder,
                     const ConfigMap& more,
                     const SaveOptions& options) {
  MISTRAL_EXT_CHECK(options.max_shard_size > 0,
                    "save_pretrained: max_shard_size must be positive, got {}",
                    options.max_shard_size);
  const auto shards = split(model, options.max_shard_size);
  on_first_rank(model, [&] { write_files(shards, model, folder, more, options); });
}

}  // namespace mistral_ext::models
