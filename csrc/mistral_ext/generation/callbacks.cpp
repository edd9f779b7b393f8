#include "mistral_ext/generation/callbacks.h"

#include <c10/util/Exception.h>

namespace mistral_ext::generation {

void LengthWatch::reached(int64_t length) {
  if (told_ || length <= longest_) return;
  told_ = true;
  if (on_overlength_) {
    on_overlength_(length);
    return;
  }
  TORCH_WARN_ONCE("generate: the sequence has grown beyond the model's max_position_embeddings (",
                  longest_,
                  "); what follows may be of poor quality");
}

}  // namespace mistral_ext::generation
