#include "mistral_ext/programs/instruction.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/programs/program.h"
#include "mistral_ext/tokenizers/load_tokenizer.h"
#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"
#include "mistral_ext/tokenizers/tekken.h"
#include "mistral_ext/tokenizers/tekken_file.h"

namespace mistral_ext::programs {
namespace {

namespace fs = std::filesystem;
using tokenizers::InstructionVersion;

constexpr int64_t kMostTekkenBytes = int64_t{1} << 28;
constexpr std::string_view kSentencePiece = "tokenizer.model";

struct MistralFile {
  fs::path path;
  std::string version;
};

std::string tekken_version(const fs::path& path) {
  const io::File file(path);
  return tokenizers::read_tekken_file(file.read_all(kMostTekkenBytes), file.label()).version;
}

// The newest of Mistral's own files in a folder.
std::optional<MistralFile> find_mistral_file(const fs::path& folder) {
  const auto tekken = folder / "tekken.json";
  if (io::is_there(tekken)) return MistralFile{tekken, tekken_version(tekken)};
  std::vector<MistralFile> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    if (name == kSentencePiece) files.push_back({entry.path(), "v1"});
    if (!name.starts_with("tokenizer.model.")) continue;
    const auto version = name.substr(kSentencePiece.size() + 1);
    if (tokenizers::instruction_version(version)) files.push_back({entry.path(), version});
  }
  if (files.empty()) return std::nullopt;
  return *std::ranges::max_element(files, {}, [](const MistralFile& file) {
    return *tokenizers::instruction_version(file.version);
  });
}

std::shared_ptr<const tokenizers::Tokenizer> load(const MistralFile& file) {
  if (file.path.filename() == "tekken.json") return tokenizers::load_tekken(file.path);
  return tokenizers::load_sentencepiece(file.path);
}

}  // namespace

Instruction load_instruction(const fs::path& folder, const std::string& version) {
  const auto file = find_mistral_file(folder);
  const auto name = version.empty() && file ? file->version : version;
  if (name.empty()) {
    throw UsageError(fmt::format(
        "--chat: {} has neither tekken.json nor tokenizer.model, which say the template: "
        "name it with --template",
        io::printable(folder.native())));
  }
  const auto known = tokenizers::instruction_version(name);
  if (!known) {
    throw UsageError(fmt::format("--template must be v1, v2, v3, v7, v11 or v13, got '{}'",
                                 io::printable(name)));
  }
  return {file ? load(*file) : tokenizers::load_tokenizer(folder), *known};
}

}  // namespace mistral_ext::programs
