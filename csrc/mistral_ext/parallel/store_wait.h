#pragma once

#include <chrono>
#include <exception>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

namespace mistral_ext::parallel {

using Clock = std::chrono::steady_clock;

// The value of a key of the store, once it is there. Nothing where it is not by the deadline. Where
// the store fails earlier, as when its server is gone, throws what the store throws.
std::optional<std::string> wait_for_value(c10d::Store& store,
                                          const std::string& key,
                                          Clock::time_point deadline);

// "rank 2", "ranks 1, 3 and 4".
std::string list_ranks(const std::vector<int>& ranks);

// What an exception says, in one line and without where it was thrown.
std::string message_of(const std::exception& error);

}  // namespace mistral_ext::parallel
