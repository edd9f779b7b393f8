#pragma once

#include <string>
#include <string_view>

namespace mistral_ext::io {

// Text out of an untrusted file as an error message can hold it: at most some hundred bytes,
// control characters and bytes that are no UTF-8 as \xNN.
std::string printable(std::string_view text);

}  // namespace mistral_ext::io
