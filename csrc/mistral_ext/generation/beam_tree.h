#pragma once

#include <cstdint>
#include <vector>

namespace mistral_ext::generation {

// The new tokens of all beams. Beams that share a beginning share its nodes, so that a beam is one
// number, whatever its length.
class BeamTree {
 public:
  // Every prompt's end: no new token yet.
  static constexpr int64_t kRoot = -1;

  // beam: the row in which the token was picked.
  int64_t add(int64_t parent, int64_t token, int32_t beam) {
    nodes_.push_back({parent, token, depth(parent) + 1, beam});
    return std::ssize(nodes_) - 1;
  }

  // New tokens up to this node.
  int64_t depth(int64_t node) const { return node == kRoot ? 0 : nodes_[node].depth; }
  int64_t token(int64_t node) const { return nodes_[node].token; }

  // New tokens that two nodes of one depth share.
  int64_t common_depth(int64_t a, int64_t b) const {
    while (a != b) {
      a = nodes_[a].parent;
      b = nodes_[b].parent;
    }
    return depth(a);
  }

  // Writes depth(node) tokens, and in which row each was picked.
  void write_tokens(int64_t node, int64_t* out) const {
    for (; node != kRoot; node = nodes_[node].parent) out[nodes_[node].depth - 1] = token(node);
  }
  void write_beams(int64_t node, int32_t* out) const {
    for (; node != kRoot; node = nodes_[node].parent) {
      out[nodes_[node].depth - 1] = nodes_[node].beam;
    }
  }

 private:
  struct Node {
    int64_t parent;
    int64_t token;
    int64_t depth;
    int32_t beam;
  };

  std::vector<Node> nodes_;
};

}  // namespace mistral_ext::generation
