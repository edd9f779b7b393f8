#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

namespace mistral_ext::generation {

// Exponential variates on the CPU, at the places where they are needed.
//
// at::multinomial draws one sample of a row p as argmax(p / q) with q ~ Exp(1) for every element of
// the row. Where all but a few p are zero only their q matter, but the next draw must find the
// generator where it would be after all of them.
class ExponentialDraws {
 public:
  // Writes to `out` what at::empty({count}).exponential_(1, generator) holds at `positions`, which
  // rise, and leaves the generator in the same state. No generator: the default one.
  void draw(const std::optional<at::Generator>& generator,
            int64_t count,
            std::span<const int64_t> positions,
            float* out);

  // Whether this torch draws one variate after another from its Mersenne twister, so that those in
  // between can be stepped over; found by trying. It does not where MKL draws them.
  static bool can_skip();

 private:
  at::Tensor all_;  // fp32 [count]: where nothing can be stepped over
};

}  // namespace mistral_ext::generation
