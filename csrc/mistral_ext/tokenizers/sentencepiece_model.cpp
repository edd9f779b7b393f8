#include "mistral_ext/tokenizers/sentencepiece_model.h"

#include <bpe_model.h>
#include <normalizer.h>
#include <sentencepiece_model.pb.h>

#include <cmath>
#include <exception>
#include <limits>
#include <unordered_set>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/protobuf_outline.h"
#include "mistral_ext/tokenizers/utf8.h"

namespace mistral_ext::tokenizers {
namespace {

using ::sentencepiece::ModelProto;
using ::sentencepiece::TrainerSpec;
using Piece = ModelProto::SentencePiece;

constexpr int64_t kMostPieces = 1 << 20;
constexpr int64_t kMostOtherBytes = 1 << 20;
constexpr uint64_t kSelfTestData = 4;  // the field's number
// The library walks pieces by recursion.
constexpr size_t kLongestPiece = 1024;
// It looks at 64 user-defined pieces that begin at one place, and reads beyond them where there are
// more.
constexpr size_t kLongestUserDefined = 64;
// The library counts in int.
constexpr size_t kLongestText = size_t{1} << 29;
constexpr char kUnknownSurface[] = " \xE2\x81\x87 ";

SentencePiece::Kind kind(const Piece& piece, int id, const std::string& label) {
  switch (piece.type()) {
    case Piece::NORMAL:
    case Piece::USER_DEFINED:
      return SentencePiece::Kind::kText;
    case Piece::UNKNOWN:
      return SentencePiece::Kind::kUnknown;
    case Piece::CONTROL:
      return SentencePiece::Kind::kControl;
    case Piece::BYTE:
      return SentencePiece::Kind::kByte;
    default:
      break;
  }
  MISTRAL_EXT_CHECK(false,
                    "{}: piece {} must be of type normal, unknown, control, user-defined or byte, "
                    "got type {}",
                    label,
                    id,
                    static_cast<int>(piece.type()));
}

void check_piece(const Piece& piece, int id, const std::string& label) {
  const auto& text = piece.piece();
  MISTRAL_EXT_CHECK(!text.empty() && text.size() <= kLongestPiece,
                    "{}: piece {} must have 1 to {} bytes, got {}",
                    label,
                    id,
                    kLongestPiece,
                    text.size());
  MISTRAL_EXT_CHECK(piece.type() != Piece::USER_DEFINED || text.size() <= kLongestUserDefined,
                    "{}: piece {}, user-defined, must have at most {} bytes, got {}",
                    label,
                    id,
                    kLongestUserDefined,
                    text.size());
  MISTRAL_EXT_CHECK(first_invalid_utf8(text) == text.size() && text.find('\0') == std::string::npos,
                    "{}: piece {} must be UTF-8 without zero bytes, got {}",
                    label,
                    id,
                    io::printable(text));
  MISTRAL_EXT_CHECK(std::isfinite(piece.score()),
                    "{}: the score of piece {} must be finite, got {}",
                    label,
                    id,
                    piece.score());
}

// What the library would take, and then crash on or do what we have not compared.
void check_model(const ModelProto& model, const std::string& label) {
  const auto& trainer = model.trainer_spec();
  MISTRAL_EXT_CHECK(trainer.model_type() == TrainerSpec::BPE,
                    "{}: trainer_spec.model_type must be BPE ({}), got {}",
                    label,
                    static_cast<int>(TrainerSpec::BPE),
                    static_cast<int>(trainer.model_type()));
  MISTRAL_EXT_CHECK(model.normalizer_spec().precompiled_charsmap().empty() &&
                        model.denormalizer_spec().precompiled_charsmap().empty(),
                    "{}: normalizer_spec must be identity, got a table of characters",
                    label);
  MISTRAL_EXT_CHECK(model.pieces_size() > 0, "{}: must have pieces, got none", label);
}

}  // namespace

// The parts that its SentencePieceProcessor puts together. That one makes a message of protobuf for
// each text, with the piece and the place of each id, which takes longer than finding them.
struct SentencePieceModel::Library {
  explicit Library(std::unique_ptr<ModelProto> model)
      : proto(std::move(model)),
        bpe(*proto),
        normalizer(proto->normalizer_spec(), proto->trainer_spec()) {
    normalizer.SetPrefixMatcher(bpe.prefix_matcher());
  }

