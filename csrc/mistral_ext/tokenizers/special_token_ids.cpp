#include "mistral_ext/tokenizers/special_token_ids.h"

#include <array>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/file.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/tokenizer_components.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr size_t kMostIds = 64;

// "</s>", or {"content": "</s>", ...}.
SpecialTokenNames::Name read_content(const ConfigValue& value,
                                     const std::string& field,
                                     const std::string& label) {
  if (value.is_null()) return {};
  const auto* content = std::get_if<std::string>(&value.value);
  if (const auto* map = std::get_if<ConfigMap>(&value.value)) {
    const auto found = map->find("content");
    if (found != map->end()) content = std::get_if<std::string>(&found->second.value);
  }
  MISTRAL_EXT_CHECK(content != nullptr, "{}: {} must be a token, got another value", label, field);
  return {*content, {}};
}

// 2, or [2, 7].
SpecialTokenNames::Name read_id(const ConfigValue& value,
                                const std::string& field,
                                const std::string& label) {
  if (value.is_null()) return {};
  const auto* list = std::get_if<ConfigList>(&value.value);
  const auto* id = list == nullptr ? std::get_if<int64_t>(&value.value)
                   : list->empty() ? nullptr
                                   : std::get_if<int64_t>(&list->front().value);
  MISTRAL_EXT_CHECK(id != nullptr, "{}: {} must be token ids, got another value", label, field);
  return {{}, *id};
}

void append(const ConfigMap& special_tokens,
            const std::string& name,
            std::vector<int64_t>& ids,
            const std::string& label) {
  const auto* token = ConfigReader(special_tokens, label + ": special_tokens").map(name);
  MISTRAL_EXT_CHECK(
      token != nullptr, "{}: special_tokens must have {}", label, io::printable(name));
  const auto* list = ConfigReader(*token, label + ": special_tokens").list("ids");
  MISTRAL_EXT_CHECK(list != nullptr, "{}: special_tokens must have ids, got none", label);
  for (const auto& item : *list) {
    const auto* id = std::get_if<int64_t>(&item.value);
    MISTRAL_EXT_CHECK(id != nullptr, "{}: special_tokens must have ids, got another value", label);
    ids.push_back(*id);
    MISTRAL_EXT_CHECK(ids.size() <= kMostIds,
                      "{}: single must put at most {} tokens on a side of a text, got more",
                      label,
                      kMostIds);
  }
}

AroundText read_template(const ConfigMap& settings, const std::string& label) {
  const ConfigReader reader(settings, label);
  const auto* single = reader.list("single");
  const auto* special_tokens = reader.map("special_tokens");
  MISTRAL_EXT_CHECK(single != nullptr && special_tokens != nullptr,
                    "{}: single and special_tokens must be given",
                    label);
  AroundText around;
  bool text_seen = false;
  for (const auto& item : *single) {
    const auto* piece = std::get_if<ConfigMap>(&item.value);
    MISTRAL_EXT_CHECK(piece != nullptr && piece->size() == 1,
                      "{}: single must hold SpecialToken and Sequence, got others",
                      label);
    const ConfigReader inside(*piece, label + ": single");
    if (const auto* sequence = inside.map("Sequence")) {
      const auto id = ConfigReader(*sequence, label + ": single: Sequence").string("id");
      MISTRAL_EXT_CHECK(id == "A" && !std::exchange(text_seen, true),
                        "{}: single must hold the Sequence A once and no other",
                        label);
      continue;
    }
    const auto* special = inside.map("SpecialToken");
    const auto id = special == nullptr
                        ? std::nullopt
                        : ConfigReader(*special, label + ": single: SpecialToken").string("id");
    MISTRAL_EXT_CHECK(id, "{}: single must hold SpecialToken and Sequence, got others", label);
    append(*special_tokens, *id, text_seen ? around.after : around.before, label);
  }
  MISTRAL_EXT_CHECK(text_seen, "{}: single must hold the Sequence A once, got none", label);
  return around;
}

}  // namespace

SpecialTokenNames read_special_token_names(const std::filesystem::path& folder) {
  using Read =
      SpecialTokenNames::Name (*)(const ConfigValue&, const std::string&, const std::string&);
  struct Source {
    const char* file;
    std::array<const char*, 2> fields;
    Read read;
  };
  const std::array<Source, 3> sources{
      {{"tokenizer_config.json", {"bos_token", "eos_token"}, read_content},
       {"special_tokens_map.json", {"bos_token", "eos_token"}, read_content},
       {"generation_config.json", {"bos_token_id", "eos_token_id"}, read_id}}};
  SpecialTokenNames names;
  std::array<bool, 2> known{};
  for (const auto& source : sources) {
    const auto path = folder / source.file;
    if (!io::is_there(path)) continue;
    const auto fields = io::read_config_file(path);
    for (size_t i = 0; i < known.size(); ++i) {
      const auto found = fields.find(source.fields[i]);
      if (known[i] || found == fields.end()) continue;
      known[i] = true;
      (i == 0 ? names.bos : names.eos) =
          source.read(found->second, source.fields[i], "load: " + io::printable(path.native()));
    }
  }
  return names;
}

AroundText read_post_processor(const ConfigMap& fields, const std::string& label) {
  AroundText around;
  bool seen = false;
  for (const auto& component : read_components(fields, "post_processor", "processors", label)) {
    if (component.type == "ByteLevel") continue;
    if (component.type != "TemplateProcessing") refuse_component(component);
    MISTRAL_EXT_CHECK(!std::exchange(seen, true),
                      "{}: must be the only TemplateProcessing, got another",
                      component.label);
    around = read_template(*component.settings, component.label);
  }
  return around;
}

}  // namespace mistral_ext::tokenizers
