#include "mistral_ext/ops/cpu/linear_many_rows.h"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <string_view>

#include "mistral_ext/kernels/cpu/level.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/linear.h"

namespace mistral_ext::ops {
namespace {

// Elements of a float16 weight widened at a time: 16 MiB of float32.
constexpr int64_t kWidened = 4 * 1024 * 1024;

using OneDnnLinear = at::Tensor(const at::Tensor& x,
                                const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias,
                                std::string_view activation,
                                c10::List<std::optional<at::Scalar>> activation_scalars,
                                std::optional<std::string_view> activation_algorithm);

// oneDNN's product as ATen registers it; none where torch was built without oneDNN, or where BLAS
// is as fast.
const std::optional<c10::TypedOperatorHandle<OneDnnLinear>>& one_dnn_linear() {
  static const auto op = []() -> std::optional<c10::TypedOperatorHandle<OneDnnLinear>> {
    if (kernels::cpu::machine_level() < kernels::cpu::Level::avx512 || kernels::cpu::is_intel()) {
      return std::nullopt;
    }
    const auto found = c10::Dispatcher::singleton().findOp({"mkldnn::_linear_pointwise", ""});
    if (!found.has_value() || !found->hasKernelForDispatchKey(c10::DispatchKey::CPU)) {
      return std::nullopt;
    }
    return found->typed<OneDnnLinear>();
  }();
  return op;
}

at::Tensor linear_float(const at::Tensor& x, const at::Tensor& weight) {
  const auto& one_dnn = one_dnn_linear();
  if (!one_dnn.has_value() || x.numel() == 0 || weight.numel() == 0) {
    return linear_reference(x, weight);
  }
  // A transposed weight, as a gradient's, is read as it lies: a copy of a head would take as long
  // as the product.
  const bool as_it_lies = weight.is_contiguous() || weight.t().is_contiguous();
  return one_dnn->call(x.contiguous(),
                       as_it_lies ? weight : weight.contiguous(),
                       std::nullopt,
                       "none",
                       c10::List<std::optional<at::Scalar>>(),
                       "");
}

at::Tensor linear_half(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t out_features = weight.size(0);
  const int64_t block = std::max<int64_t>(1, kWidened / std::max<int64_t>(1, weight.size(1)));
  const auto wide_x = x.to(at::kFloat);
  at::DimVector sizes(x.sizes());
  sizes.back() = out_features;
  auto y = empty_cpu(sizes, x);
  for (int64_t begin = 0; begin < out_features; begin += block) {
    const int64_t count = std::min(block, out_features - begin);
    const auto part = weight.narrow(0, begin, count).to(at::kFloat);
    y.narrow(-1, begin, count).copy_(linear_float(wide_x, part));
  }
  return y;
}

}  // namespace

bool has_half_product() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512fp16");
  return has;
#else
  return true;
#endif
}

at::Tensor linear_many_rows(const at::Tensor& x, const at::Tensor& weight) {
  if (x.scalar_type() == at::kFloat) return linear_float(x, weight);
  if (x.scalar_type() == at::kHalf && !has_half_product()) return linear_half(x, weight);
  return linear_reference(x, weight);
}

}  // namespace mistral_ext::ops
