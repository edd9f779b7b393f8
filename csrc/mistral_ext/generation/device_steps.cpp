#include "mistral_ext/generation/device_steps.h"

#include <algorithm>
#include <utility>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::generation {
namespace {

// How many tokens each row begins with that are hidden; none where others are hidden as well.
std::optional<std::vector<int64_t>> left_padding(const at::Tensor& mask, int64_t batch) {
  std::vector<int64_t> padding(batch);
  if (!mask.defined()) return padding;
  const auto host = mask.cpu().contiguous();  // [batch, tokens]
  const bool* visible = host.const_data_ptr<bool>();
  for (int64_t& hidden : padding) {
    const bool* const end = visible + mask.size(1);
    const bool* const first = std::find(visible, end, true);
    if (std::find(first, end, false) != end) return std::nullopt;
    hidden = first - visible;
    visible = end;
  }
  return padding;
}

std::vector<int64_t> next_positions(const Prompt& prompt) {
  std::vector<int64_t> positions(prompt.batch, prompt.past + prompt.fed);
  if (!prompt.position_ids.defined()) return positions;
  const auto last = prompt.position_ids.select(1, prompt.fed - 1).expand({prompt.batch}).cpu();
  const auto host = last.contiguous();
  std::transform(host.const_data_ptr<int64_t>(),
                 host.const_data_ptr<int64_t>() + prompt.batch,
                 positions.begin(),
                 [](int64_t position) { return position + 1; });
  return positions;
}

}  // namespace

DeviceSteps::DeviceSteps(models::MistralForCausalLM& model, const Prompt& prompt)
    : model_(model), prompt_tokens_(prompt.past + prompt.fed) {
  if (const auto padding = left_padding(prompt.attention_mask, prompt.batch)) {
    padding_ = *padding;
    positions_ = next_positions(prompt);
  }
}

DeviceSteps::~DeviceSteps() { give_back(); }

void DeviceSteps::give_back() {
  if (taken_) model_.token_steps().give_back(*std::exchange(taken_, std::nullopt));
}

void DeviceSteps::repeat_rows(int64_t repeats) {
  give_back();
  for (auto* of_rows : {&positions_, &padding_}) {
    std::vector<int64_t> repeated;
    for (const int64_t value : *of_rows) repeated.insert(repeated.end(), repeats, value);
    *of_rows = std::move(repeated);
  }
}

models::StepRows DeviceSteps::rows(const cache::KVCache& cache, const at::Tensor& tokens) const {
  models::StepRows rows;
  rows.tokens = tokens;
  rows.positions = positions_;
  for (int64_t& position : rows.positions) position += cache.seen() - prompt_tokens_;
  rows.padding = padding_;
  rows.stopped.resize(positions_.size());
  return rows;
}

models::TokenSteps* DeviceSteps::steps() {
  if (positions_.empty()) return nullptr;
  if (!taken_) taken_ = model_.token_steps().take(model_, std::ssize(positions_));
  return taken_->steps.get();
}

at::Tensor DeviceSteps::logits(cache::KVCache& cache, const at::Tensor& tokens) {
  auto* const device = steps();
  if (device == nullptr) return {};
  const auto newest = rows(cache, tokens);
  return device->serves(cache, newest) ? device->logits(cache, newest) : at::Tensor();
}

at::Tensor DeviceSteps::likeliest(cache::KVCache& cache,
                                  const at::Tensor& tokens,
                                  const at::Tensor& stopped,
                                  const GenerationConfig& config,
                                  int64_t count,
                                  const std::function<bool()>& go_on) {
  auto* const device = steps();
  if (device == nullptr) return {};
  auto newest = rows(cache, tokens);
  newest.eos_token_ids = config.eos_token_ids;
  newest.pad_token_id = config.pad_token_id.value_or(0);
  bool* is_stopped = stopped.mutable_data_ptr<bool>();
  // Without ends nothing is padded: rows that a callback has stopped go on.
  const bool has_ends = !config.eos_token_ids.empty();
  if (has_ends) newest.stopped.assign(is_stopped, is_stopped + stopped.numel());
  if (!device->serves(cache, newest)) return {};
  auto made = device->run(cache, newest, count, go_on);
  if (has_ends) std::ranges::copy(newest.stopped, is_stopped);
  return made;
}

}  // namespace mistral_ext::generation
