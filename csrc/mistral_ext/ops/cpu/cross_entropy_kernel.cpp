#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <type_traits>

#include "mistral_ext/kernels/cpu/cross_entropy.h"
#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/cross_entropy.h"
#include "mistral_ext/ops/linear_cross_entropy.h"
#include "mistral_ext/ops/linear_cross_entropy_logits.h"

namespace mistral_ext::ops {
namespace {

template <typename T>
using LossOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

at::Tensor empty_losses(const at::Tensor& logits) {
  return at::detail::empty_cpu({logits.size(0)}, accumulation_dtype(logits));
}

at::Tensor cross_entropy_cpu(const at::Tensor& logits,
                             const at::Tensor& labels,
                             int64_t ignore_index) {
  check_cross_entropy(logits, labels);
  const int64_t vocab_size = logits.size(1);
  check_label_range("cross_entropy", labels.masked_select(labels.ne(ignore_index)), vocab_size);
  const Rows rows(logits);
  const auto targets = labels.expect_contiguous();
  auto losses = empty_losses(logits);
  dispatch_float(logits.scalar_type(), [&]<typename T>(Type<T>) {
    using Loss = LossOf<T>;
    const auto kernel = MISTRAL_EXT_AT_LEVEL(cross_entropy<T, Loss>);
    const T* from = rows.data<T>();
    const int64_t* classes = targets->const_data_ptr<int64_t>();
    Loss* to = mutable_data<Loss>(losses);
    at::parallel_for(0, rows.count(), row_grain(vocab_size), [&](int64_t begin, int64_t end) {
      kernel(from + begin * rows.stride(),
             rows.stride(),
             classes + begin,
             ignore_index,
             to + begin,
             end - begin,
             vocab_size);
    });
  });
  return losses.sum();
}

at::Tensor row_losses_cpu(const at::Tensor& logits,
                          const at::Tensor& labels,
                          const at::Tensor& gradient,
                          const at::Tensor& scale) {
  const int64_t vocab_size = logits.size(1);
  auto losses = empty_losses(logits);
  dispatch_float(logits.scalar_type(), [&]<typename T>(Type<T>) {
    using Loss = LossOf<T>;
    const auto with_gradient = MISTRAL_EXT_AT_LEVEL(cross_entropy_gradient<T, Loss>);
    const auto without = MISTRAL_EXT_AT_LEVEL(cross_entropy<T, Loss>);
    const T* from = data<T>(logits);
    T* gradients = gradient.defined() ? static_cast<T*>(gradient.mutable_data_ptr()) : nullptr;
    const Loss factor = scale.defined() ? scale.item<Loss>() : Loss(1);
    const int64_t* classes = labels.const_data_ptr<int64_t>();
    Loss* to = mutable_data<Loss>(losses);
    at::parallel_for(0, logits.size(0), row_grain(vocab_size), [&](int64_t begin, int64_t end) {
      const T* rows = from + begin * vocab_size;
      const int64_t count = end - begin;
      if (gradients != nullptr) {
        T* results = gradients + begin * vocab_size;
        with_gradient(rows, classes + begin, factor, results, to + begin, count, vocab_size);
      } else {
        constexpr int64_t kNoneIgnored = -1;
        without(rows, vocab_size, classes + begin, kNoneIgnored, to + begin, count, vocab_size);
      }
    });
  });
  return losses;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_gradients_cpu(
    const at::Tensor& hidden,
    const at::Tensor& weight,
    const at::Tensor& labels,
    int64_t ignore_index,
    bool for_hidden,
    bool for_weight) {
  check_linear_cross_entropy(hidden, weight, labels);
  return linear_cross_entropy_in_chunks(
      hidden, weight, labels, ignore_index, for_hidden, for_weight, &row_losses_cpu);
}

std::tuple<at::Tensor, at::Tensor> linear_cross_entropy_logits_cpu(const at::Tensor& hidden,
                                                                   const at::Tensor& weight,
                                                                   const at::Tensor& labels,
                                                                   int64_t ignore_index) {
  return linear_cross_entropy_logits_by(&row_losses_cpu, hidden, weight, labels, ignore_index);
}

std::tuple<at::Tensor, at::Tensor> linear_cross_entropy_logits_backward_cpu(
    const at::Tensor& grad_loss,
    const at::Tensor& hidden,
    const at::Tensor& weight,
    const at::Tensor& labels,
    const at::Tensor& logits,
    int64_t ignore_index,
    bool for_hidden,
    bool for_weight) {
  return linear_cross_entropy_logits_backward_by(&row_losses_cpu,
                                                 grad_loss,
                                                 hidden,
                                                 weight,
                                                 labels,
                                                 logits,
                                                 ignore_index,
                                                 for_hidden,
                                                 for_weight);
}

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) {
  m.impl("cross_entropy", &cross_entropy_cpu);
  m.impl("linear_cross_entropy_gradients", &linear_cross_entropy_gradients_cpu);
  m.impl("linear_cross_entropy_logits", &linear_cross_entropy_logits_cpu);
  m.impl("linear_cross_entropy_logits_backward", &linear_cross_entropy_logits_backward_cpu);
}

}  // namespace mistral_ext::ops
