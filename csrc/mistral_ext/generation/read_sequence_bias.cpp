#include "mistral_ext/generation/read_sequence_bias.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::generation {
namespace {

constexpr const char* kName = "sequence_bias";

double to_bias(const ConfigValue& value) {
  const auto* number = std::get_if<double>(&value.value);
  const auto* whole = std::get_if<int64_t>(&value.value);
  MISTRAL_EXT_CHECK(whole != nullptr || (number != nullptr && std::isfinite(*number)),
                    "generation_config: {} must have biases that are finite numbers, got another "
                    "value",
                    kName);
  return whole != nullptr ? static_cast<double>(*whole) : *number;
}

// "3, 4" or "5,": what stands between the brackets of a tuple. Absent where it is none.
std::optional<std::vector<int64_t>> read_numbers(std::string_view text) {
  std::vector<int64_t> numbers;
  while (!text.empty()) {
    if (!numbers.empty() && text.front() == ' ') text.remove_prefix(1);
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), numbers.emplace_back());
    const auto used = static_cast<size_t>(end - text.data());
    if (error != std::errc() || (used < text.size() && text[used] != ',')) return std::nullopt;
    text.remove_prefix(std::min(text.size(), used + 1));
  }
  return numbers;
}

std::vector<int64_t> read_tuple(std::string_view text) {
  const bool has_brackets = text.size() > 2 && text.starts_with('(') && text.ends_with(')');
  auto numbers = has_brackets ? read_numbers(text.substr(1, text.size() - 2)) : std::nullopt;
  MISTRAL_EXT_CHECK(numbers,
                    "generation_config: {} must have keys such as \"(3, 4)\", got \"{}\"",
                    kName,
                    io::printable(text));
  return *std::move(numbers);
}

}  // namespace

int64_t to_token(const ConfigValue& value, const char* name) {
  const auto* token = std::get_if<int64_t>(&value.value);
  MISTRAL_EXT_CHECK(
      token != nullptr, "generation_config: {} must hold token ids, got another value", name);
  return *token;
}

std::vector<int64_t> to_tokens(const ConfigValue& value, const char* name) {
  const auto* list = std::get_if<ConfigList>(&value.value);
  MISTRAL_EXT_CHECK(
      list != nullptr, "generation_config: {} must hold lists, got another value", name);
  std::vector<int64_t> tokens;
  for (const auto& item : *list) tokens.push_back(to_token(item, name));
  return tokens;
}

std::vector<BiasedSequence> read_sequence_bias(const ConfigMap& map) {
  const auto found = map.find(kName);
  if (found == map.end() || found->second.is_null()) return {};
  std::vector<BiasedSequence> sequences;
  std::map<std::vector<int64_t>, size_t> places;
  const auto add = [&](std::vector<int64_t> tokens, double bias) {
    const auto [place, is_new] = places.emplace(std::move(tokens), sequences.size());
    if (is_new) sequences.push_back({place->first, bias});
    sequences[place->second].bias = bias;
  };
  if (const auto* pairs = std::get_if<ConfigMap>(&found->second.value)) {
    for (const auto& [key, bias] : *pairs) add(read_tuple(key), to_bias(bias));
    return sequences;
  }
  const auto* list = std::get_if<ConfigList>(&found->second.value);
  MISTRAL_EXT_CHECK(
      list != nullptr, "generation_config: {} must be a list, got another value", kName);
  for (const auto& item : *list) {
    const auto* pair = std::get_if<ConfigList>(&item.value);
    MISTRAL_EXT_CHECK(pair != nullptr && pair->size() == 2,
                      "generation_config: {} must hold pairs of a list and a bias, got others",
                      kName);
    add(to_tokens((*pair)[0], kName), to_bias((*pair)[1]));
  }
  return sequences;
}

}  // namespace mistral_ext::generation
