#include "mistral_ext/tokenizers/vocabulary.h"

#include <algorithm>
#include <functional>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr int64_t kMostIds = int64_t{1} << 30;
// Ids may lie this far beyond their number: models leave some out, none leaves out most.
constexpr int64_t kIdsPerToken = 4;
constexpr int64_t kMoreIds = 4096;

}  // namespace

std::string_view Vocabulary::text(int32_t index) const {
  const auto begin = index == 0 ? 0 : tokens_[static_cast<size_t>(index) - 1].end;
  return std::string_view(text_).substr(begin, tokens_[static_cast<size_t>(index)].end - begin);
}

// Where the token is, or where it would go.
size_t Vocabulary::slot(std::string_view token) const {
  const auto mask = slots_.size() - 1;
  auto at = std::hash<std::string_view>()(token) & mask;
  while (slots_[at] >= 0 && text(slots_[at]) != token) at = (at + 1) & mask;
  return at;
}

void Vocabulary::grow() {
  const auto entries = static_cast<int32_t>(tokens_.size());
  slots_.assign(std::max<size_t>(64, slots_.size() * 2), -1);
  for (int32_t i = 0; i < entries; ++i) slots_[slot(text(i))] = i;
}

void Vocabulary::add(std::string_view token, int64_t id, const std::string& label) {
  MISTRAL_EXT_CHECK(id >= 0 && id < kMostIds,
                    "{}: the id of \"{}\" must be in [0, {}), got {}",
                    label,
                    io::printable(token),
                    kMostIds,
                    id);
  if (tokens_.size() * 2 >= slots_.size()) grow();
  const auto at = slot(token);
  MISTRAL_EXT_CHECK(
      slots_[at] < 0, "{}: tokens must differ, got \"{}\" twice", label, io::printable(token));
  slots_[at] = static_cast<int32_t>(tokens_.size());
  text_ += token;
  tokens_.push_back({text_.size(), static_cast<int32_t>(id)});
  end_id_ = std::max(end_id_, id + 1);
}

void Vocabulary::finish(const std::string& label) {
  MISTRAL_EXT_CHECK(end_id_ <= kIdsPerToken * size() + kMoreIds,
                    "{}: the ids of {} tokens must be below {}, got {}",
                    label,
                    size(),
                    kIdsPerToken * size() + kMoreIds,
                    end_id_ - 1);
  by_id_.assign(static_cast<size_t>(end_id_), -1);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    auto& index = by_id_[static_cast<size_t>(tokens_[i].id)];
    MISTRAL_EXT_CHECK(index < 0,
                      "{}: ids must differ, got {} for \"{}\" and for \"{}\"",
                      label,
                      tokens_[i].id,
                      io::printable(text(index)),
                      io::printable(text(static_cast<int32_t>(i))));
    index = static_cast<int32_t>(i);
  }
}

int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const auto index = slots_[slot(token)];
  return index < 0 ? -1 : tokens_[static_cast<size_t>(index)].id;
}

std::optional<std::string_view> Vocabulary::token(int64_t id) const {
  if (id < 0 || id >= static_cast<int64_t>(by_id_.size())) return std::nullopt;
  const auto index = by_id_[static_cast<size_t>(id)];
  if (index < 0) return std::nullopt;
  return text(index);
}

}  // namespace mistral_ext::tokenizers
