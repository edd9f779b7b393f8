#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace mistral_ext::programs {

// Where the prompt comes from: one of these.
struct PromptOptions {
  std::optional<std::string> text;  // "-": standard input
  std::optional<std::string> file;
  std::optional<std::string> ids;
  bool chat = false;          // the text is a user's message
  std::string chat_template;  // "v3"; empty: what the folder says
};

void add_prompt_options(CLI::App& app, PromptOptions& options);

// The text, whole; nothing where the prompt is ids. Throws UsageError where none was given.
std::optional<std::string> read_text(const PromptOptions& options);

// The numbers of --ids. Throws UsageError where they are none, or where there is none of them.
std::vector<int64_t> read_ids(const PromptOptions& options);

}  // namespace mistral_ext::programs
