#include "mistral_ext/io/on_threads.h"

#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace mistral_ext::io {
namespace {

TEST(OnThreads, EveryUnitIsDoneOnce) {
  for (const int64_t threads : {-1, 0, 1, 2, 7}) {
    for (const int64_t count : {0, 1, 2, 1000}) {
      std::vector<int> done(count);
      on_threads(threads, count, [&](int64_t i) { ++done[i]; });
      EXPECT_EQ(done, std::vector<int>(count, 1)) << threads << " threads";
    }
  }
}

TEST(OnThreads, WhatAUnitThrowsReachesTheCallerAndEndsTheWork) {
  for (const int64_t threads : {1, 4}) {
    std::atomic<int64_t> done{0};
    const auto work = [&](int64_t i) {
      if (i == 10) throw std::runtime_error("unit 10");
      ++done;
    };
    EXPECT_THROW(on_threads(threads, int64_t{1} << 40, work), std::runtime_error);
    EXPECT_GE(done, 10);
  }
}

TEST(OnThreads, UnitsRunInTheCallersInferenceMode) {
  for (const bool mode : {false, true}) {
    const c10::InferenceMode guard(mode);
    std::atomic<int> as_here{0};
    on_threads(3, 50, [&](int64_t) { as_here += c10::InferenceMode::is_enabled() == mode; });
    EXPECT_EQ(as_here, 50);
  }
}

}  // namespace
}  // namespace mistral_ext::io
