#include "mistral_ext/tokenizers/instruction_template.h"

#include "mistral_ext/core/check.h"
#include "mistral_ext/tokenizers/instruction_messages.h"

namespace mistral_ext::tokenizers {
namespace {

using Role = Message::Role;

class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, InstructionVersion version)
      : tokenizer_(tokenizer), version_(version) {
    const auto bos = tokenizer.bos_token_id();
    const auto eos = tokenizer.eos_token_id();
    MISTRAL_EXT_CHECK(bos && eos,
                      "encode_conversation: the tokenizer must have <s> and </s>, got one without");
    ids_.push_back(*bos);
    eos_ = *eos;
  }

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

  void system(const std::string& content) {
    control("[SYSTEM_PROMPT]");
    text(content);
    control("[/SYSTEM_PROMPT]");
  }

  void user(const std::string& content) {
    if (version_ == InstructionVersion::kV1) {
      text("[INST] " + content + " [/INST]");
      return;
    }
    control("[INST]");
    text(content);
    control("[/INST]");
  }

  void assistant(const Message& message) {
    std::string_view content = message.content;
    if (version_ != InstructionVersion::kV1) {
      content = content.substr(0, content.find_last_not_of(' ') + 1);
    }
    text(content);
    if (!message.prefix) ids_.push_back(eos_);
  }

  std::vector<int64_t> take() { return std::move(ids_); }

 private:
  const Tokenizer& tokenizer_;
  const InstructionVersion version_;
  std::vector<int64_t> ids_;
  int64_t eos_;
};

}  // namespace

std::optional<InstructionVersion> instruction_version(std::string_view name) {
  if (name == "v1") return InstructionVersion::kV1;
  if (name == "v2") return InstructionVersion::kV2;
  if (name == "v3") return InstructionVersion::kV3;
  if (name == "v7") return InstructionVersion::kV7;
  if (name == "v11") return InstructionVersion::kV11;
  if (name == "v13") return InstructionVersion::kV13;
  return std::nullopt;
}

std::vector<int64_t> encode_conversation(const Tokenizer& tokenizer,
                                         InstructionVersion version,
                                         std::span<const Message> messages) {
  check_messages(messages);
  const bool keep_system = version >= InstructionVersion::kV7;
  const auto joined = join_messages(messages, keep_system);
  // From v7 on an empty message may be part of one that is not.
  check_answers(keep_system ? std::span<const Message>(joined) : messages);
  // Which of the user's messages the system's go before.
  const auto prompt = keep_system ? std::string() : join_system_messages(messages);
  size_t prompted = joined.size();
  for (size_t i = 0; i < joined.size(); ++i) {
    if (joined[i].role != Role::kUser) continue;
    if (version != InstructionVersion::kV1 || prompted == joined.size()) prompted = i;
  }
  Encoder encoder(tokenizer, version);
  for (size_t i = 0; i < joined.size(); ++i) {
    const auto& message = joined[i];
    if (message.role == Role::kSystem) {
      encoder.system(message.content);
    } else if (message.role == Role::kAssistant) {
      encoder.assistant(message);
    } else if (i == prompted && !prompt.empty()) {
      encoder.user(prompt + "\n\n" + message.content);
    } else {
      encoder.user(message.content);
    }
  }
  return encoder.take();
}

}  // namespace mistral_ext::tokenizers
