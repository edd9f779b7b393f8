#include "mistral_ext/programs/interrupt.h"

#include <csignal>

namespace mistral_ext::programs {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void note(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

}  // namespace

InterruptWatch::InterruptWatch() {
  interrupted = 0;
  std::signal(SIGINT, note);
}

InterruptWatch::~InterruptWatch() { std::signal(SIGINT, SIG_DFL); }

void InterruptWatch::check() {
  if (interrupted != 0) throw Interrupted();
}

}  // namespace mistral_ext::programs
