#pragma once

#include <cstdint>
#include <limits>

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class Validator;
}

// What the values of options must be. Each reads the text itself, so that whatever stands there,
// the message says the rule and the text.
namespace mistral_ext::programs {

// More of anything that is counted here no machine has.
inline constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

CLI::Validator integer(int64_t least, int64_t most = kMost);

// In (0, 1].
CLI::Validator probability();

// In [0, 1].
CLI::Validator share();

// What scores are divided by: beyond 1e-6 and 1e6 they leave the range of fp32.
CLI::Validator divisor();

}  // namespace mistral_ext::programs
