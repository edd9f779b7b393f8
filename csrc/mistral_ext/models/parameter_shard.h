#pragma once

#include <string>

#include "mistral_ext/core/config.h"
#include "mistral_ext/parallel/shard_spec.h"

namespace mistral_ext::models {

// Which part of a parameter each rank holds.
parallel::ShardSpec parameter_shard(const std::string& name,
                                    const MistralConfig& config,
                                    const parallel::Context& context);

}  // namespace mistral_ext::models
