#pragma once

#include "mistral_ext/io/state_dict.h"
#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {

// The whole tensors of a model whose weights are spread over several ranks, by name, a tied head
// left out; of one rank's model its state_dict. A collective: every rank calls it.
//   everywhere: whether every rank gets them. Otherwise the first one does; the others get nothing,
//     and need memory for one tensor.
io::StateDict gather_state_dict(const MistralForCausalLM& model, bool everywhere = true);

}  // namespace mistral_ext::models
