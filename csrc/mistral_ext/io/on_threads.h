#pragma once

#include <cstdint>
#include <functional>

namespace mistral_ext::io {

// Calls work(0), ..., work(count - 1) on at most `threads` threads, the caller's among them, each
// taking the next as it becomes free. What work throws first is thrown here; what has not begun by
// then is left out.
//
// Not at::parallel_for: its threads wait for each other by spinning, and reading waits for the
// kernel and for whatever else runs on the machine.
void on_threads(int64_t threads, int64_t count, const std::function<void(int64_t)>& work);

}  // namespace mistral_ext::io
