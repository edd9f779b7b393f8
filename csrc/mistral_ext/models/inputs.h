#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "mistral_ext/cache/kv_cache.h"

namespace mistral_ext::models {

// One call of the model. Undefined tensors are absent arguments.
struct ModelInputs {
  at::Tensor input_ids;      // int64 or int32 [batch, seq]; exactly one of this and the next
  at::Tensor inputs_embeds;  // [batch, seq, hidden_size]
  // [batch, past + seq], nonzero where there is a token; or [batch|1, heads|1, seq, keys], bool or
  // added to the scores, which then says alone what is visible (no causal rule, no window).
  at::Tensor attention_mask;
  // bool [batch|1, heads|1, seq, past + seq], instead of attention_mask: which keys each query
  // sees, the causal rule included; each layer's window holds besides.
  at::Tensor qk_mask;
  // int64 [batch|1, seq]; absent: past, past + 1, ... Where neither a mask nor a cache is given, a
  // row whose positions do not rise by one is split there into packed sequences.
  at::Tensor position_ids;
  cache::KVCache* cache = nullptr;  // appended to
  // Set where the caller's reference made a cache only to return it: a packed row is then not
  // split, as in Hugging Face's forward with use_cache.
  bool ignore_packing = false;
  bool output_hidden_states = false;
  // One entry a layer, or none at all: layers that run again in the backward in place of keeping
  // what they computed. They take no cache. Without gradients this changes nothing.
  std::vector<bool> checkpointed_layers;
  // Whether the embeddings of input_ids take part in gradients though the table does not.
  bool embeddings_require_grad = false;
  // With weights spread over several ranks: whether the inputs are known to be the same on all.
  // Otherwise they are compared first.
  bool ranks_agree = false;
};

struct ModelOutputs {
  at::Tensor last_hidden_state;  // [batch, seq, hidden_size], after the last norm
  // Where asked for: the embeddings, each layer's output, the last of them after the norm.
  std::vector<at::Tensor> hidden_states;
};

}  // namespace mistral_ext::models
