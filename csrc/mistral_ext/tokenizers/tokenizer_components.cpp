#include "mistral_ext/tokenizers/tokenizer_components.h"

#include <fmt/format.h>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::tokenizers {
namespace {

// Real ones have five; each costs a pass over the text.
constexpr size_t kMostComponents = 64;

void collect(const ConfigMap& settings,
             const std::string& list,
             const std::string& label,
             std::vector<TokenizerComponent>& components) {
  const ConfigReader reader(settings, label);
  const auto type = reader.string("type");
  MISTRAL_EXT_CHECK(type, "{}: type must be given, got none", label);
  if (*type != "Sequence") {
    MISTRAL_EXT_CHECK(components.size() < kMostComponents,
                      "{}: must be among {} components, got more",
                      label,
                      kMostComponents);
    components.push_back({*type, &settings, label});
    return;
  }
  const auto* parts = reader.list(list);
  MISTRAL_EXT_CHECK(parts != nullptr, "{}: {} must be given, got none", label, list);
  for (size_t i = 0; i < parts->size(); ++i) {
    const auto name = fmt::format("{}.{}[{}]", label, list, i);
    const auto* part = std::get_if<ConfigMap>(&(*parts)[i].value);
    MISTRAL_EXT_CHECK(part != nullptr, "{}: must be a mapping, got another value", name);
    collect(*part, list, name, components);
  }
}

}  // namespace

std::vector<TokenizerComponent> read_components(const ConfigMap& fields,
                                                const std::string& field,
                                                const std::string& list,
                                                const std::string& label) {
  std::vector<TokenizerComponent> components;
  if (const auto* settings = ConfigReader(fields, label).map(field)) {
    collect(*settings, list, label + ": " + field, components);
  }
  return components;
}

void refuse_component(const TokenizerComponent& component) {
  MISTRAL_EXT_CHECK(false,
                    "{}: type must be one that is read here, got {}",
                    component.label,
                    io::printable(component.type));
  __builtin_unreachable();  // the check throws
}

}  // namespace mistral_ext::tokenizers
