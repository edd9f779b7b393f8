#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

// Tokens and their ids, which may have holes. A token is looked up by its text in constant time.
class Vocabulary {
 public:
  // Adds a token. Throws ValueError, its message beginning with `label`, for a token or an id that
  // is there, or an id that is negative.
  void add(std::string_view token, int64_t id, const std::string& label);

  // To be called when all are added: sees that the ids are not so far apart that a table of them
  // would take more memory than the tokens.
  void finish(const std::string& label);

  // -1 where there is none.
  int32_t find(std::string_view token) const;
  // Absent where no token has the id.
  std::optional<std::string_view> token(int64_t id) const;

  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  // Above the largest id.
  int64_t end_id() const { return end_id_; }

 private:
  struct Token {
    size_t end;  // in text_, where the next one begins
    int32_t id;
  };

  size_t slot(std::string_view token) const;
  std::string_view text(int32_t index) const;
  void grow();

  std::string text_;            // of all tokens, one behind the other
  std::vector<Token> tokens_;   // in the order of adding
  std::vector<int32_t> slots_;  // a hash table of indices, open addressing; -1 is free
  std::vector<int32_t> by_id_;  // indices; -1 is a hole
  int64_t end_id_ = 0;
};

}  // namespace mistral_ext::tokenizers
