#pragma once

// Instruction-set levels. A kernel's .cpp is compiled once a level, each time inside a namespace of
// the level's name; the machine's level is found once, at the first call.

#if defined(__x86_64__)
#define MISTRAL_EXT_FOR_EACH_LEVEL(X) X(plain) X(avx2) X(avx512) X(avx512_bf16)
#define MISTRAL_EXT_AT_LEVEL(...)                                                      \
  ::mistral_ext::kernels::cpu::pick(&::mistral_ext::kernels::cpu::plain::__VA_ARGS__,  \
                                    &::mistral_ext::kernels::cpu::avx2::__VA_ARGS__,   \
                                    &::mistral_ext::kernels::cpu::avx512::__VA_ARGS__, \
                                    &::mistral_ext::kernels::cpu::avx512_bf16::__VA_ARGS__)
#else
#define MISTRAL_EXT_FOR_EACH_LEVEL(X) X(plain)
#define MISTRAL_EXT_AT_LEVEL(...) \
  ::mistral_ext::kernels::cpu::pick(&::mistral_ext::kernels::cpu::plain::__VA_ARGS__)
#endif

namespace mistral_ext::kernels::cpu {

enum class Level { plain = 0, avx2 = 1, avx512 = 2, avx512_bf16 = 3 };

// The level in use: the machine's best, or what MISTRAL_EXT_CPU_LEVEL (plain, avx2, avx512,
// avx512_bf16) forces at the first call. Throws std::runtime_error where the name is unknown or the
// machine lacks the level.
Level active_level();

// The best level this machine has.
Level machine_level();

// Whether the processor is Intel's: some libraries keep their best code for those.
bool is_intel();

const char* level_name(Level level);

// The function of the active level, out of one pointer a level in the order of `Level`.
template <typename Function, typename... Rest>
Function* pick(Function* plain, Rest*... higher) {
  Function* const functions[] = {plain, higher...};
  return functions[static_cast<int>(active_level())];
}

}  // namespace mistral_ext::kernels::cpu
