#include "mistral_ext/tokenizers/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/core/config_reader.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/tokenizers/byte_alphabet.h"
#include "mistral_ext/tokenizers/characters.h"
#include "mistral_ext/tokenizers/tokenizer_components.h"

namespace mistral_ext::tokenizers {
namespace {

// GPT-2's words, which ByteLevel cuts at unless it is told not to.
constexpr std::string_view kByteLevelWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

SplitBehavior read_behavior(const ConfigReader& reader, const std::string& label) {
  constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors = {
      {{"Removed", SplitBehavior::kRemoved},
       {"Isolated", SplitBehavior::kIsolated},
       {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
       {"MergedWithNext", SplitBehavior::kMergedWithNext},
       {"Contiguous", SplitBehavior::kContiguous}}};
  const auto name = reader.string("behavior").value_or("");
  const auto* found =
      std::ranges::find(kBehaviors, name, &std::pair<std::string_view, SplitBehavior>::first);
  MISTRAL_EXT_CHECK(found != kBehaviors.end(),
                    "{}: behavior must be Removed, Isolated, MergedWithPrevious, MergedWithNext or "
                    "Contiguous, got {}",
                    label,
                    io::printable(name));
  return found->second;
}

struct Part {
  TextSpan span;
  bool match;
};

// Matches and what lies between them; `invert` changes which is which.
std::vector<Part> parts_of(std::string_view text, const TextPattern& pattern, bool invert) {
  std::vector<Part> parts;
  size_t at = 0;
  for (const auto& match : pattern.find_all(text)) {
    if (at != match.begin) parts.push_back({{at, match.begin}, invert});
    parts.push_back({match, !invert});
    at = match.end;
  }
  if (at != text.size()) parts.push_back({{at, text.size()}, invert});
  return parts;
}

// Joins parts to their neighbours as the behaviour says; what is left are the words.
void join(std::vector<Part>& parts, SplitBehavior behavior) {
  if (behavior == SplitBehavior::kIsolated) return;
  if (behavior == SplitBehavior::kRemoved) {
    std::erase_if(parts, [](const Part& part) { return part.match; });
    return;
  }
  const bool backward = behavior == SplitBehavior::kMergedWithNext;
  if (backward) std::ranges::reverse(parts);
  std::vector<Part> joined;
  bool before = false;  // whether the part before is a match
  for (const auto& part : parts) {
    const bool with_before =
        behavior == SplitBehavior::kContiguous ? part.match == before : part.match && !before;
    if (with_before && !joined.empty()) {
      auto& span = joined.back().span;
      (backward ? span.begin : span.end) = backward ? part.span.begin : part.span.end;
    } else {
      joined.push_back(part);
    }
    before = part.match;
  }
  if (backward) std::ranges::reverse(joined);
  parts = std::move(joined);
}

void split(TextPieces& pieces, const TextPattern& pattern, SplitBehavior behavior, bool invert) {
  std::vector<TextPieces::Word> words;
  words.reserve(pieces.words.size());
  for (const auto& word : pieces.words) {
    auto parts = parts_of(pieces.of(word), pattern, invert);
    join(parts, behavior);
    for (const auto& [span, match] : parts) {
      if (span.begin == span.end) continue;
      const auto begin = word.begin + span.begin;
      words.push_back({begin, word.begin + span.end, begin < pieces.start_bytes});
    }
  }
  pieces.words = std::move(words);
}

// Rewrites each word: `before` may put something before it, `character` appends what one of its
// characters becomes.
template <typename Before, typename Character>
void rewrite(TextPieces& pieces, const Before& before, const Character& character) {
  std::string text;
  text.reserve(pieces.text.size() * 2);
  size_t start_bytes = 0;
  for (auto& word : pieces.words) {
    const auto old = pieces.of(word);
    const auto begin = text.size();
    before(old, word.at_start, text);
    if (word.begin < pieces.start_bytes) start_bytes = text.size();
    for (size_t i = 0; i < old.size();) {
      const auto length = character_length(old[i]);
      character(old.substr(i, length), text);
      if (word.begin + i < pieces.start_bytes) start_bytes = text.size();
      i += length;
    }
    word = {begin, text.size(), word.at_start};
    pieces.check_size(text.size());
  }
  pieces.text = std::move(text);
  pieces.start_bytes = start_bytes;
}

void copy(std::string_view character, std::string& text) { text += character; }
void nothing(std::string_view /*word*/, bool /*at_start*/, std::string& /*text*/) {}

}  // namespace

PrependScheme read_prepend_scheme(const ConfigMap& metaspace, const std::string& label) {
  const ConfigReader reader(metaspace, label);
  const auto name = reader.string("prepend_scheme").value_or("always");
  MISTRAL_EXT_CHECK(name == "first" || name == "never" || name == "always",
                    "{}: prepend_scheme must be first, never or always, got {}",
                    label,
                    io::printable(name));
  const auto scheme = name == "first"   ? PrependScheme::kFirst
                      : name == "never" ? PrependScheme::kNever
                                        : PrependScheme::kAlways;
  MISTRAL_EXT_CHECK(
      reader.boolean("add_prefix_space").value_or(true) || scheme == PrependScheme::kNever,
      "{}: prepend_scheme must be never where add_prefix_space is false, got {}",
      label,
      name);
  return scheme;
}

std::string read_replacement(const ConfigMap& metaspace, const std::string& label) {
  const auto text = ConfigReader(metaspace, label).string("replacement").value_or("");
  MISTRAL_EXT_CHECK(!text.empty() && text.size() == character_length(text[0]),
                    "{}: replacement must be one character, got \"{}\"",
                    label,
                    io::printable(text));
  return text;
}

PreTokenizer::PreTokenizer(const ConfigMap& fields, const std::string& label) {
  for (const auto& [type, settings, name] :
       read_components(fields, "pre_tokenizer", "pretokenizers", label)) {
    const ConfigReader reader(*settings, name);
    const auto regex = [&name = name](std::string_view pattern) {
      return TextPattern::regex(pattern, RegexSyntax::kRust, name);
    };
    if (type == "ByteLevel") {
      if (reader.boolean("add_prefix_space").value_or(true)) steps_.emplace_back(PrefixSpace{});
      if (reader.boolean("use_regex").value_or(true)) {
        steps_.emplace_back(Split{regex(kByteLevelWords), SplitBehavior::kIsolated, false});
      }
      steps_.emplace_back(Bytes{});
    } else if (type == "Split") {
      steps_.emplace_back(Split{TextPattern::parse(*settings, name),
                                read_behavior(reader, name),
                                reader.boolean("invert").value_or(false)});
    } else if (type == "Digits") {
      const bool each = reader.boolean("individual_digits").value_or(false);
      steps_.emplace_back(Split{
          regex("\\p{N}"), each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false});
    } else if (type == "Whitespace") {
      steps_.emplace_back(Split{regex("\\w+|[^\\w\\s]+"), SplitBehavior::kRemoved, true});
    } else if (type == "WhitespaceSplit") {
      steps_.emplace_back(Split{regex("\\s"), SplitBehavior::kRemoved, false});
    } else if (type == "Metaspace") {
      const auto replacement = read_replacement(*settings, name);
      steps_.emplace_back(Metaspace{replacement, read_prepend_scheme(*settings, name)});
      if (reader.boolean("split").value_or(true)) {
        const ConfigMap pattern{{"pattern", {ConfigMap{{"String", {replacement}}}}}};
        steps_.emplace_back(
            Split{TextPattern::parse(pattern, name), SplitBehavior::kMergedWithNext, false});
      }
    } else {
      refuse_component({type, settings, name});
    }
  }
}

void PreTokenizer::apply(TextPieces& pieces) const {
  for (const auto& step : steps_) {
    if (const auto* cut = std::get_if<Split>(&step)) {
      split(pieces, cut->pattern, cut->behavior, cut->invert);
    } else if (std::holds_alternative<Bytes>(step)) {
      rewrite(pieces, nothing, bytes_to_alphabet);
    } else if (std::holds_alternative<PrefixSpace>(step)) {
      const auto space = [](std::string_view word, bool /*at_start*/, std::string& text) {
        if (!word.starts_with(' ')) text += ' ';
      };
      rewrite(pieces, space, copy);
    } else {
      // Not a structured binding: Clang takes none into a lambda before version 16.
      const auto& replacement = std::get<Metaspace>(step).replacement;
      const auto scheme = std::get<Metaspace>(step).scheme;
      const auto prepend = [&](std::string_view word, bool at_start, std::string& text) {
        // A space becomes the character itself.
        const bool has_it = word.starts_with(' ') || word.starts_with(replacement);
        const bool wanted =
            scheme == PrependScheme::kAlways || (scheme == PrependScheme::kFirst && at_start);
        if (wanted && !has_it) text += replacement;
      };
      const auto space = [&](std::string_view character, std::string& text) {
        text += character == " " ? std::string_view(replacement) : character;
      };
      rewrite(pieces, prepend, space);
    }
  }
}

}  // namespace mistral_ext::tokenizers
