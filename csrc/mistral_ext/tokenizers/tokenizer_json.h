#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "mistral_ext/tokenizers/special_token_ids.h"
#include "mistral_ext/tokenizers/tokenizer.h"

namespace mistral_ext::tokenizers {

// Hugging Face's tokenizer.json, of models BPE: byte-level ones and those made from
// SentencePiece's. Its settings for truncation and padding are passed over. Tokens that only
// tokenizer_config.json beside it has are added. Where the first and the last token of a text are
// not named by the files beside it, or no tokens, bos_token_id and eos_token_id are absent.
//
// Throws ValueError naming the file and the field.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& file);

// The same of a file's content; messages begin with `label`.
std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text,
                                                const std::string& label,
                                                const SpecialTokenNames& names = {});

}  // namespace mistral_ext::tokenizers
