#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mistral_ext::tokenizers {

struct SentencePiece {
  enum class Kind : uint8_t { kText, kUnknown, kControl, kByte };
  std::string text;  // as the file writes it: "▁the", "</s>", "<0x0A>"
  Kind kind;
};

// What a tokenizer.model holds, and the library that encodes with it. The only place that knows the
// library.
class SentencePieceModel {
 public:
  // Throws ValueError, its message beginning with `label`, where the bytes are no model, or one
  // that no Mistral has: not byte-pair encoding, with a normalisation of its own, with unused
  // pieces.
  SentencePieceModel(std::string_view bytes, const std::string& label);
  ~SentencePieceModel();

  // Appends the ids of the text, which must be UTF-8.
  void encode(std::string_view text, std::vector<int64_t>& ids) const;

  const std::vector<SentencePiece>& pieces() const { return pieces_; }
  // What decoding writes for the unknown token.
  const std::string& unknown_surface() const { return unknown_surface_; }
  // A space goes before a text that is encoded, and the first one is dropped in decoding.
  bool drops_first_space() const { return drops_first_space_; }
  // Encoding drops spaces, so decoding drops one from each piece before the first text.
  bool drops_leading_spaces() const { return drops_leading_spaces_; }
  std::optional<int64_t> bos() const { return bos_; }
  std::optional<int64_t> eos() const { return eos_; }

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  std::vector<SentencePiece> pieces_;
  std::string unknown_surface_;
  bool drops_first_space_ = false;
  bool drops_leading_spaces_ = false;
  bool byte_fallback_ = false;
  std::array<int64_t, 256> byte_ids_{};
  std::optional<int64_t> bos_;
  std::optional<int64_t> eos_;
};

}  // namespace mistral_ext::tokenizers
