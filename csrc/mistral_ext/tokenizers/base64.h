#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mistral_ext::tokenizers {

// The bytes that a text in base64 (RFC 4648, with its padding) stands for; absent where it is none.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace mistral_ext::tokenizers
