// A tekken.json.
#include "fuzz.h"
#include "mistral_ext/tokenizers/tekken.h"
#include "tokenizer_promises.h"

using namespace mistral_ext;

// A file of some bytes may ask for 16,384 special tokens, with names made up; patterns are
// compiled.
constexpr fuzz::MemoryLimit kLimit = {16 << 20, 512};

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tokenizer = fuzz::parse_within(
      kLimit, size, [&] { return tokenizers::parse_tekken(fuzz::as_text(data, size), "fuzz"); });
  if (tokenizer) fuzz::require_promises(**tokenizer, data, size);
  return 0;
}
