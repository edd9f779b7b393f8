#include "mistral_ext/models/load_pretrained.h"

#include <ATen/ops/equal.h>
#include <c10/core/InferenceMode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/models/checkpoint_folder.h"
#include "mistral_ext/models/load.h"
#include "mistral_ext/models/mistral_format.h"
#include "mistral_ext/models/parameter_shapes.h"
#include "mistral_ext/models/read_part.h"
#include "mistral_ext/parallel/agreement.h"

namespace mistral_ext::models {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

class Loader {
 public:
  Loader(const CheckpointFolder& checkpoint, const LoadOptions& options)
      : checkpoint_(checkpoint), options_(options) {}

  // The first part: no weight is read, and ranks are on their own.
  void prepare() {
    dtype_ = choose_dtype();
    // A configuration can ask for more layers than there is memory; a folder that has all of them
    // has a file of their size.
    for (int64_t i = 0; i < checkpoint_.config.num_hidden_layers; ++i) {
      find(fmt::format("model.layers.{}.input_layernorm.weight", i));
    }
    sources_ = find_sources();
    check_unexpected(sources_);
    model_ = make_model();
    if (options_.parallel.is_sharded()) digest();
  }

  void check_ranks_agree() const {
    parallel::check_agreement(
        {{"the configuration", config_digest_}, {"the checkpoint", weights_digest_}},
        options_.device,
        options_.parallel);
  }

  void read_weights() {
    const auto modules = weighted_modules(*model_);
    for (const auto& [name, source] : sources_) {
      state_.emplace(name, read(name, source, modules.at(name)->shard()));
    }
  }

  std::shared_ptr<MistralForCausalLM> finish() {
    drop_equal_head(state_);
    load_parameters(*model_, state_);
    model_->set_extra_config(checkpoint_.extra_config);
    return model_;
  }

 private:
  // What it says of the configuration, with the folder's name.
  std::shared_ptr<MistralForCausalLM> make_model() const {
    try {
      return std::make_shared<MistralForCausalLM>(checkpoint_.config, options_.parallel);
    } catch (const c10::ValueError& error) {
      MISTRAL_EXT_CHECK(false, "{}: {}", checkpoint_.label, error.what_without_backtrace());
      throw;
    }
  }

  std::string stored_name(const std::string& name) const {
    return checkpoint_.is_mistral_format ? mistral_name(name) : name;
  }

  const io::TensorInfo& find(const std::string& name) const {
    const auto* info = checkpoint_.tensors->find(stored_name(name));
    MISTRAL_EXT_CHECK(info != nullptr, "{}: {} is missing", label_of(name), stored_name(name));
    return *info;
  }

  // With the file that has the tensor, or should.
  const std::string& label_of(const std::string& name) const {
    return checkpoint_.tensors->label_of(stored_name(name));
  }

  bool has(const std::string& name) const {
    return checkpoint_.tensors->find(stored_name(name)) != nullptr;
  }

  at::ScalarType choose_dtype() const {
    auto dtype = options_.dtype ? options_.dtype : checkpoint_.dtype;
    if (!dtype) {
      dtype = find(checkpoint_.config.tie_word_embeddings && !has(kEmbedding) ? kHead : kEmbedding)
                  .dtype;
    }
    MISTRAL_EXT_CHECK(*dtype == at::kFloat || *dtype == at::kBFloat16 || *dtype == at::kHalf ||
                          *dtype == at::kDouble,
                      "{}: dtype must be float32, bfloat16, float16 or float64, got {}",
                      checkpoint_.label,
                      c10::toString(*dtype));
    return *dtype;
  }

  // The stored tensor of each parameter; of the head and the embedding, where they are tied, those
  // that are there.
  std::map<std::string, std::string> find_sources() const {
    const bool tied = checkpoint_.config.tie_word_embeddings;
    std::map<std::string, std::string> sources;
    for (const auto& [name, shape] : parameter_shapes(checkpoint_.config)) {
      if (tied && name == kHead && !has(name)) continue;
      if (tied && name == kEmbedding && !has(name) && has(kHead)) {
        sources.emplace(name, stored_name(kHead));
        continue;
      }
      const auto& info = find(name);
      MISTRAL_EXT_CHECK(info.shape == shape,
                        "{}: {} must have shape {}, got {}",
                        label_of(name),
                        stored_name(name),
                        c10::str(at::IntArrayRef(shape)),
                        c10::str(at::IntArrayRef(info.shape)));
      MISTRAL_EXT_CHECK(at::isFloatingType(info.dtype),
                        "{}: {} must be floating point, got {}",
                        label_of(name),
                        stored_name(name),
                        c10::toString(info.dtype));
      sources.emplace(name, stored_name(name));
    }
    return sources;
  }

