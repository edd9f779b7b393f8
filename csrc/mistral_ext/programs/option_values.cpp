#include "mistral_ext/programs/option_values.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

namespace mistral_ext::programs {
namespace {

template <typename Number>
std::optional<Number> read(const std::string& text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

CLI::Validator number(const char* rule, bool (*allowed)(double)) {
  auto check = [=](std::string& text) -> std::string {
    const auto value = read<double>(text);
    if (value && allowed(*value)) return {};
    return fmt::format("must be a number {}, got '{}'", rule, text);
  };
  return {std::move(check), "NUMBER"};
}

}  // namespace

CLI::Validator integer(int64_t least, int64_t most) {
  auto check = [=](std::string& text) -> std::string {
    const auto value = read<int64_t>(text);
    if (!value || *value < least || *value > most) {
      return fmt::format("must be an integer from {} to {}, got '{}'", least, most, text);
    }
    text = std::to_string(*value);  // CLI11 would take 010 for an octal number
    return {};
  };
  return {std::move(check), "N"};
}

CLI::Validator probability() {
  return number("in (0, 1]", [](double value) { return value > 0 && value <= 1; });
}

CLI::Validator share() {
  return number("in [0, 1]", [](double value) { return value >= 0 && value <= 1; });
}

CLI::Validator divisor() {
  return number("from 1e-6 to 1e6", [](double value) { return value >= 1e-6 && value <= 1e6; });
}

}  // namespace mistral_ext::programs
