#pragma once

namespace mistral_ext::programs {

struct Interrupted {};

// While one lives, the first Ctrl-C is noted in place of ending the program; a second ends it.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

  // Throws Interrupted where there was one.
  static void check();
};

}  // namespace mistral_ext::programs
