#pragma once

#include <cstdint>
#include <string>

#include "mistral_ext/parallel/reduction.h"

namespace mistral_ext::parallel {

enum class Collective : uint8_t {
  all_reduce,
  reduce,
  broadcast,
  all_gather,
  gather,
  scatter,
  reduce_scatter,
  all_to_all,
  barrier,
};

// The name in messages: "all_reduce".
const char* name_of(Collective collective);

// What one rank asks for. All ranks must ask for the same: each lays it open before it reads what
// others have.
struct CollectiveCall {
  Collective collective = Collective::barrier;
  Reduction reduction = Reduction::sum;
  int16_t dtype = 0;  // a c10::ScalarType
  int32_t root = 0;
  int64_t elements = 0;

  friend bool operator==(const CollectiveCall&, const CollectiveCall&) = default;
};

// "all_reduce(sum of 100 float elements)". Makes sense of any bits.
std::string describe(const CollectiveCall& call);

}  // namespace mistral_ext::parallel
