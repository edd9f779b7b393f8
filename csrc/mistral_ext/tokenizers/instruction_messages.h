#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/tokenizers/instruction_template.h"

namespace mistral_ext::tokenizers {

std::string_view role_name(Message::Role role);

// Throws ValueError where the messages, as they were given, are such as the version does not take.
void check_messages(std::span<const Message> messages, InstructionVersion version);

// The same for their tool calls and the tools' results.
void check_tool_calls(std::span<const Message> messages, InstructionVersion version);

// Throws ValueError for a name that no function can have.
void check_function_name(std::string_view name);

// The contents of system messages, those without text left out, joined by an empty line.
std::string join_system_messages(std::span<const Message> messages);

// Messages of one role that follow each other as one, but for a tool's, which from v11 on are put
// in the order of the calls. System messages stay as they are from v7 on; before, they are left
// out, which does not bring their neighbours together, and an empty message of the user goes before
// a conversation that would begin with another role.
std::vector<Message> join_messages(std::span<const Message> messages, InstructionVersion version);

}  // namespace mistral_ext::tokenizers
