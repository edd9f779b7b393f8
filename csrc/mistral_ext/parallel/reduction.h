#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace mistral_ext::parallel {

enum class Reduction : uint8_t { sum, average, product, min, max, bit_and, bit_or, bit_xor };

// The name in messages: "sum".
const char* name_of(Reduction reduction);

// out[i] = inputs[0][i] (+) inputs[1][i] (+) ... for i in [0, n), in this order, so that ranks that
// reduce the same get the same bits. 16-bit floats are summed in fp32 and rounded once; a NaN makes
// the minimum and the maximum NaN; integers wrap, their average is rounded towards zero. `out` may
// be one of the inputs.
using ReduceFunction = void (*)(void* out, const void* const* inputs, int count, int64_t n);

// nullptr where the dtype has no such reduction: there are those of fp64, fp32, fp16, bf16 and
// integers, bitwise ones of integers and bool, min and max of all these.
ReduceFunction reduce_function(c10::ScalarType dtype, Reduction reduction);

}  // namespace mistral_ext::parallel
