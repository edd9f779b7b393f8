#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "mistral_ext/tokenizers/tokenizer.h"

namespace mistral_ext::tokenizers {

// SentencePiece's tokenizer.model, also under Mistral's names (tokenizer.model.v3). Special are its
// control pieces. A text between special tokens is encoded as if it were alone, with a space before
// it, and decoded so; with special tokens skipped, decode does what the library does.
//
// Throws ValueError naming the file where it is no model, or one that no Mistral has.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file);

// The same of a file's content; messages begin with `label`.
std::unique_ptr<Tokenizer> parse_sentencepiece(std::string_view bytes, const std::string& label);

}  // namespace mistral_ext::tokenizers
