#pragma once

#include <cstdint>
#include <string>

namespace mistral_ext::tokenizers {

// The text of token ids that come one at a time, as from a model that generates. What put and
// finish return, one after the other, is what Tokenizer::decode returns for all ids at once; an id
// costs what its own text costs, however long the text before it is. Made by
// Tokenizer::text_stream, which it must not outlive; for one thread.
class TextStream {
 public:
  virtual ~TextStream() = default;

  // The text that `id` completes: whole characters, which no later id changes. Empty where the id
  // ends inside a character. An id that no token has, such as those at and beyond vocab_size() that
  // models with padded vocabularies make, is as if it were not there. Throws ValueError for a
  // negative id and leaves the stream as it was.
  virtual std::string put(int64_t id) = 0;

  // The rest: U+FFFD for a character that was never completed. The next id begins a new text.
  virtual std::string finish() = 0;
};

}  // namespace mistral_ext::tokenizers
