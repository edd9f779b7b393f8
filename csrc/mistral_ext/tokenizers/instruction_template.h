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
// is v1. v3 and v7 go with either kind of file; v11 and v13 with tekken only.
enum class InstructionVersion { kV1, kV2, kV3, kV7, kV11, kV13 };

// "v3"; absent for a version that is not above.
std::optional<InstructionVersion> instruction_version(std::string_view name);

// What the model may call.
struct Tool {
  std::string name;
  std::string description;
  std::string parameters;  // a JSON schema
};

struct ToolCall {
  std::string id;  // nine letters or digits from v3 on, any text from v13 on; v2 has none
  std::string name;
  std::string arguments;  // JSON; else the model sees a string
};

struct Message {
  enum class Role { kSystem, kUser, kAssistant, kTool };
  Role role;
  std::string content;  // UTF-8; a tool's result may be JSON
  // Of the last message, an assistant's: it is the beginning of the answer, which the model goes on
  // with.
  bool prefix = false;
  // Initialisers, so that {role, content} is a whole message to compilers that warn.
  // NOLINTBEGIN(readability-redundant-member-init)
  std::vector<ToolCall> tool_calls = {};  // an assistant's
  std::string tool_call_id = {};          // a tool's: which call it answers
  std::optional<std::string> name = {};   // a tool's; v2 only
  // NOLINTEND(readability-redundant-member-init)
};

// The ids that mistral-common's MistralTokenizer.encode_chat_completion gives for a conversation.
// Special tokens written out in a message are text. Messages of one role that follow each other are
// one, joined by an empty line, but for a tool's. Up to v3 the system messages go before the text
// of a user's message: the first in v1, the last in v2 and v3; later they stand where they are. The
// tools are listed before the user's last message, the first from v13 on; v1 has none.
//
// Throws ValueError where the roles are in an order that the model was not trained on, an
// assistant's message is empty, calls and results do not fit each other, or the tokenizer lacks a
// control token.
std::vector<int64_t> encode_conversation(const Tokenizer& tokenizer,
                                         InstructionVersion version,
                                         std::span<const Message> messages,
                                         std::span<const Tool> tools = {});

}  // namespace mistral_ext::tokenizers
