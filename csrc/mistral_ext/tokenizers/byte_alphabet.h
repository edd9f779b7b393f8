#pragma once

#include <string>
#include <string_view>

namespace mistral_ext::tokenizers {

// GPT-2's alphabet: for each of the 256 bytes a character that can be seen. Printable ones of
// Latin-1 are themselves, the others are from U+0100 on.

// Appends the characters of the bytes.
void bytes_to_alphabet(std::string_view bytes, std::string& text);

// Whether it stands for bytes, each of its characters for one.
bool is_of_alphabet(std::string_view text);

// Appends the bytes of the characters; where one of them is not of the alphabet, the text as it is.
void alphabet_to_bytes(std::string_view text, std::string& bytes);

}  // namespace mistral_ext::tokenizers
