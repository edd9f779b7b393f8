#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <type_traits>

#include "mistral_ext/kernels/cpu/cross_entropy.h"
#include "mistral_ext/ops/check_tensor.h"
#include "mistral_ext/ops/cpu/dispatch.h"
#include "mistral_ext/ops/cross_entropy.h"
#include "mistral_ext/ops/linear_cross_entropy.h"

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

// As row_losses_reference, for contiguous logits and labels.
at::Tensor row_losses_cpu(at::Tensor& logits, const at::Tensor& labels, bool gradient) {
  const int64_t vocab_size = logits.size(1);
  auto losses = empty_losses(logits);
  dispatch_float(logits.scalar_type(), [&]<typename T>(Type<T>) {
    using Loss = LossOf<T>;
    const auto with_gradient = MISTRAL_EXT_AT_LEVEL(cross_entropy_gradient<T, Loss>);
    const auto without = MISTRAL_EXT_AT_LEVEL(cross_entropy<T, Loss>);
    T* values = mutable_data<T>(logits);
    const int64_t* classes = labels.const_data_ptr<int64_t>();
    Loss* to = mutable_data<Loss>(losses);
    at::parallel_for(0, logits.size(0), row_grain(vocab_size), [&](int64_t begin, int64_t end) {
      T* rows = values + begin * vocab_size;
      if (gradient) {
        with_gradient(classes + begin, rows, to + begin, end - begin, vocab_size);
      } else {
        constexpr int64_t kNoneIgnored = -1;
        without(
            rows, vocab_size, classes + begin, kNoneIgnored, to + begin, end - begin, vocab_size);
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

}  // namespace

TORCH_LIBRARY_IMPL(mistral_ext, CPU, m) {
  m.impl("cross_entropy", &cross_entropy_cpu);
  m.impl("linear_cross_entropy_gradients", &linear_cross_entropy_gradients_cpu);
}

}  // namespace mistral_ext::ops
