#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/parallel/context.h"

namespace mistral_ext::parallel {

// A 64-bit digest (FNV-1a) of what is added, the same on every machine of one byte order.
class Digest {
 public:
  Digest& add(std::string_view bytes);
  Digest& add(int64_t number);
  // Shape, dtype and, unless it is floating point, every value; an undefined tensor is a value,
  // too.
  Digest& add(const at::Tensor& tensor);

  int64_t value() const { return static_cast<int64_t>(state_); }

 private:
  uint64_t state_ = 14695981039346656037ULL;
};

struct Statement {
  std::string what;  // "the configuration"
  int64_t digest;
};

// Throws ValueError on every rank where the ranks' digests differ, naming what differs and the
// ranks that do not have rank 0's; also where the ranks are not in the same call: this and any_rank
// are one collective of one size, with tensors on `device`, whatever they are asked. Three
// statements at most.
void check_agreement(const std::vector<Statement>& statements,
                     at::Device device,
                     const Context& context);

// Whether one of the ranks says so. Throws as check_agreement where ranks are in another call.
bool any_rank(bool says_so, at::Device device, const Context& context);

// Runs `work`, which is no collective. Where it throws on one of the ranks all of them throw: those
// ranks what it threw, the others a ValueError that begins with `what`.
void on_all_ranks(const std::string& what,
                  const std::function<void()>& work,
                  at::Device device,
                  const Context& context);

}  // namespace mistral_ext::parallel
