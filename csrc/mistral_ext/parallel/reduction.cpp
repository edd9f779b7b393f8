#include "mistral_ext/parallel/reduction.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "mistral_ext/kernels/cpu/sum_arrays.h"

namespace mistral_ext::parallel {
namespace {

template <typename T>
constexpr bool kIsBits = std::is_integral_v<T>;  // bool too

// What is summed in: integers without their sign, whose overflow is defined.
template <typename T>
struct Wide {
  using Type = std::make_unsigned_t<T>;
};
template <>
struct Wide<bool> {
  using Type = bool;
};
template <>
struct Wide<double> {
  using Type = double;
};
template <>
struct Wide<float> {
  using Type = float;
};
template <>
struct Wide<c10::BFloat16> {
  using Type = float;
};
template <>
struct Wide<c10::Half> {
  using Type = float;
};

// a (+) b. The narrow unsigned types would be multiplied as int.
template <Reduction kReduction, typename T, typename W>
W combine(W a, W b) {
  if constexpr (kReduction == Reduction::sum || kReduction == Reduction::average) {
    return static_cast<W>(a + b);
  } else if constexpr (kReduction == Reduction::product) {
    if constexpr (std::is_integral_v<W>) {
      return static_cast<W>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    } else {
      return a * b;
    }
  } else if constexpr (kReduction == Reduction::bit_and) {
    return static_cast<W>(a & b);
  } else if constexpr (kReduction == Reduction::bit_or) {
    return static_cast<W>(a | b);
  } else if constexpr (kReduction == Reduction::bit_xor) {
    return static_cast<W>(a ^ b);
  } else {
    const bool less = static_cast<T>(a) < static_cast<T>(b);
    const bool first = kReduction == Reduction::min ? less : !less;
    if constexpr (std::is_integral_v<W>) {
      return first ? a : b;
    } else {
      if (std::isnan(a)) return a;
      return std::isnan(b) || !first ? b : a;
    }
  }
}

// A block at a time, so that the sums in between stay in the nearest cache.
template <typename T, Reduction kReduction>
void reduce(void* out, const void* const* inputs, int count, int64_t n) {
  using W = typename Wide<T>::Type;
  constexpr int64_t kBlock = 512;
  std::array<W, kBlock> sums;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t width = std::min(kBlock, n - begin);
    const T* const first = static_cast<const T*>(inputs[0]) + begin;
    for (int64_t i = 0; i < width; ++i) sums[i] = static_cast<W>(first[i]);
    for (int rank = 1; rank < count; ++rank) {
      const T* const next = static_cast<const T*>(inputs[rank]) + begin;
      for (int64_t i = 0; i < width; ++i) {
        sums[i] = combine<kReduction, T, W>(sums[i], static_cast<W>(next[i]));
      }
    }
    T* const to = static_cast<T*>(out) + begin;
    for (int64_t i = 0; i < width; ++i) {
      if constexpr (kReduction != Reduction::average) {
        to[i] = static_cast<T>(sums[i]);
      } else if constexpr (kIsBits<T>) {
        to[i] = static_cast<T>(static_cast<T>(sums[i]) / static_cast<int64_t>(count));
      } else {
        to[i] = static_cast<T>(sums[i] / static_cast<W>(count));
      }
    }
  }
}

// The sums that training and tensor-parallel layers are made of.
template <typename T, typename Kernel>
void sum_at_level(void* out, const void* const* inputs, int count, int64_t n) {
  static_assert(sizeof(T) == sizeof(Kernel));
  const auto kernel = MISTRAL_EXT_AT_LEVEL(sum_arrays<Kernel>);
  kernel(inputs, count, static_cast<Kernel*>(out), n);
}

template <typename T>
ReduceFunction function_for(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      if constexpr (std::is_same_v<T, float>) {
        return &sum_at_level<T, float>;
      } else if constexpr (std::is_same_v<T, c10::Half>) {
        return &sum_at_level<T, kernels::float16>;
      } else if constexpr (std::is_same_v<T, c10::BFloat16>) {
        return &sum_at_level<T, kernels::bfloat16>;
      } else if constexpr (!std::is_same_v<T, bool>) {
        return &reduce<T, Reduction::sum>;
      }
      break;
    case Reduction::average:
      if constexpr (!std::is_same_v<T, bool>) return &reduce<T, Reduction::average>;
      break;
    case Reduction::product:
      if constexpr (!std::is_same_v<T, bool>) return &reduce<T, Reduction::product>;
      break;
    case Reduction::min:
      return &reduce<T, Reduction::min>;
    case Reduction::max:
      return &reduce<T, Reduction::max>;
    case Reduction::bit_and:
      if constexpr (kIsBits<T>) return &reduce<T, Reduction::bit_and>;
      break;
    case Reduction::bit_or:
      if constexpr (kIsBits<T>) return &reduce<T, Reduction::bit_or>;
      break;
    case Reduction::bit_xor:
      if constexpr (kIsBits<T>) return &reduce<T, Reduction::bit_xor>;
      break;
  }
  return nullptr;
}

}  // namespace

const char* name_of(Reduction reduction) {
  constexpr std::array kNames = {
      "sum", "average", "product", "min", "max", "bitwise and", "bitwise or", "bitwise xor"};
  const auto index = static_cast<size_t>(reduction);
  return index < kNames.size() ? kNames[index] : "unknown";
}

ReduceFunction reduce_function(c10::ScalarType dtype, Reduction reduction) {
  switch (dtype) {
    case c10::ScalarType::Double:
      return function_for<double>(reduction);
    case c10::ScalarType::Float:
      return function_for<float>(reduction);
    case c10::ScalarType::Half:
      return function_for<c10::Half>(reduction);
    case c10::ScalarType::BFloat16:
      return function_for<c10::BFloat16>(reduction);
    case c10::ScalarType::Long:
      return function_for<int64_t>(reduction);
    case c10::ScalarType::Int:
      return function_for<int32_t>(reduction);
    case c10::ScalarType::Short:
      return function_for<int16_t>(reduction);
    case c10::ScalarType::Char:
      return function_for<int8_t>(reduction);
    case c10::ScalarType::Byte:
      return function_for<uint8_t>(reduction);
    case c10::ScalarType::Bool:
      return function_for<bool>(reduction);
    default:
      return nullptr;
  }
}

}  // namespace mistral_ext::parallel
