#pragma once

#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/generation/generation_config.h"

namespace mistral_ext::generation {

// The ids of a list of `name`, a field of a generation configuration. Throws ValueError where it
// holds something else.
std::vector<int64_t> to_tokens(const ConfigValue& value, const char* name);
int64_t to_token(const ConfigValue& value, const char* name);

// The field sequence_bias, in the two forms that transformers writes: [[[3, 4], 2.0], ...] and
// {"(3, 4)": 2.0, "(5,)": -1.0}, which it wrote for keys that are tuples. Of a sequence that comes
// again the last bias counts. Throws ValueError for other values.
std::vector<BiasedSequence> read_sequence_bias(const ConfigMap& map);

}  // namespace mistral_ext::generation
