#include "mistral_ext/tokenizers/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/characters.h"

namespace mistral_ext::tokenizers {
namespace {

// More than any has.
constexpr size_t kLongestToken = 1024;

AddedToken read_token(const ConfigValue& value, const std::string& label) {
  const auto* fields = std::get_if<ConfigMap>(&value.value);
  MISTRAL_EXT_CHECK(fields != nullptr, "{}: must be a mapping, got another value", label);
  const ConfigReader reader(*fields, label);
  const auto id = reader.integer("id");
  const auto content = reader.string("content");
  MISTRAL_EXT_CHECK(id && content, "{}: id and content must be given", label);
  MISTRAL_EXT_CHECK(!content->empty() && content->size() <= kLongestToken,
                    "{}: content must have 1 to {} bytes, got {}",
                    label,
                    kLongestToken,
                    content->size());
  AddedToken token{.id = *id, .content = *content, .normalized = *content};
  const auto flag = [&](const char* name) {
    const auto given = reader.boolean(name);
    MISTRAL_EXT_CHECK(given, "{}: {} must be given, got none", label, name);
    return *given;
  };
  token.single_word = flag("single_word");
  token.lstrip = flag("lstrip");
  token.rstrip = flag("rstrip");
  token.in_normalized = flag("normalized");
  token.special = flag("special");
  return token;
}

}  // namespace

AddedTokens::AddedTokens(const ConfigMap& fields,
                         const Vocabulary& vocabulary,
                         const Normalizer& normalizer,
                         const std::string& label)
    : word_at_end_("\\w$", RegexSyntax::kRust, label),
      word_at_begin_("^\\w", RegexSyntax::kRust, label),
      next_id_(vocabulary.size()) {
  const auto* list = ConfigReader(fields, label).list("added_tokens");
  if (list == nullptr) return;
  for (size_t i = 0; i < list->size(); ++i) {
    const auto name = fmt::format("{}: added_tokens[{}]", label, i);
    auto token = read_token((*list)[i], name);
    if (token.in_normalized) {
      token.normalized = normalizer.apply(token.content);
      MISTRAL_EXT_CHECK(!token.normalized.empty() && token.normalized.size() <= kLongestToken,
                        "{}: content must have 1 to {} bytes when normalised, got {}",
                        name,
                        kLongestToken,
                        token.normalized.size());
    }
    add(std::move(token), vocabulary, name);
  }
  exact_.seal();
  normalized_.seal();
}

void AddedTokens::add(AddedToken token, const Vocabulary& vocabulary, const std::string& label) {
  const auto known = vocabulary.find(token.content);
  MISTRAL_EXT_CHECK(known < 0 || known == token.id,
                    "{}: id must be that of \"{}\" in model.vocab, {}, got {}",
                    label,
                    io::printable(token.content),
                    known,
                    token.id);
  // The file's own library gives ids in turn and does not read them.
  MISTRAL_EXT_CHECK(known >= 0 || token.id == next_id_,
                    "{}: id must be the next one, {}, as \"{}\" is not in model.vocab, got {}",
                    label,
                    next_id_,
                    io::printable(token.content),
                    token.id);
  MISTRAL_EXT_CHECK(known >= 0 || !vocabulary.token(token.id),
                    "{}: ids must differ, got {} for \"{}\", which model.vocab has too",
                    label,
                    token.id,
                    io::printable(token.content));
  if (known < 0) ++next_id_;
  const auto place = tokens_.size();
  const bool first = by_content_.emplace(token.content, place).second &&
                     (token.in_normalized ? normalized_ : exact_)
                         .add(token.normalized, static_cast<int32_t>(place));
  MISTRAL_EXT_CHECK(first,
                    "{}: content must differ from the others', got \"{}\" twice",
                    label,
                    io::printable(token.content));
  by_id_.emplace(token.id, place);
  end_id_ = std::max(end_id_, token.id + 1);
  tokens_.push_back(std::move(token));
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text,
                                                  bool normalized,
                                                  bool special) const {
  std::vector<Part> parts;
  size_t done = 0;
  const auto& finder = normalized ? normalized_ : exact_;
  if (!finder.empty()) {
    // Where one is not wanted, what lies inside it is not looked at again.
    for (const auto& match : finder.find_all(text)) {
      auto begin = match.begin;
      auto end = match.end;
      const auto& token = tokens_[static_cast<size_t>(match.value)];
      if (!special && token.special) continue;
      // Words and spaces are looked for near the token alone, so that a text of many costs no more.
      if (token.single_word) {
        const auto near = [](std::string_view side, bool last) {
          auto from = last && !side.empty() ? side.size() - 1 : 0;
          while (from > 0 && (static_cast<uint8_t>(side[from]) & 0xC0) == 0x80) --from;
          return last ? side.substr(from)
                      : side.substr(0, side.empty() ? 0 : character_length(side[0]));
        };
        if (!word_at_end_.find_all(near(text.substr(0, begin), true)).empty() ||
            !word_at_begin_.find_all(near(text.substr(end), false)).empty()) {
          continue;
        }
      }
      // What the token before has taken stays its own.
      if (token.lstrip) begin = std::max(begin - trailing_space(text.substr(0, begin)), done);
      if (begin >= end) continue;
      if (token.rstrip) end += leading_space(text.substr(end));
      if (done < begin) parts.push_back({{done, begin}, -1});
      parts.push_back({{begin, end}, token.id});
      done = end;
    }
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, -1});
  return parts;
}

const AddedToken* AddedTokens::find(int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

bool AddedTokens::is_special(std::string_view content) const {
  const auto* token = find(content);
  return token != nullptr && token->special;
}

}  // namespace mistral_ext::tokenizers
