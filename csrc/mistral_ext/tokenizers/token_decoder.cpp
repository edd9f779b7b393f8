#include "mistral_ext/tokenizers/token_decoder.h"

#include <fmt/format.h>

#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/characters.h"
#include "mistral_ext/tokenizers/pre_tokenizer.h"
#include "mistral_ext/tokenizers/tokenizer_components.h"

namespace mistral_ext::tokenizers {
namespace {

TokenDecoder::Strip read_strip(const ConfigReader& reader, const std::string& label) {
  const auto content = reader.string("content").value_or("");
  MISTRAL_EXT_CHECK(!content.empty() && content.size() == character_length(content[0]),
                    "{}: content must be one character, got \"{}\"",
                    label,
                    io::printable(content));
  const auto count = [&](const char* name) {
    const auto number = reader.integer(name);
    MISTRAL_EXT_CHECK(number && *number >= 0,
                      "{}: {} must be a count, got {}",
                      label,
                      name,
                      number ? fmt::format("{}", *number) : "none");
    return *number;
  };
  return {content, count("start"), count("stop")};
}

}  // namespace

TokenDecoder::TokenDecoder(const ConfigMap& fields, const std::string& label) {
  const auto components = read_components(fields, "decoder", "decoders", label);
  bool fused = false;
  for (const auto& component : components) {
    const auto& [type, settings, name] = component;
    const ConfigReader reader(*settings, name);
    Step step{Fuse{}, fused};
    if (type == "Replace") {
      const auto content = reader.string("content");
      MISTRAL_EXT_CHECK(content, "{}: content must be given, got none", name);
      step.kind = Replace{TextPattern::parse(*settings, name), *content};
    } else if (type == "Strip") {
      step.kind = read_strip(reader, name);
    } else if (type == "Metaspace") {
      step.kind = Metaspace{read_replacement(*settings, name),
                            read_prepend_scheme(*settings, name) != PrependScheme::kNever};
    } else if (type == "ByteLevel") {
      step.kind = ByteLevel{};
      fused = true;
    } else if (type == "ByteFallback") {
      step.kind = ByteFallback{};
    } else if (type == "Fuse") {
      fused = true;
    } else {
      refuse_component(component);
    }
    steps_.push_back(std::move(step));
  }
  // An empty Sequence is none of that.
  if (ConfigReader(fields, label).map("decoder") == nullptr) steps_.push_back({Spaces{}, false});
}

}  // namespace mistral_ext::tokenizers
