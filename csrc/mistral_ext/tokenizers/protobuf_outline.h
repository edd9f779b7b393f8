#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mistral_ext::tokenizers {

struct ProtobufLimits {
  uint64_t repeated_field;  // the one that may come often
  int64_t most_repeated;
  int64_t most_other_bytes;  // of all other fields together
  // A field that holds messages of messages. Protobuf believes the length of an inner one, and
  // reserves memory by it, before it finds that the outer one is shorter.
  uint64_t nested_field = 0;
};

// Looks at the outermost fields of a protobuf message, so that what a parser makes of it stays
// within a small multiple of its bytes. Throws ValueError, its message beginning with `label`,
// where the bytes are no message, or go beyond a limit.
void check_protobuf_outline(std::string_view bytes,
                            const std::string& label,
                            const ProtobufLimits& limits);

}  // namespace mistral_ext::tokenizers
