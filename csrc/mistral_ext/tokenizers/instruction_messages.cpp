#include "mistral_ext/tokenizers/instruction_messages.h"

#include <algorithm>
#include <utility>

#include "mistral_ext/core/check.h"

namespace mistral_ext::tokenizers {
namespace {

using Role = Message::Role;

bool may_follow(Role role, Role before) {
  switch (before) {
    case Role::kSystem:
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

// Results of the tools, from `begin` on, in the order of the calls before them; what answers none
// of them comes last.
void sort_results(std::vector<Message>& messages, size_t begin) {
  std::vector<std::string> order;
  if (begin > 0) {
    for (const auto& call : messages[begin - 1].tool_calls) order.push_back(call.id);
  }
  const auto place = [&](const Message& message) {
    // Of calls with one id the last counts.
    const auto found = std::find(order.rbegin(), order.rend(), message.tool_call_id);
    return found == order.rend() ? order.size() : order.rend() - found - 1;
  };
  std::stable_sort(messages.begin() + static_cast<std::ptrdiff_t>(begin),
                   messages.end(),
                   [&](const Message& a, const Message& b) { return place(a) < place(b); });
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

void check_messages(std::span<const Message> messages, InstructionVersion version) {
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
    MISTRAL_EXT_CHECK(
        !message.prefix || (message.role == Role::kAssistant && i + 1 == messages.size()),
        "encode_conversation: prefix must be set on the last message only, an assistant's, got it "
        "on message {}, {}",
        i,
        role_name(message.role));
    MISTRAL_EXT_CHECK(
        message.role == Role::kAssistant || message.tool_calls.empty(),
        "encode_conversation: tool_calls must be an assistant's, got them in message {}, {}",
        i,
        role_name(message.role));
    // From v7 on calls may come with a text, and an empty message may be a part of one that is not.
    MISTRAL_EXT_CHECK(
        message.role != Role::kAssistant || version >= InstructionVersion::kV7 ||
            message.content.empty() != message.tool_calls.empty(),
        "encode_conversation: an assistant's message must have content or tool_calls, "
        "not both, got {} in message {}",
        message.content.empty() ? "neither" : "both",
        i);
  }
}

std::string join_system_messages(std::span<const Message> messages) {
  std::string text;
  for (const auto& message : messages) {
    if (message.role == Role::kSystem) append(text, message.content);
  }
  return text;
}

std::vector<Message> join_messages(std::span<const Message> messages, InstructionVersion version) {
  const bool keep_system = version >= InstructionVersion::kV7;
  std::vector<Message> joined;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    const bool goes_on = i > 0 && message.role == messages[i - 1].role;
    if (message.role == Role::kSystem) {
      if (keep_system) joined.push_back(message);
    } else if (goes_on && message.role != Role::kTool) {
      auto& all = joined.back();
      append(all.content, message.content);
      all.prefix |= message.prefix;
      all.tool_calls.insert(
          all.tool_calls.end(), message.tool_calls.begin(), message.tool_calls.end());
    } else {
      joined.push_back(message);
    }
    const bool last_result = message.role == Role::kTool &&
                             (i + 1 == messages.size() || messages[i + 1].role != Role::kTool);
    if (last_result && version >= InstructionVersion::kV11) {
      auto begin = joined.size();
      while (begin > 0 && joined[begin - 1].role == Role::kTool) --begin;
      sort_results(joined, begin);
    }
  }
  if (joined.empty() || (!keep_system && joined.front().role != Role::kUser)) {
    joined.insert(joined.begin(), Message{Role::kUser, ""});
  }
  return joined;
}

}  // namespace mistral_ext::tokenizers
