#pragma once

#include <cstdint>
#include <string>

namespace mistral_ext::parallel {

// A process of this machine: its number, and when it started, in the kernel's ticks: the number
// alone may be given to another process later.
struct ProcessIdentity {
  int64_t pid = 0;
  uint64_t started = 0;
};

ProcessIdentity this_process();

// Whether it runs no more. A process that has ended and that its parent has not yet asked about
// counts as ended.
bool has_ended(const ProcessIdentity& process);

// The same for processes that see each other by their numbers: those of one machine, and there of
// one container.
std::string this_host();

}  // namespace mistral_ext::parallel
