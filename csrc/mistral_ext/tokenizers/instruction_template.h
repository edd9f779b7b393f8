#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/tokenizers/tokenizer.h"

namespace mistral_ext::tokenizers {

// How a conversation becomes token ids, by the version of Mistral's tokenizer that a model was
// trained with: a tekken.json names it, tokenizer.model.v3 has it in its name, and tokenizer.model
// is v1. v3 goes with either kind of file; v11 and v13 with tekken only.
enum class InstructionVersion { kV1, kV2, kV3, kV7, kV11, kV13 };

// "v3"; absent for a version that is not above.
std::optional<InstructionVersion> instruction_version(std::string_view name);

struct Message {
  enum class Role { kSystem, kUser, kAssistant, kTool };
  Role role;
  std::string content;  // UTF-8
  // Of the last message, an assistant's: it is the beginning of the answer, which the model goes on
  // with.
  bool prefix = false;
};

// The ids that mistral-common's MistralTokenizer.encode_chat_completion gives for a conversation.
// Special tokens written out in a message are text. Messages of one role that follow each other are
// one, joined by an empty line. Up to v3 the system messages go before the text of a user's
// message: the first in v1, the last in v2 and v3; later they stand where they are.
//
// Throws ValueError where the roles are in an order that the model was not trained on, an
// assistant's message is empty, the tokenizer lacks a control token, or a message is a tool's:
// tools are not supported.
std::vector<int64_t> encode_conversation(const Tokenizer& tokenizer,
                                         InstructionVersion version,
                                         std::span<const Message> messages);

}  // namespace mistral_ext::tokenizers
