#include "mistral_ext/tokenizers/tokenizer_settings.h"

#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/pre_tokenizer.h"
#include "mistral_ext/tokenizers/tokenizer_components.h"

namespace mistral_ext::tokenizers {
namespace {

// To transformers these are tokenizer.json as it is written, whatever add_prefix_space says.
bool reads_prefix_space(const std::string& tokenizer_class) {
  return tokenizer_class != "PreTrainedTokenizerFast" && tokenizer_class != "TokenizersBackend";
}

bool prepends_space(const ConfigMap& fields, const std::string& label) {
  for (const auto& component : read_components(fields, "normalizer", "normalizers", label)) {
    if (component.type == "Prepend") return true;
  }
  for (const auto& component : read_components(fields, "pre_tokenizer", "pretokenizers", label)) {
    if (component.type == "Metaspace" &&
        read_prepend_scheme(*component.settings, component.label) != PrependScheme::kNever) {
      return true;
    }
  }
  return false;
}

std::optional<std::string> content_of(const ConfigValue& token) {
  const auto* fields = std::get_if<ConfigMap>(&token.value);
  return fields == nullptr ? std::nullopt : ConfigReader(*fields, "token").string("content");
}

// The settings' tokens in the order of their ids.
std::map<int64_t, ConfigMap> tokens_of(const TokenizerSettings& settings) {
  std::map<int64_t, ConfigMap> tokens;
  for (const auto& [key, value] : settings.added_tokens) {
    int64_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    const auto* token = std::get_if<ConfigMap>(&value.value);
    MISTRAL_EXT_CHECK(error == std::errc() && end == key.data() + key.size() && token != nullptr,
                      "{}: added_tokens_decoder must hold tokens by id, got {}",
                      settings.label,
                      io::printable(key));
    tokens.emplace(id, *token);
  }
  return tokens;
}

}  // namespace

TokenizerSettings read_tokenizer_settings(const std::filesystem::path& folder) {
  const auto path = folder / "tokenizer_config.json";
  TokenizerSettings settings;
  settings.label = "load: " + io::printable(path.native());
  if (!io::is_there(path)) return settings;
  const auto fields = io::read_config_file(path);
  const ConfigReader reader(fields, settings.label);
  settings.refuses_prefix_space = reader.boolean("add_prefix_space") == false &&
                                  reads_prefix_space(reader.string("tokenizer_class").value_or(""));
  if (const auto* tokens = reader.map("added_tokens_decoder")) settings.added_tokens = *tokens;
  return settings;
}

void apply_settings(const TokenizerSettings& settings,
                    ConfigMap& fields,
                    const std::string& label) {
  MISTRAL_EXT_CHECK(!settings.refuses_prefix_space || !prepends_space(fields, label),
                    "{}: add_prefix_space must be true, as tokenizer.json puts a space before a "
                    "text, got false",
                    settings.label);
  if (settings.added_tokens.empty()) return;
  auto& value = fields["added_tokens"].value;
  if (std::holds_alternative<std::nullptr_t>(value)) value = ConfigList();
  auto* list = std::get_if<ConfigList>(&value);
  if (list == nullptr) return;  // refused where it is read
  std::map<std::string, int64_t> known;
  for (const auto& token : *list) {
    const auto content = content_of(token);
    if (!content) continue;
    known[*content] =
        ConfigReader(std::get<ConfigMap>(token.value), label).integer("id").value_or(-1);
  }
  for (auto& [id, token] : tokens_of(settings)) {
    const auto content = content_of({token});
    const auto found = content ? known.find(*content) : known.end();
    if (found == known.end()) {
      token["id"].value = id;
      list->emplace_back().value = std::move(token);
      continue;
    }
    MISTRAL_EXT_CHECK(found->second == id,
                      "{}: added_tokens_decoder: the id of \"{}\" must be that of tokenizer.json, "
                      "{}, got {}",
                      settings.label,
                      io::printable(*content),
                      found->second,
                      id);
  }
}

}  // namespace mistral_ext::tokenizers
