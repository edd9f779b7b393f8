#include "mistral_ext/generation/exponential_draws.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/DistributionsHelper.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <array>
#include <mutex>
#include <numeric>

namespace mistral_ext::generation {
namespace {

constexpr int64_t kWords = at::MERSENNE_STATE_N;
constexpr int64_t kShift = at::MERSENNE_STATE_M;

// at::mt19937 that steps over words which nobody reads (Matsumoto and Nishimura 1998, "Mersenne
// Twister"): the state is renewed a block at a time, and only words that are read are tempered.
class SkippingTwister {
 public:
  // Of the block in `data`, left_ - 1 words are still to come.
  explicit SkippingTwister(const at::mt19937_data_pod& data)
      : data_(data), block_begin_(data.left_ - 1 - kWords) {}

  // The word `index` places on from the first unread one. Indices must not fall.
  uint32_t word(int64_t index) {
    move_to(index);
    uint32_t y = data_.state_[index - block_begin_];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
  }

  // The state after `count` words.
  at::mt19937_data_pod after(int64_t count) {
    if (count > 0) move_to(count - 1);
    data_.next_ = static_cast<uint32_t>(count - block_begin_);
    data_.left_ = static_cast<int>(kWords + 1 - (count - block_begin_));
    return data_;
  }

 private:
  void move_to(int64_t index) {
    while (index >= block_begin_ + kWords) {
      renew();
      block_begin_ += kWords;
    }
  }

  static uint32_t twist(uint32_t high, uint32_t low) {
    const uint32_t mixed = (high & 0x80000000u) | (low & 0x7fffffffu);
    return (mixed >> 1) ^ ((0u - (low & 1u)) & 0x9908b0dfu);
  }

  void renew() {
    uint32_t* const s = data_.state_.data();
    for (int64_t i = 0; i < kWords - kShift; ++i) s[i] = s[i + kShift] ^ twist(s[i], s[i + 1]);
    for (int64_t i = kWords - kShift; i < kWords - 1; ++i) {
      s[i] = s[i + kShift - kWords] ^ twist(s[i], s[i + 1]);
    }
    s[kWords - 1] = s[kShift - 1] ^ twist(s[kWords - 1], s[0]);
  }

  at::mt19937_data_pod data_;
  int64_t block_begin_;  // index of the block's first word
};

// Each variate takes two words, and is computed in double and rounded.
void draw_skipping(at::Generator generator,
                   int64_t count,
                   std::span<const int64_t> positions,
                   float* out) {
  const std::lock_guard<std::mutex> lock(generator.mutex());
  auto* const cpu = generator.get<at::CPUGeneratorImpl>();
  auto engine = cpu->engine();
  SkippingTwister twister(engine.data());
  for (const int64_t position : positions) {
    const uint64_t high = twister.word(2 * position);
    const uint64_t low = twister.word(2 * position + 1);
    const double uniform = at::transformation::uniform_real<double>(high << 32 | low, 0.0, 1.0);
    *out++ = static_cast<float>(at::transformation::exponential<double>(uniform, 1.0));
  }
  engine.set_data(twister.after(2 * count));
  cpu->set_engine(engine);
}

// Draws twice as many variates as a block has, beginning inside one, both ways.
bool skipping_equals_drawing() {
  constexpr int64_t kCount = 2 * kWords - 5;
  auto drawing = at::detail::createCPUGenerator(/*seed_val=*/7);
  drawing.get<at::CPUGeneratorImpl>()->random();
  auto skipping = drawing.clone();
  const auto drawn = at::empty({kCount}, at::kFloat).exponential_(1.0, drawing);
  auto skipped = at::empty({kCount}, at::kFloat);
  std::array<int64_t, kCount> positions;
  std::iota(positions.begin(), positions.end(), 0);
  draw_skipping(skipping, kCount, positions, skipped.mutable_data_ptr<float>());
  return at::equal(drawn, skipped) && at::equal(drawing.get_state(), skipping.get_state());
}

}  // namespace

bool ExponentialDraws::can_skip() {
  static const bool can = skipping_equals_drawing();
  return can;
}

void ExponentialDraws::draw(const std::optional<at::Generator>& generator,
                            int64_t count,
                            std::span<const int64_t> positions,
                            float* out) {
  if (can_skip()) {
    draw_skipping(
        generator ? *generator : at::detail::getDefaultCPUGenerator(), count, positions, out);
    return;
  }
  if (!all_.defined() || all_.numel() != count) all_ = at::empty({count}, at::kFloat);
  all_.exponential_(1.0, generator);
  const float* const all = all_.const_data_ptr<float>();
  for (const int64_t position : positions) *out++ = all[position];
}

}  // namespace mistral_ext::generation
