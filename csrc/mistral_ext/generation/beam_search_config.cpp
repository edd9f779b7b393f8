#include "mistral_ext/generation/beam_search_config.h"

#include <cmath>

#include "mistral_ext/core/check.h"

namespace mistral_ext::generation {

void BeamSearchConfig::validate() const {
  MISTRAL_EXT_CHECK(num_beams > 0, "beam_search: num_beams must be positive, got {}", num_beams);
  MISTRAL_EXT_CHECK(num_return_sequences > 0 && num_return_sequences <= num_beams,
                    "beam_search: num_return_sequences must be in [1, num_beams = {}], got {}",
                    num_beams,
                    num_return_sequences);
  MISTRAL_EXT_CHECK(std::isfinite(length_penalty),
                    "beam_search: length_penalty must be finite, got {}",
                    length_penalty);
}

}  // namespace mistral_ext::generation
