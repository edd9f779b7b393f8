#include "mistral_ext/models/gather.h"

#include "mistral_ext/models/load.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::models {

io::StateDict gather_state_dict(const MistralForCausalLM& model, bool everywhere) {
  const auto& ranks = model.parallel();
  auto parts = state_dict(model);
  if (!ranks.is_sharded()) return parts;
  const auto modules = weighted_modules(model);
  io::StateDict whole;
  for (const auto& [name, part] : parts) {
    auto tensor = parallel::gather_shards(part, modules.at(name)->shard(), ranks);
    if (everywhere || ranks.rank() == 0) whole.emplace(name, std::move(tensor));
  }
  return whole;
}

}  // namespace mistral_ext::models
