#include "mistral_ext/models/parameter_shard.h"

#include <string_view>

namespace mistral_ext::models {

parallel::ShardSpec parameter_shard(const std::string& name,
                                    const MistralConfig& config,
                                    const parallel::Context& context) {
  using parallel::ShardSpec;
  const auto is = [&](std::string_view module) {
    return name.ends_with(std::string(module) + ".weight");
  };
  if (is("k_proj") || is("v_proj")) {
    return ShardSpec::key_value_heads(context, config.num_key_value_heads);
  }
  if (is("o_proj") || is("down_proj")) return ShardSpec::row_parallel(context);
  if (is("norm") || is("layernorm")) return {};
  return ShardSpec::column_parallel(context);
}

}  // namespace mistral_ext::models
