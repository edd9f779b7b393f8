// linear_few_rows against sums in fp64, its two kernels against each other, and rows against rows
// alone. `linear_few_rows_test small` is for compute-sanitizer.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -I csrc
//     tests/cuda/linear_few_rows_test.cu csrc/mistral_ext/kernels/cuda/linear_few_rows.cu

#include <cstring>

#include "linear_trial.cuh"
#include "mistral_ext/kernels/cuda/linear_few_rows.h"

namespace mistral_ext::trial {
namespace {

template <typename T>
void run_all(bool small) {
  std::vector<int64_t> ins = {
      8, 64, 576, 2048, 4096, 4104, 5120, 8192, 8200, 14336, 16392, 32768, 131072};
  std::vector<int> rows = {1, 2, 3, 5, 8};
  if (small) {
    ins = {8, 576, 4096, 14336};
    rows = {1, 3, 8};
  }
  for (const int64_t in : ins) {
    std::vector<Case> some;
    for (const int64_t out : {1, 17, 523}) {
      some.push_back({in, {out}, LinearEpilogue::kStore, false});
    }
    some.push_back({in, {263, 65, 130}, LinearEpilogue::kStore, true});
    some.push_back({in, {130}, LinearEpilogue::kAdd, false});
    some.push_back({in, {267, 267}, LinearEpilogue::kSwiGlu, true});
    if (!small) {
      // Enough for every block to have several sets of sums.
      if (in == 64) some.push_back({in, {150000}, LinearEpilogue::kStore, true});
      if (in == 576) some.push_back({in, {70001, 70001}, LinearEpilogue::kSwiGlu, false});
      if (in == 8200) some.push_back({in, {8500}, LinearEpilogue::kAdd, false});
    }
    for (const auto& c : some) {
      Trial<T> trial(c, kernels::cuda::linear_few_rows<T>, kernels::cuda::kFewRows);
      for (const int r : rows) {
        trial.check_values(r);
        trial.check_kernels(r);
        for (int m = 0; m < r; ++m) trial.check_rows(r, m, 1);
      }
    }
  }
}

}  // namespace
}  // namespace mistral_ext::trial

int main(int count, char** arguments) {
  const bool small = count > 1 && std::strcmp(arguments[1], "small") == 0;
  mistral_ext::trial::run_all<mistral_ext::kernels::bfloat16>(small);
  mistral_ext::trial::run_all<mistral_ext::kernels::float16>(small);
  std::printf("linear_few_rows: %d checks, %d failed\n",
              mistral_ext::trial::cases,
              mistral_ext::trial::failures);
  return mistral_ext::trial::failures == 0 ? 0 : 1;
}
