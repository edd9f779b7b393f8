#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext::tokenizers {

// One part of a pipeline in tokenizer.json: {"type": ..., and its settings}.
struct TokenizerComponent {
  std::string type;
  const ConfigMap* settings;
  std::string label;  // what messages begin with: "load: tokenizer.json: decoder.decoders[2]"
};

// The parts under `field` in order, Sequences opened up; none where it is null or absent. `list` is
// the name under which a Sequence of this kind has its parts. Throws ValueError naming what is
// wrong.
std::vector<TokenizerComponent> read_components(const ConfigMap& fields,
                                                const std::string& field,
                                                const std::string& list,
                                                const std::string& label);

// Throws ValueError for a type that is not read.
[[noreturn]] void refuse_component(const TokenizerComponent& component);

}  // namespace mistral_ext::tokenizers