  std::optional<int64_t> control_piece(const std::string& name) const {
    const auto id = bpe.PieceToId(name);
    return id >= 0 && bpe.IsControl(id) ? std::optional<int64_t>(id) : std::nullopt;
  }

  std::unique_ptr<ModelProto> proto;
  ::sentencepiece::bpe::Model bpe;
  ::sentencepiece::normalizer::Normalizer normalizer;
};

SentencePieceModel::SentencePieceModel(std::string_view bytes, const std::string& label) {
  check_protobuf_outline(bytes, label, {1, kMostPieces, kMostOtherBytes, kSelfTestData});
  auto model = std::make_unique<ModelProto>();
  MISTRAL_EXT_CHECK(model->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())),
                    "{}: must be a SentencePiece model, got another protobuf message",
                    label);
  check_model(*model, label);
  // Loading would encode these and write what differs to stderr.
  model->clear_self_test_data();
  std::unordered_set<std::string_view> seen;
  bool unknown = false;
  pieces_.reserve(model->pieces_size());
  for (int id = 0; id < model->pieces_size(); ++id) {
    const auto& piece = model->pieces(id);
    check_piece(piece, id, label);
    MISTRAL_EXT_CHECK(seen.insert(piece.piece()).second,
                      "{}: piece {} must be there once, got {} twice",
                      label,
                      id,
                      io::printable(piece.piece()));
    pieces_.push_back({piece.piece(), kind(piece, id, label)});
    unknown = unknown || piece.type() == Piece::UNKNOWN;
  }
  MISTRAL_EXT_CHECK(unknown, "{}: must have a piece of type unknown, got none", label);
  const auto& trainer = model->trainer_spec();
  unknown_surface_ = trainer.has_unk_surface() ? trainer.unk_surface() : kUnknownSurface;
  // Taken as a C string by the library.
  unknown_surface_.resize(std::min(unknown_surface_.find('\0'), unknown_surface_.size()));
  MISTRAL_EXT_CHECK(first_invalid_utf8(unknown_surface_) == unknown_surface_.size(),
                    "{}: trainer_spec.unk_surface must be UTF-8, got {}",
                    label,
                    io::printable(unknown_surface_));
  const auto& normalizer = model->normalizer_spec();
  drops_leading_spaces_ = normalizer.remove_extra_whitespaces();
  drops_first_space_ = normalizer.add_dummy_prefix() || drops_leading_spaces_;
  try {
    library_ = std::make_unique<Library>(std::move(model));
  } catch (const std::exception& error) {
    MISTRAL_EXT_CHECK(
        false, "{}: must be a model that SentencePiece loads: {}", label, error.what());
  }
  for (const auto& status : {library_->bpe.status(), library_->normalizer.status()}) {
    MISTRAL_EXT_CHECK(status.ok(),
                      "{}: must be a model that SentencePiece loads: {}",
                      label,
                      io::printable(status.message()));
  }
  byte_fallback_ = library_->bpe.ByteFallbackEnabled();
  for (int byte = 0; byte_fallback_ && byte < 256; ++byte) {
    byte_ids_[byte] = library_->bpe.PieceToId(::sentencepiece::ByteToPiece(byte));
  }
  bos_ = library_->control_piece(library_->proto->trainer_spec().bos_piece());
  eos_ = library_->control_piece(library_->proto->trainer_spec().eos_piece());
}

SentencePieceModel::~SentencePieceModel() = default;

void SentencePieceModel::encode(std::string_view text, std::vector<int64_t>& ids) const {
  MISTRAL_EXT_CHECK(text.size() <= kLongestText,
                    "encode: text must have at most {} bytes, got {}",
                    kLongestText,
                    text.size());
  std::string normalized;
  std::vector<size_t> places;
  const auto status = library_->normalizer.Normalize(text, &normalized, &places);
  TORCH_INTERNAL_ASSERT(status.ok(), status.ToString());
  bool after_unknown = false;
  for (const auto& [piece, id] : library_->bpe.Encode(normalized)) {
    const bool unknown = pieces_[id].kind == SentencePiece::Kind::kUnknown;
    if (unknown && byte_fallback_) {
      for (const char byte : piece) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    } else if (!unknown || !after_unknown) {
      ids.push_back(id);  // unknown characters in a row are one token
    }
    after_unknown = unknown;
  }
}

}  // namespace mistral_ext::tokenizers