  // A tensor of a part that this model does not have, such as a vision tower, is left alone with a
  // warning. One of a part that it does have is refused: a bias, the scales of a quantisation or a
  // further layer are there to be computed with, and without them it is another model.
  void check_unexpected(const std::map<std::string, std::string>& sources) const {
    std::set<std::string> used;
    for (const auto& [name, source] : sources) used.insert(source);
    std::vector<std::string> ignored;
    for (const auto& name : checkpoint_.tensors->names()) {
      // Older checkpoints hold what the configuration says again.
      if (used.contains(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
      MISTRAL_EXT_CHECK(!is_of_a_module(name),
                        "{}: {} is not a parameter of this model",
                        checkpoint_.tensors->label_of(name),
                        io::printable(name));
      ignored.push_back(io::printable(name));
    }
    if (ignored.empty()) return;
    constexpr size_t kNamed = 3;
    const auto some = std::span(ignored).first(std::min(ignored.size(), kNamed));
    TORCH_WARN(checkpoint_.label,
               ": ",
               ignored.size(),
               " tensors belong to no part of this model and are ignored: ",
               fmt::format("{}", fmt::join(some, ", ")),
               ignored.size() > kNamed ? ", ..." : "");
  }

  // Whether a stored tensor is of the embedding, a layer, the last norm or the head.
  bool is_of_a_module(const std::string& name) const {
    constexpr std::array<std::string_view, 4> kOurs = {
        "model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."};
    constexpr std::array<std::string_view, 4> kMistrals = {
        "tok_embeddings.", "layers.", "norm.", "output."};
    return std::ranges::any_of(checkpoint_.is_mistral_format ? kMistrals : kOurs,
                               [&](std::string_view part) { return name.starts_with(part); });
  }

  // Ranks with other files would compute nonsense together: they compare what is stored, and a few
  // bytes of each tensor.
  void digest() {
    config_digest_ =
        parallel::Digest().add(io::to_json(checkpoint_.config.to_map(), checkpoint_.label)).value();
    parallel::Digest weights;
    for (const auto& [name, source] : sources_) {
      const auto& info = *checkpoint_.tensors->find(source);
      weights.add(name).add(static_cast<int64_t>(info.dtype));
      for (const int64_t size : info.shape) weights.add(size);
      weights.add(a_few_bytes(source, info));
    }
    weights_digest_ = weights.add(static_cast<int64_t>(dtype_)).value();
  }

  // Of a row in the middle; read, since to map a page is to have its neighbours, too.
  at::Tensor a_few_bytes(const std::string& source, const io::TensorInfo& info) const {
    constexpr int64_t kElements = 16;
    const io::TensorPart row{.dim = 0, .start = info.shape.front() / 2, .length = 1};
    const auto values = checkpoint_.tensors->converted(source, info.dtype, at::kCPU, row).flatten();
    return values.narrow(0, 0, std::min(values.numel(), kElements)).view(at::kByte);
  }

  at::Tensor read(const std::string& name,
                  const std::string& source,
                  const parallel::ShardSpec& shard) const {
    auto weight = read_part(*checkpoint_.tensors, source, shard, dtype_, options_.device);
    if (checkpoint_.is_mistral_format && is_interleaved(name)) {
      half_split_rows_(weight, checkpoint_.config.head_dim);
    }
    return weight;
  }

  // Some writers store a tied head too. One that differs stays, as with Hugging Face.
  void drop_equal_head(io::StateDict& state) const {
    const auto head = state.find(kHead);
    if (!checkpoint_.config.tie_word_embeddings || head == state.end()) return;
    const bool differs = !at::equal(head->second, state.at(kEmbedding));
    if (!parallel::any_rank(differs, options_.device, options_.parallel)) state.erase(head);
  }

  const CheckpointFolder& checkpoint_;
  const LoadOptions& options_;
  at::ScalarType dtype_ = at::kFloat;
  std::shared_ptr<MistralForCausalLM> model_;
  std::map<std::string, std::string> sources_;  // by parameter: the stored tensor
  io::StateDict state_;
  int64_t config_digest_ = 0;
  int64_t weights_digest_ = 0;
};

}  // namespace

std::shared_ptr<MistralForCausalLM> load_pretrained(const std::filesystem::path& folder,
                                                    const LoadOptions& options) {
  // Of use to passes that record gradients, wherever it is asked for.
  const c10::InferenceMode ordinary(false);
  options.parallel.check_device(options.device.type());
  const auto on_all_ranks = [&](const std::function<void()>& work) {
    const auto what = fmt::format("load: {}", io::printable(folder.native()));
    parallel::on_all_ranks(what, work, options.device, options.parallel);
  };
  std::optional<CheckpointFolder> checkpoint;
  std::optional<Loader> loader;
  on_all_ranks([&] {
    checkpoint.emplace(open_checkpoint(folder));
    loader.emplace(*checkpoint, options);
    loader->prepare();
  });
  loader->check_ranks_agree();
  on_all_ranks([&] { loader->read_weights(); });
  auto model = loader->finish();
  for (auto& parameter : model->parameters()) parameter.requires_grad_(options.requires_grad);
  return model;
}

}  // namespace mistral_ext::models
