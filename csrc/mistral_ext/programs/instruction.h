#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "mistral_ext/tokenizers/instruction_template.h"
#include "mistral_ext/tokenizers/tokenizer.h"

namespace mistral_ext::programs {

struct Instruction {
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer;
  tokenizers::InstructionVersion version;
};

// What a conversation with the folder's model is encoded with: that of Mistral's own files, of
// which the newest counts, tekken.json before tokenizer.model.v3 before tokenizer.model.
//   version: "v3"; empty: what the file's content or name says. Throws UsageError for one that is
//   unknown, and where none is given and the folder has no such file.
Instruction load_instruction(const std::filesystem::path& folder, const std::string& version);

}  // namespace mistral_ext::programs
