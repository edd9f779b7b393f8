#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mistral_ext/core/config_value.h"
#include "mistral_ext/tokenizers/merge_table.h"
#include "mistral_ext/tokenizers/tokenizer_json_file.h"
#include "mistral_ext/tokenizers/vocabulary.h"

namespace mistral_ext::tokenizers {

// The model BPE of tokenizer.json: a word's characters are tokens, of which neighbours are merged
// in the order of the file.
class BpeModel {
 public:
  // Takes the vocabulary and the merges out of `file`. Throws ValueError, its message beginning
  // with `label`, for another model and for a setting that makes no sense.
  BpeModel(TokenizerJsonFile& file, const std::string& label);

  // Appends the ids of one word, which is UTF-8. For n characters, O(n log n).
  void encode(std::string_view word, std::vector<int64_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  void read_settings(const ConfigMap& model, const std::string& label);
  void read_merges(const std::vector<MergeText>& merges, const std::string& label);
  // The ids of the characters, before anything is merged.
  void spell(std::string_view word, std::vector<int32_t>& ids) const;
  int32_t find_character(std::string_view character) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::string prefix_;  // of each character but a word's first
  std::string suffix_;  // of a word's last character
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  std::array<int32_t, 256> bytes_{};      // <0x00> to <0xFF>; -1 where they are not used
  std::array<int32_t, 0x800> letters_{};  // ids of the characters of one and two bytes
};

}  // namespace mistral_ext::tokenizers
