// Tool calls and the tools' results: which go together.
#include <algorithm>
#include <set>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/instruction_messages.h"

namespace mistral_ext::tokenizers {
namespace {

using Role = Message::Role;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

void check_id(const std::string& id, InstructionVersion version) {
  if (version < InstructionVersion::kV3) return;
  if (version >= InstructionVersion::kV13) {
    MISTRAL_EXT_CHECK(!id.empty() && id != "null",
                      "encode_conversation: the id of a tool call must be a text other than null, "
                      "got {}",
                      id.empty() ? "none" : id);
    return;
  }
  MISTRAL_EXT_CHECK(id.size() == 9 && std::all_of(id.begin(), id.end(), is_letter_or_digit),
                    "encode_conversation: the id of a tool call must be nine letters or digits, "
                    "got {}",
                    id.empty() ? "none" : io::printable(id));
}

// Up to v7 as many results as calls, where the assistant goes on.
void check_numbers(std::span<const Message> messages) {
  int64_t missing = 0;
  // As in mistral-common the first message, which should be no assistant's, does not count.
  for (const auto& message : messages.subspan(1)) {
    if (message.role == Role::kTool) --missing;
    if (message.role != Role::kAssistant) continue;
    MISTRAL_EXT_CHECK(missing == 0,
                      "encode_conversation: there must be a tool's message for each call, got {} "
                      "too {}",
                      missing > 0 ? missing : -missing,
                      missing > 0 ? "few" : "many");
    missing = static_cast<int64_t>(message.tool_calls.size());
  }
}

// From v11 on each result answers a call of its own.
void check_ids(std::span<const Message> messages) {
  std::set<std::string_view> calls;
  std::set<std::string_view> results;
  for (const auto& message : messages.subspan(1)) {
    if (message.role == Role::kTool) {
      MISTRAL_EXT_CHECK(calls.contains(message.tool_call_id),
                        "encode_conversation: a tool's message must answer a call of the message "
                        "before, got tool_call_id {}",
                        io::printable(message.tool_call_id));
      MISTRAL_EXT_CHECK(
          results.insert(message.tool_call_id).second,
          "encode_conversation: a call must have one tool's message, got several for {}",
          io::printable(message.tool_call_id));
    }
    if (message.role != Role::kAssistant) continue;
    MISTRAL_EXT_CHECK(calls.size() == results.size(),
                      "encode_conversation: there must be a tool's message for each call, got {} "
                      "for {}",
                      results.size(),
                      calls.size());
    calls.clear();
    results.clear();
    for (const auto& call : message.tool_calls) {
      MISTRAL_EXT_CHECK(calls.insert(call.id).second,
                        "encode_conversation: calls must have ids that differ, got {} twice",
                        io::printable(call.id));
    }
  }
}

// v2: one result for the calls after the user's last message.
void check_one_result(std::span<const Message> messages) {
  bool after_calls = false;
  int64_t results = 0;
  for (const auto& message : messages) {
    if (message.role == Role::kTool) {
      results += after_calls ? 1 : 0;
    } else {
      results = 0;
      after_calls = message.role == Role::kAssistant && !message.tool_calls.empty();
    }
    MISTRAL_EXT_CHECK(
        results <= 1,
        "encode_conversation: v2 must have one tool's message after a call, got more");
  }
}

}  // namespace

void check_function_name(std::string_view name) {
  const auto fits = [](char c) { return is_letter_or_digit(c) || c == '_' || c == '-'; };
  MISTRAL_EXT_CHECK(
      !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), fits),
      "encode_conversation: the name of a function must be 1 to 64 letters, digits, _ or "
      "-, got {}",
      name.empty() ? "none" : io::printable(name));
}

void check_tool_calls(std::span<const Message> messages, InstructionVersion version) {
  for (const auto& message : messages) {
    for (const auto& call : message.tool_calls) {
      check_function_name(call.name);
      check_id(call.id, version);
    }
    if (message.role != Role::kTool) continue;
    check_id(message.tool_call_id, version);
    if (message.name) check_function_name(*message.name);
  }
  if (version >= InstructionVersion::kV11) {
    check_ids(messages);
  } else {
    check_numbers(messages);
  }
  if (version == InstructionVersion::kV2) {
    // What comes before is left out of the ids.
    const auto user = [](const Message& message) { return message.role == Role::kUser; };
    const auto last = std::find_if(messages.rbegin(), messages.rend(), user);
    check_one_result(messages.subspan(messages.rend() - last));
  }
}

}  // namespace mistral_ext::tokenizers
