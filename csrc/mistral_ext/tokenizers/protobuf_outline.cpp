#include "mistral_ext/tokenizers/protobuf_outline.h"

#include <iterator>

#include "mistral_ext/core/check.h"

namespace mistral_ext::tokenizers {
namespace {

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& label) : bytes_(bytes), label_(label) {}

  bool at_end() const { return position_ == bytes_.size(); }
  size_t position() const { return position_; }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      check(position_ < bytes_.size());
      const auto byte = static_cast<unsigned char>(bytes_[position_++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    check(false);
    return 0;
  }
  std::string_view take(uint64_t bytes) {
    check(bytes <= bytes_.size() - position_);
    const auto taken = bytes_.substr(position_, bytes);
    position_ += bytes;
    return taken;
  }
  void check(bool condition) const {
    MISTRAL_EXT_CHECK(condition,
                      "{}: must be a protobuf message of {} bytes, got one that breaks off or is "
                      "none at byte {}",
                      label_,
                      bytes_.size(),
                      position_);
  }

 private:
  std::string_view bytes_;
  const std::string& label_;
  size_t position_ = 0;
};

}  // namespace

void check_protobuf_outline(std::string_view bytes,
                            const std::string& label,
                            const ProtobufLimits& limits) {
  Reader reader(bytes, label);
  int64_t repeated = 0;
  int64_t other_bytes = 0;
  while (!reader.at_end()) {
    const auto begin = reader.position();
    const auto tag = reader.varint();
    switch (tag & 7) {
      case 0:
        reader.varint();
        break;
      case 1:
        reader.take(8);
        break;
      case 2: {
        const auto content = reader.take(reader.varint());
        if (limits.nested_field != 0 && (tag >> 3) == limits.nested_field) {
          check_protobuf_outline(content, label, {0, 0, std::ssize(content)});
        }
        break;
      }
      case 5:
        reader.take(4);
        break;
      default:  // groups, which no message of SentencePiece has
        reader.check(false);
    }
    if ((tag >> 3) == limits.repeated_field) {
      ++repeated;
    } else {
      other_bytes += static_cast<int64_t>(reader.position() - begin);
    }
    MISTRAL_EXT_CHECK(repeated <= limits.most_repeated,
                      "{}: must hold at most {} of field {}, got more",
                      label,
                      limits.most_repeated,
                      limits.repeated_field);
    MISTRAL_EXT_CHECK(other_bytes <= limits.most_other_bytes,
                      "{}: must hold at most {} bytes beside field {}, got more",
                      label,
                      limits.most_other_bytes,
                      limits.repeated_field);
  }
}

}  // namespace mistral_ext::tokenizers
