#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/tokenizers/instruction_template.h"

namespace mistral_ext::tokenizers {

std::string_view role_name(Message::Role role);

// Throws ValueError where the messages are in an order that no version takes.
void check_messages(std::span<const Message> messages);

// Throws ValueError where the assistant says nothing.
void check_answers(std::span<const Message> messages);

// The contents of system messages, those without text left out, joined by an empty line.
std::string join_system_messages(std::span<const Message> messages);

// Messages of one role that follow each other as one. System messages stay as they are where
// `keep_system`; otherwise they are left out, which does not bring their neighbours together, and
// an empty message of the user goes before a conversation that would begin with another role.
std::vector<Message> join_messages(std::span<const Message> messages, bool keep_system);

}  // namespace mistral_ext::tokenizers
