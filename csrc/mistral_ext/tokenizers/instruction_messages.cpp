#include "mistral_ext/tokenizers/instruction_messages.h"

#include <utility>

#include "mistral_ext/core/check.h"

namespace mistral_ext::tokenizers {
namespace {

using Role = Message::Role;

bool may_follow(Role role, Role before) {
  switch (before) {
    case Role::kSystem:
      return role != Role::kTool;
    case Role::kUser:
      return role != Role::kTool;
    case Role::kAssistant:
    case Role::kTool:
      return role != Role::kSystem;
  }
  return false;
}

void append(std::string& text, const std::string& more) {
  if (!text.empty() && !more.empty()) text += "\n\n";
  text += more;
}

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kTool:
      return "tool";
  }
  return "";
}

void check_messages(std::span<const Message> messages) {
  MISTRAL_EXT_CHECK(!messages.empty(), "encode_conversation: messages must not be empty");
  const auto& last = messages.back();
  MISTRAL_EXT_CHECK(
      messages.size() > 1 || last.role == Role::kUser || last.role == Role::kSystem,
      "encode_conversation: a single message must be a user's or the system's, got {}",
      role_name(last.role));
  MISTRAL_EXT_CHECK(last.role != Role::kAssistant || last.prefix,
                    "encode_conversation: the last message must be a user's or a tool's, or a "
                    "prefix of the assistant's answer, got an assistant's that is none");
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    MISTRAL_EXT_CHECK(i == 0 || may_follow(message.role, messages[i - 1].role),
                      "encode_conversation: message {} must have a role that can follow {}, got {}",
                      i,
                      role_name(messages[i - 1].role),
                      role_name(message.role));
    MISTRAL_EXT_CHECK(message.role != Role::kTool,
                      "encode_conversation: message {} must be the system's, a user's or an "
                      "assistant's, got a tool's: tools are not supported",
                      i);
    MISTRAL_EXT_CHECK(
        !message.prefix || (message.role == Role::kAssistant && i + 1 == messages.size()),
        "encode_conversation: prefix must be set on the last message only, an assistant's, got it "
        "on message {}, {}",
        i,
        role_name(message.role));
  }
}

void check_answers(std::span<const Message> messages) {
  for (const auto& message : messages) {
    MISTRAL_EXT_CHECK(message.role != Role::kAssistant || !message.content.empty(),
                      "encode_conversation: an assistant's message must have content, got none");
  }
}

std::string join_system_messages(std::span<const Message> messages) {
  std::string text;
  for (const auto& message : messages) {
    if (message.role == Role::kSystem) append(text, message.content);
  }
  return text;
}

std::vector<Message> join_messages(std::span<const Message> messages, bool keep_system) {
  std::vector<Message> joined;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    if (message.role == Role::kSystem) {
      if (keep_system) joined.push_back(message);
    } else if (i > 0 && message.role == messages[i - 1].role) {
      append(joined.back().content, message.content);
      joined.back().prefix |= message.prefix;
    } else {
      joined.push_back(message);
    }
  }
  if (joined.empty() || (!keep_system && joined.front().role != Role::kUser)) {
    joined.insert(joined.begin(), Message{Role::kUser, "", false});
  }
  return joined;
}

}  // namespace mistral_ext::tokenizers
