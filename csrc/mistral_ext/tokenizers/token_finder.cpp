#include "mistral_ext/tokenizers/token_finder.h"

#include <utility>

namespace mistral_ext::tokenizers {

int32_t TokenFinder::child_of(int32_t node, uint8_t byte) const {
  if (node == kNone) return roots_[byte];
  auto child = nodes_[node].child;
  while (child != kNone && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

int32_t TokenFinder::next(int32_t node, uint8_t byte) const {
  auto child = child_of(node, byte);
  while (child == kNone && node != kNone) {
    node = nodes_[node].suffix;
    child = child_of(node, byte);
  }
  return child;
}

bool TokenFinder::add(std::string_view text, int32_t value) {
  auto node = kNone;
  for (auto at = text.size(); at > 0; --at) {
    const auto byte = static_cast<uint8_t>(text[at - 1]);
    auto child = child_of(node, byte);
    if (child == kNone) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({.bytes = static_cast<int32_t>(text.size() - at + 1), .byte = byte});
      auto& first = node == kNone ? roots_[byte] : nodes_[node].child;
      nodes_.back().sibling = first;
      first = child;
    }
    node = child;
  }
  if (node == kNone || nodes_[node].value != kNone) return false;
  nodes_[node].value = value;
  return true;
}

void TokenFinder::seal() {
  // Shorter ones first, which the links lead to.
  std::vector<int32_t> order;
  order.reserve(nodes_.size());
  for (const auto root : roots_) {
    if (root != kNone) order.push_back(root);
  }
  for (size_t i = 0; i < order.size(); ++i) {
    const auto node = order[i];
    auto& own = nodes_[node];
    own.token = own.value != kNone ? node : own.suffix == kNone ? kNone : nodes_[own.suffix].token;
    for (auto child = own.child; child != kNone; child = nodes_[child].sibling) {
      nodes_[child].suffix = next(own.suffix, nodes_[child].byte);
      order.push_back(child);
    }
  }
}

std::vector<TokenFinder::Match> TokenFinder::find_all(std::string_view text) const {
  std::vector<std::pair<size_t, int32_t>> found;  // from right to left
  auto node = kNone;
  for (auto at = text.size(); at > 0; --at) {
    node = next(node, static_cast<uint8_t>(text[at - 1]));
    if (node == kNone || nodes_[node].token == kNone) continue;
    found.emplace_back(at - 1, nodes_[node].token);
  }
  std::vector<Match> matches;
  size_t done = 0;
  for (; !found.empty(); found.pop_back()) {
    const auto [begin, token] = found.back();
    if (begin < done) continue;
    done = begin + static_cast<size_t>(nodes_[token].bytes);
    matches.push_back({begin, done, nodes_[token].value});
  }
  return matches;
}

}  // namespace mistral_ext::tokenizers
