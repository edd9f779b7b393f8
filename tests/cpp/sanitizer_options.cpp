// What every test of a sanitizer build starts with: torch's own libraries are not instrumented.
//
// AddressSanitizer:
//   detect_leaks=0               torch keeps registries and thread pools to the end of the process
//   detect_container_overflow=0  a std::vector that torch grew carries no annotations for our reads
//   detect_odr_violation=0       torch's libraries hold the same inline variables more than once
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0:detect_container_overflow=0:detect_odr_violation=0";
}

extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1"; }

// ThreadSanitizer:
//   ignore_noninstrumented_modules=1
//     what torch's libraries lock and count it does not see, so what memcpy, free and the like
//     touch on their behalf would look unordered
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1:halt_on_error=0:exitcode=66";
}

// Reports that are no race of ours, each with its reason.
//
// torch::autograd::Node::topological_nr: threads that compute gradients share the parameters'
// nodes, and each sets the same flag in them to true, in a function of torch's headers.
extern "C" const char* __tsan_default_suppressions() {
  return "race:torch::autograd::Node::topological_nr\n";
}
