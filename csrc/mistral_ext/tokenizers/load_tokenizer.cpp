#include "mistral_ext/tokenizers/load_tokenizer.h"

#include <algorithm>
#include <optional>
#include <string>
#include <system_error>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"
#include "mistral_ext/tokenizers/tekken.h"
#include "mistral_ext/tokenizers/tokenizer_json.h"

namespace mistral_ext::tokenizers {
namespace {

namespace fs = std::filesystem;

// tokenizer.model, or the last of tokenizer.model.v1, tokenizer.model.v3 and so on.
std::optional<fs::path> find_sentencepiece(const fs::path& folder) {
  auto plain = folder / "tokenizer.model";
  if (io::is_there(plain)) return plain;
  std::optional<fs::path> last;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto name = entry->path().filename().native();
    if (!name.starts_with("tokenizer.model.v")) continue;
    if (!last || last->filename().native() < name) last = entry->path();
  }
  return last;
}

}  // namespace

std::shared_ptr<const Tokenizer> find_tokenizer(const fs::path& folder) {
  const auto json = folder / "tokenizer.json";
  if (io::is_there(json)) return load_tokenizer_json(json);
  const auto tekken = folder / "tekken.json";
  if (io::is_there(tekken)) return load_tekken(tekken);
  const auto sentencepiece = find_sentencepiece(folder);
  return sentencepiece ? load_sentencepiece(*sentencepiece) : nullptr;
}

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& folder) {
  auto tokenizer = find_tokenizer(folder);
  MISTRAL_EXT_CHECK(tokenizer,
                    "load: {}: must have tokenizer.json, tekken.json or tokenizer.model, got none",
                    io::printable(folder.native()));
  return tokenizer;
}

}  // namespace mistral_ext::tokenizers
