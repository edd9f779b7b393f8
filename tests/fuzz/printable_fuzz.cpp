// Text out of a file, as error messages hold it.
#include <algorithm>

#include "fuzz.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"

using namespace mistral_ext;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto text = io::printable(fuzz::as_text(data, size));
  fuzz::require(text.size() < 310, "must be short");
  fuzz::require(
      std::none_of(
          text.begin(), text.end(), [](char c) { return (c >= 0 && c < 0x20) || c == 0x7F; }),
      "must hold no control characters");
  // Throws for what is no UTF-8.
  io::to_json({{"text", {text}}}, "fuzz");
  return 0;
}
