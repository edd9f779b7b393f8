#include "mistral_ext/kernels/cpu/sum_arrays.h"

#include "mistral_ext/kernels/cpu/simd.h"

namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL {

template <typename T>
void sum_arrays(const void* const* inputs, int64_t count, T* out, int64_t n) {
  const auto array = [=](int64_t index) { return static_cast<const T*>(inputs[index]); };
  if (count == 2) {  // the addresses stay in registers
    const T* const a = array(0);
    const T* const b = array(1);
    for_each_vector(n, [=](int64_t i, auto width) {
      store(out + i, load(a + i, width) + load(b + i, width), width);
    });
    return;
  }
  for_each_vector(n, [=](int64_t i, auto width) {
    vfloat sum = load(array(0) + i, width);
    for (int64_t index = 1; index < count; ++index) sum += load(array(index) + i, width);
    store(out + i, sum, width);
  });
}

#define MISTRAL_EXT_INSTANTIATE(T) \
  template void sum_arrays<T>(const void* const*, int64_t, T*, int64_t);

MISTRAL_EXT_INSTANTIATE(float)
MISTRAL_EXT_INSTANTIATE(bfloat16)
MISTRAL_EXT_INSTANTIATE(float16)
#undef MISTRAL_EXT_INSTANTIATE

}  // namespace mistral_ext::kernels::cpu::MISTRAL_EXT_LEVEL
