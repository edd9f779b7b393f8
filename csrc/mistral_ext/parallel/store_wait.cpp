#include "mistral_ext/parallel/store_wait.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace mistral_ext::parallel {

std::optional<std::string> wait_for_value(c10d::Store& store,
                                          const std::string& key,
                                          Clock::time_point deadline) {
  using std::chrono::milliseconds;
  const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
  try {
    store.wait({key}, std::max(left, milliseconds(1)));
  } catch (const std::exception&) {
    // Stores throw what they like for a wait that was too long. They also measure the time
    // themselves, and may give up a little early.
    if (Clock::now() < deadline - milliseconds(20)) throw;
    return std::nullopt;
  }
  return store.get_to_str(key);
}

std::string list_ranks(const std::vector<int>& ranks) {
  if (ranks.size() == 1) return fmt::format("rank {}", ranks[0]);
  return fmt::format(
      "ranks {} and {}", fmt::join(ranks.begin(), ranks.end() - 1, ", "), ranks.back());
}

std::string message_of(const std::exception& error) {
  const auto* known = dynamic_cast<const c10::Error*>(&error);
  std::string text = known != nullptr ? known->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace mistral_ext::parallel
