#include "mistral_ext/programs/prompt_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/programs/program.h"

namespace mistral_ext::programs {
namespace {

std::string read_all(std::istream& stream, const std::string& name) {
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  MISTRAL_EXT_CHECK(!stream.bad(), "{} cannot be read", name);
  return text;
}

}  // namespace

void add_prompt_options(CLI::App& app, PromptOptions& options) {
  auto* text = app.add_option(
      "prompt", options.text, "the text to continue; - reads it from standard input");
  auto* file = app.add_option("--prompt-file", options.file, "a file with the text to continue")
                   ->type_name("FILE");
  auto* ids = app.add_option("--ids", options.ids, "token ids to continue, as 1,15,27; gives ids")
                  ->type_name("IDS");
  auto* chat = app.add_flag("--chat", options.chat, "the prompt is a user's message");
  app.add_option("--template",
                 options.chat_template,
                 "of the conversation: v1, v2, v3, v7, v11, v13 (default: what the folder says)")
      ->needs(chat)
      ->type_name("VERSION");
  file->excludes(text);
  ids->excludes(text)->excludes(file)->excludes(chat);
}

std::optional<std::string> read_text(const PromptOptions& options) {
  if (options.ids) return std::nullopt;
  if (options.text && *options.text != "-") return options.text;
  if (options.text) return read_all(std::cin, "standard input");
  if (!options.file) throw UsageError("prompt is required, or --prompt-file, or --ids");
  const auto name = io::printable(*options.file);
  std::ifstream stream(*options.file, std::ios::binary);
  MISTRAL_EXT_CHECK(stream.is_open() && !std::filesystem::is_directory(*options.file),
                    "--prompt-file: cannot read {}",
                    name);
  return read_all(stream, name);
}

std::vector<int64_t> read_ids(const PromptOptions& options) {
  std::vector<int64_t> ids;
  const std::string& text = *options.ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (*at == ',' || *at == ' ') {
      ++at;
      continue;
    }
    const auto [rest, error] = std::from_chars(at, end, ids.emplace_back());
    if (error != std::errc() || (rest != end && *rest != ',' && *rest != ' ')) {
      throw UsageError(
          fmt::format("--ids: must be token ids as 1,15,27, got '{}'", io::printable(text)));
    }
    at = rest;
  }
  if (ids.empty()) throw UsageError("--ids: must be at least one token id, got none");
  return ids;
}

}  // namespace mistral_ext::programs
