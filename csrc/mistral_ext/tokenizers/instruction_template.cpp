#include "mistral_ext/tokenizers/instruction_template.h"

#include <algorithm>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/tokenizers/instruction_messages.h"
#include "mistral_ext/tokenizers/python_json.h"

namespace mistral_ext::tokenizers {
namespace {

using Role = Message::Role;
using Version = InstructionVersion;

// JSON as it is, any other text as a string; nothing is an empty object.
std::string json_or_string(const std::string& text) {
  if (text.empty()) return "{}";
  auto json = python_json(text);
  return json ? std::move(*json) : python_json_string(text);
}

std::string tools_json(std::span<const Tool> tools) {
  std::string text = "[";
  for (const auto& tool : tools) {
    check_function_name(tool.name);
    const auto parameters = python_json(tool.parameters);
    MISTRAL_EXT_CHECK(parameters && parameters->starts_with('{'),
                      "encode_conversation: the parameters of the tool {} must be a JSON object",
                      tool.name);
    if (text.size() > 1) text += ", ";
    text += "{\"type\": \"function\", \"function\": {\"name\": " + python_json_string(tool.name) +
            ", \"description\": " + python_json_string(tool.description) +
            ", \"parameters\": " + *parameters + "}}";
  }
  return text + "]";
}

class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, Version version) : tokenizer_(tokenizer), version_(version) {
    const auto bos = tokenizer.bos_token_id();
    const auto eos = tokenizer.eos_token_id();
    MISTRAL_EXT_CHECK(bos && eos,
                      "encode_conversation: the tokenizer must have <s> and </s>, got one without");
    ids_.push_back(*bos);
    eos_ = *eos;
  }

  void tools(std::span<const Tool> tools) {
    between("[AVAILABLE_TOOLS]", tools_json(tools), "[/AVAILABLE_TOOLS]");
  }

  void system(const std::string& content) {
    between("[SYSTEM_PROMPT]", content, "[/SYSTEM_PROMPT]");
  }

  void user(const std::string& content) {
    if (version_ == Version::kV1) {
      text("[INST] " + content + " [/INST]");
    } else {
      between("[INST]", content, "[/INST]");
    }
  }

  void assistant(const Message& message) {
    MISTRAL_EXT_CHECK(!message.content.empty() || !message.tool_calls.empty(),
                      "encode_conversation: an assistant's message must have content, got none");
    MISTRAL_EXT_CHECK(
        version_ >= Version::kV7 || message.content.empty() || message.tool_calls.empty(),
        "encode_conversation: an assistant's messages one after the other must have content or "
        "tool_calls, not both");
    std::string_view content = message.content;
    if (version_ != Version::kV1) content = content.substr(0, content.find_last_not_of(' ') + 1);
    if (!message.content.empty()) text(content);
    if (!message.tool_calls.empty()) calls(message.tool_calls);
    if (!message.prefix) ids_.push_back(eos_);
  }

  void result(const Message& message) {
    control("[TOOL_RESULTS]");
    if (version_ == Version::kV2) {
      text("[{\"name\": " + (message.name ? python_json_string(*message.name) : "null") +
           ", \"content\": " + json_or_string(message.content) + "}]");
    } else if (version_ == Version::kV3) {
      text("{\"content\": " + json_or_string(message.content) +
           ", \"call_id\": " + python_json_string(message.tool_call_id) + "}");
    } else {
      if (version_ < Version::kV13) {
        text(message.tool_call_id);
        control("[TOOL_CONTENT]");
      }
      text(message.content);
    }
    control("[/TOOL_RESULTS]");
  }

  std::vector<int64_t> take() { return std::move(ids_); }

 private:
  // Nothing is special in what somebody wrote.
  void text(std::string_view content) {
    const auto more = tokenizer_.encode(content, {false, false});
    ids_.insert(ids_.end(), more.begin(), more.end());
  }

  void control(std::string_view token) {
    const auto id = tokenizer_.token_to_id(token);
    MISTRAL_EXT_CHECK(id && tokenizer_.is_special(*id),
                      "encode_conversation: the tokenizer must have the control token {} for this "
                      "version, got one without",
                      token);
    ids_.push_back(*id);
  }

  void between(std::string_view begin, std::string_view content, std::string_view end) {
    control(begin);
    text(content);
    control(end);
  }

  void calls(std::span<const ToolCall> calls) {
    if (version_ >= Version::kV11) {
      for (const auto& call : calls) {
        control("[TOOL_CALLS]");
        text(call.name);
        if (version_ == Version::kV11) {
          control("[CALL_ID]");
          text(call.id);
        }
        control("[ARGS]");
        text(json_or_string(call.arguments));
      }
      return;
    }
    std::string list = "[";
    for (const auto& call : calls) {
      if (list.size() > 1) list += ", ";
      list += "{\"name\": " + python_json_string(call.name) +
              ", \"arguments\": " + json_or_string(call.arguments);
      if (version_ >= Version::kV3) list += ", \"id\": " + python_json_string(call.id);
      list += '}';
    }
    control("[TOOL_CALLS]");
    text(list + "]");
  }

  const Tokenizer& tokenizer_;
  const Version version_;
  std::vector<int64_t> ids_;
  int64_t eos_;
};

}  // namespace

std::optional<Version> instruction_version(std::string_view name) {
  if (name == "v1") return Version::kV1;
  if (name == "v2") return Version::kV2;
  if (name == "v3") return Version::kV3;
  if (name == "v7") return Version::kV7;
  if (name == "v11") return Version::kV11;
  if (name == "v13") return Version::kV13;
  return std::nullopt;
}

std::vector<int64_t> encode_conversation(const Tokenizer& tokenizer,
                                         Version version,
                                         std::span<const Message> messages,
                                         std::span<const Tool> tools) {
  check_messages(messages, version);
  check_tool_calls(messages, version);
  const auto joined = join_messages(messages, version);
  size_t first_user = joined.size();
  size_t last_user = joined.size();
  for (size_t i = 0; i < joined.size(); ++i) {
    if (joined[i].role != Role::kUser) continue;
    if (first_user == joined.size()) first_user = i;
    last_user = i;
  }
  const auto prompt = version < Version::kV7 ? join_system_messages(messages) : std::string();
  const auto prompted = version == Version::kV1 ? first_user : last_user;
  const auto equipped = version >= Version::kV13 ? first_user : last_user;
  const bool has_calls = std::any_of(joined.begin(), joined.end(), [](const Message& message) {
    return message.role == Role::kTool || !message.tool_calls.empty();
  });
  MISTRAL_EXT_CHECK(version != Version::kV1 || (tools.empty() && !has_calls),
                    "encode_conversation: v1 must have no tools, got some");
  Encoder encoder(tokenizer, version);
  for (size_t i = 0; i < joined.size(); ++i) {
    const auto& message = joined[i];
    // v2 forgets the calls of earlier turns.
    const bool forgotten = version == Version::kV2 && last_user < joined.size() && i < last_user;
    if (message.role == Role::kSystem) {
      encoder.system(message.content);
    } else if (message.role == Role::kTool) {
      if (!forgotten) encoder.result(message);
    } else if (message.role == Role::kAssistant) {
      if (!forgotten || message.tool_calls.empty() || !message.content.empty()) {
        encoder.assistant(message);
      }
    } else {
      if (i == equipped && !tools.empty()) encoder.tools(tools);
      const bool has_prompt = i == prompted && !prompt.empty();
      encoder.user(has_prompt ? prompt + "\n\n" + message.content : message.content);
    }
  }
  return encoder.take();
}

}  // namespace mistral_ext::tokenizers
