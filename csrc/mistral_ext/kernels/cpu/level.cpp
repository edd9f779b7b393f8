#include "mistral_ext/kernels/cpu/level.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace mistral_ext::kernels::cpu {
namespace {

constexpr Level kLevels[] = {Level::plain, Level::avx2, Level::avx512, Level::avx512_bf16};

Level chosen_level() {
  const char* forced = std::getenv("MISTRAL_EXT_CPU_LEVEL");
  if (forced == nullptr || *forced == '\0') return machine_level();
  for (const Level level : kLevels) {
    if (std::string(forced) != level_name(level)) continue;
    if (level > machine_level()) {
      throw std::runtime_error(std::string("MISTRAL_EXT_CPU_LEVEL: this machine goes up to ") +
                               level_name(machine_level()) + ", got " + forced);
    }
    return level;
  }
  throw std::runtime_error(
      std::string("MISTRAL_EXT_CPU_LEVEL must be plain, avx2, avx512 or avx512_bf16, got ") +
      forced);
}

}  // namespace

Level machine_level() {
#if defined(__x86_64__)
  static const Level level = [] {
    __builtin_cpu_init();
    const auto has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c");
    if (!has_avx2) return Level::plain;
    const auto has_avx512 =
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (!has_avx512) return Level::avx2;
    return __builtin_cpu_supports("avx512bf16") ? Level::avx512_bf16 : Level::avx512;
  }();
  return level;
#else
  return Level::plain;
#endif
}

Level active_level() {
  static const Level level = chosen_level();
  return level;
}

bool is_intel() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

const char* level_name(Level level) {
  switch (level) {
    case Level::avx2:
      return "avx2";
    case Level::avx512:
      return "avx512";
    case Level::avx512_bf16:
      return "avx512_bf16";
    default:
      return "plain";
  }
}

}  // namespace mistral_ext::kernels::cpu
