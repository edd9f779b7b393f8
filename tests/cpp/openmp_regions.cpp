// For ThreadSanitizer: torch's OpenMP library is not instrumented, so it does not see that a
// region's threads begin after what came before the region, and end before what comes after it. The
// library's function by which a region starts is replaced by one that says so and calls it.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdlib>

namespace {

using Body = void (*)(void*);
using Start = void (*)(Body body, void* data, unsigned threads, unsigned flags);

struct Region {
  Body body;
  void* data;
  char begin = 0;  // whose addresses stand for the two moments
  char end = 0;
};

void run(void* argument) {
  auto& region = *static_cast<Region*>(argument);
  __tsan_acquire(&region.begin);
  region.body(region.data);
  __tsan_release(&region.end);
}

}  // namespace

extern "C" void GOMP_parallel(Body body, void* data, unsigned threads, unsigned flags) {
  static const auto start = reinterpret_cast<Start>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  if (start == nullptr) std::abort();
  Region region{.body = body, .data = data};
  __tsan_release(&region.begin);
  start(&run, &region, threads, flags);
  __tsan_acquire(&region.end);
}
