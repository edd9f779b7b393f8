#include "mistral_ext/tokenizers/token_trie.h"

namespace mistral_ext::tokenizers {

int32_t TokenTrie::new_node(uint8_t byte) {
  nodes_.push_back({kNone, kNone, kNone, byte});
  return static_cast<int32_t>(nodes_.size()) - 1;
}

bool TokenTrie::add(std::string_view text, int32_t value) {
  int32_t at = kNone;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (i == 0) {
      if (roots_[byte] == kNone) roots_[byte] = new_node(byte);
      at = roots_[byte];
      continue;
    }
    auto next = nodes_[at].child;
    while (next != kNone && nodes_[next].byte != byte) next = nodes_[next].sibling;
    if (next == kNone) {
      next = new_node(byte);
      nodes_[next].sibling = nodes_[at].child;
      nodes_[at].child = next;
    }
    at = next;
  }
  if (at == kNone || nodes_[at].value != kNone) return false;
  nodes_[at].value = value;
  return true;
}

TokenTrie::Match TokenTrie::longest_at(std::string_view text, size_t at) const {
  Match match;
  auto node = roots_[static_cast<uint8_t>(text[at])];
  for (auto end = at + 1; node != kNone; ++end) {
    if (nodes_[node].value != kNone) match = {end - at, nodes_[node].value};
    if (end == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[end]);
    node = nodes_[node].child;
    while (node != kNone && nodes_[node].byte != byte) node = nodes_[node].sibling;
  }
  return match;
}

}  // namespace mistral_ext::tokenizers
