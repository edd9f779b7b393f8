#include "mistral_ext/models/packing_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/all.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/stack.h>

namespace mistral_ext::models {
namespace {

// Packing pays where at least one place in so many is padding.
constexpr int64_t kWorthwhile = 8;

}  // namespace

std::optional<layers::Packing> plan_packing(const ModelInputs& inputs) {
  const auto& ids = inputs.input_ids;
  if (at::GradMode::is_enabled() || inputs.output_hidden_states || !ids.defined() ||
      ids.is_meta() || ids.size(1) == 1 || !inputs.attention_mask.defined() ||
      inputs.attention_mask.dim() != 2) {
    return std::nullopt;
  }
  const int64_t batch = ids.size(0);
  const int64_t seq = ids.size(1);
  const auto mask = inputs.attention_mask.to(ids.device()).ne(0);
  const auto is_token = mask.narrow(1, mask.size(1) - seq, seq).flatten();
  // Once a row has begun it goes on.
  const auto goes_on = mask.narrow(1, 1, mask.size(1) - 1).ge(mask.narrow(1, 0, mask.size(1) - 1));
  const auto all_ids = ids.flatten();
  const auto first_pad = is_token.logical_not().to(at::kByte).argmax();
  const auto pad = all_ids.index_select(0, first_pad.unsqueeze(0));
  // One look at the device for all.
  const auto found = at::stack({is_token.sum(),
                                goes_on.all().to(at::kLong),
                                is_token.logical_or(all_ids.eq(pad)).all().to(at::kLong)})
                         .cpu();
  const auto* values = found.const_data_ptr<int64_t>();
  const int64_t count = values[0];
  const bool is_simple = values[1] != 0 && values[2] != 0;
  if (!is_simple || (batch * seq - count) * kWorthwhile < batch * seq) return std::nullopt;
  return layers::Packing{
      .batch = batch,
      .seq = seq,
      .places = at::cat({at::nonzero(is_token).squeeze(1), first_pad.unsqueeze(0)}),
      .tokens = is_token.cumsum(0).sub_(1).masked_fill_(is_token.logical_not(), count)};
}

}  // namespace mistral_ext::models
