// The end of a decode step: tokens from logits, ends of rows, counters.
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -I csrc
//     tests/cuda/decode_step_token_test.cu csrc/mistral_ext/kernels/cuda/decode_step_token.cu

#include <cmath>

#include "device.cuh"
#include "mistral_ext/kernels/cuda/decode_step_token.h"

namespace mistral_ext::trial {
namespace {

using kernels::bfloat16;
using kernels::cuda::step_token;
using kernels::cuda::StepLaunch;
using kernels::cuda::StepToken;

int failures = 0;

void expect(bool holds, const char* name, const char* what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED %s: %s\n", name, what);
}

// Ends of rows: end-of-sequence tokens, padding, a full table, equal and NaN logits.
void try_tokens() {
  const int64_t vocab = 1003;
  std::vector<bfloat16> logits(4 * vocab, from_double<bfloat16>(-1.0));
  logits[0 * vocab + 700] = logits[0 * vocab + 300] = from_double<bfloat16>(2.0);
  logits[1 * vocab + 5] = from_double<bfloat16>(NAN);
  logits[1 * vocab + 6] = from_double<bfloat16>(INFINITY);
  logits[2 * vocab + 1002] = from_double<bfloat16>(0.5);
  logits[3 * vocab + 9] = from_double<bfloat16>(-0.0);
  logits[3 * vocab + 10] = from_double<bfloat16>(0.0);
  Array<bfloat16> device_logits(logits);
  Array<int64_t> tokens(4, 0xff);
  Array<int64_t> positions(std::vector<int64_t>{3, 4, 5, 6});
  Array<int64_t> made(4 * 3, 0xff);
  Array<int> steps(1, 0);
  Array<uint8_t> stopped(std::vector<uint8_t>{0, 0, 1, 0});
  Array<int64_t> eos(std::vector<int64_t>{9, 300});
  Array<int> running(std::vector<int>{1});
  Array<unsigned> arrived(1, 0);
  StepToken<bfloat16> args = {};
  args.logits = device_logits.data();
  args.tokens = tokens.data();
  args.positions = positions.data();
  args.made = made.data();
  args.most = 3;
  args.steps = steps.data();
  args.stopped = stopped.data();
  args.eos = eos.data();
  args.eos_count = 2;
  args.pad_token = 77;
  args.running = running.data();
  args.arrived = arrived.data();
  args.vocab_size = vocab;
  args.batch = 4;
  for (int i = 0; i < 2; ++i) {
    CUDA_CHECK(step_token(args, StepLaunch{nullptr, 1, true, false}));
    CUDA_CHECK(cudaDeviceSynchronize());
  }
  expect(tokens.host() == std::vector<int64_t>{77, 5, 77, 77}, "tokens", "second step");
  const auto all = made.host();
  expect(all[0] == 300 && all[3] == 5 && all[6] == 77 && all[9] == 9, "tokens", "first step");
  expect(stopped.host() == std::vector<uint8_t>{1, 0, 1, 1}, "tokens", "stopped");
  expect(positions.host() == std::vector<int64_t>{5, 6, 7, 8}, "tokens", "positions");
  expect(running.host()[0] == 1 && steps.host()[0] == 2, "tokens", "running");
  for (int i = 0; i < 2; ++i) CUDA_CHECK(step_token(args, StepLaunch{nullptr, 1, true, false}));
  CUDA_CHECK(cudaDeviceSynchronize());
  expect(running.host()[0] == 0 && steps.host()[0] == 3, "tokens", "table full");
  expect(positions.host() == std::vector<int64_t>{6, 7, 8, 9}, "tokens", "nothing after the end");
}

}  // namespace
}  // namespace mistral_ext::trial

int main() {
  mistral_ext::trial::try_tokens();
  std::printf("step_token: %d failed\n", mistral_ext::trial::failures);
  return mistral_ext::trial::failures == 0 ? 0 : 1;
}
