#pragma once

#include <cstdint>
#include <functional>

#include "mistral_ext/generation/callbacks.h"

namespace mistral_ext::generation {

// An on_step that hands over the tokens of one row as they come, an end-of-sequence token too:
//   callbacks.on_step = stream_tokens([](int64_t token) { show(token); return true; });
//   on_token: returns false to stop. Called in the thread that generates, which waits for it.
// For generate, with one row: the step throws ValueError where there are more. Beams have nothing
// to stream: which of them is the best is not known before the end.
std::function<at::Tensor(const Step&)> stream_tokens(std::function<bool(int64_t token)> on_token);

}  // namespace mistral_ext::generation
