#include "mistral_ext/tokenizers/bpe_model.h"

#include <fmt/format.h>

#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/characters.h"

namespace mistral_ext::tokenizers {
namespace {

// They are put to each character of a text.
constexpr size_t kLongestAffix = 16;

std::string read_affix(const ConfigReader& reader, const char* name, const std::string& label) {
  auto affix = reader.string(name).value_or("");
  MISTRAL_EXT_CHECK(affix.size() <= kLongestAffix,
                    "{}: {} must have at most {} bytes, got {}",
                    label,
                    name,
                    kLongestAffix,
                    affix.size());
  return affix;
}

}  // namespace

BpeModel::BpeModel(TokenizerJsonFile& file, const std::string& label) {
  const auto* model = ConfigReader(file.fields, label).map("model");
  const auto name = label + ": model";
  MISTRAL_EXT_CHECK(model != nullptr, "{}: must be given, got none", name);
  MISTRAL_EXT_CHECK(file.has_vocabulary, "{}.vocab: must be given, got none", name);
  MISTRAL_EXT_CHECK(file.has_merges, "{}.merges: must be given, got none", name);
  file.vocabulary.finish(name + ".vocab");
  vocabulary_ = std::move(file.vocabulary);
  read_settings(*model, name);
  read_merges(file.merges, name);
  for (uint32_t point = 0; point < letters_.size(); ++point) {
    const std::array<char, 2> two{static_cast<char>(0xC0 | point >> 6),
                                  static_cast<char>(0x80 | (point & 0x3F))};
    const auto one = static_cast<char>(point);
    letters_[point] = vocabulary_.find(point < 0x80 ? std::string_view(&one, 1)
                                                    : std::string_view(two.data(), two.size()));
  }
}

void BpeModel::read_settings(const ConfigMap& model, const std::string& label) {
  const ConfigReader reader(model, label);
  // Old files name no type.
  const auto type = reader.string("type").value_or("BPE");
  MISTRAL_EXT_CHECK(type == "BPE", "{}: type must be BPE, got {}", label, io::printable(type));
  const auto dropout = reader.number("dropout").value_or(0);
  MISTRAL_EXT_CHECK(dropout == 0, "{}: dropout must be 0 or null, got {}", label, dropout);
  prefix_ = read_affix(reader, "continuing_subword_prefix", label);
  suffix_ = read_affix(reader, "end_of_word_suffix", label);
  fuse_unknown_ = reader.boolean("fuse_unk").value_or(false);
  ignore_merges_ = reader.boolean("ignore_merges").value_or(false);
  if (const auto unknown = reader.string("unk_token")) {
    unknown_ = vocabulary_.find(*unknown);
    MISTRAL_EXT_CHECK(unknown_ >= 0,
                      "{}: unk_token must be in vocab, got \"{}\"",
                      label,
                      io::printable(*unknown));
  }
  bytes_.fill(-1);
  if (reader.boolean("byte_fallback").value_or(false)) {
    for (size_t byte = 0; byte < bytes_.size(); ++byte) {
      bytes_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte));
    }
  }
}

void BpeModel::read_merges(const std::vector<MergeText>& merges, const std::string& label) {
  merges_ = MergeTable(merges.size());
  std::string merged;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto first = merges[rank].first();
    const auto second = merges[rank].second();
    const auto id = [&](std::string_view token) {
      const auto found = vocabulary_.find(token);
      MISTRAL_EXT_CHECK(found >= 0,
                        "{}: merges[{}] must be of tokens in vocab, got \"{}\"",
                        label,
                        rank,
                        io::printable(token));
      return found;
    };
    const auto left = id(first);
    const auto right = id(second);
    MISTRAL_EXT_CHECK(second.starts_with(prefix_) && second.size() > prefix_.size(),
                      "{}: the second of merges[{}] must begin with continuing_subword_prefix and "
                      "go on, got \"{}\"",
                      label,
                      rank,
                      io::printable(second));
    merged = first;
    merged += second.substr(prefix_.size());
    merges_.add(left, right, {static_cast<int32_t>(rank), id(merged)});
  }
}

int32_t BpeModel::find_character(std::string_view character) const {
  if (character.size() > 2) return vocabulary_.find(character);
  const auto first = static_cast<uint32_t>(static_cast<uint8_t>(character[0]));
  if (character.size() == 1) return letters_[first];
  return letters_[(first & 0x1F) << 6 | (static_cast<uint8_t>(character[1]) & 0x3F)];
}

void BpeModel::spell(std::string_view word, std::vector<int32_t>& ids) const {
  const bool plain = prefix_.empty() && suffix_.empty();
  bool unknown = false;  // one that is not in `ids` yet: those next to it may be fused with it
  std::string with_affixes;
  for (size_t i = 0; i < word.size();) {
    const auto length = character_length(word[i]);
    auto character = word.substr(i, length);
    if (!plain) {
      with_affixes = i > 0 ? prefix_ : "";
      with_affixes += character;
      if (i + length == word.size()) with_affixes += suffix_;
      character = with_affixes;
    }
    i += length;
    const auto id = plain ? find_character(character) : vocabulary_.find(character);
    if (id >= 0) {
      if (std::exchange(unknown, false)) ids.push_back(unknown_);
      ids.push_back(id);
      continue;
    }
    const auto before = ids.size();
    for (const char byte : character) {
      const auto of_byte = bytes_[static_cast<uint8_t>(byte)];
      if (of_byte < 0) {
        ids.resize(before);
        break;
      }
      ids.push_back(of_byte);
    }
    if (ids.size() > before || unknown_ < 0) continue;
    if (unknown && !fuse_unknown_) ids.push_back(unknown_);
    unknown = true;
  }
  if (unknown) ids.push_back(unknown_);
}

void BpeModel::encode(std::string_view word, std::vector<int64_t>& ids) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary_.find(word); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  spell(word, symbols);
  merges_.apply(symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

}  // namespace mistral_ext::tokenizers
