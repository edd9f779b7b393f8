#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace mistral_ext::parallel {

// Sleeps until wake_all is called on `word`, here or in another process that shares its memory, and
// at most for `limit`. Returns at once where `word` is not `expected`. May also return early.
void sleep_while(const std::atomic<uint32_t>& word,
                 uint32_t expected,
                 std::chrono::milliseconds limit);

void wake_all(std::atomic<uint32_t>& word);

}  // namespace mistral_ext::parallel
