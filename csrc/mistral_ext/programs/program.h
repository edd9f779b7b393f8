#pragma once

#include <functional>
#include <stdexcept>
#include <string>

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace mistral_ext::programs {

// What a program ends with. A signal that nothing here handles ends it as it ends any other.
inline constexpr int kFailed = 1;
inline constexpr int kWrongUse = 2;
inline constexpr int kInterrupted = 130;

// An argument that cannot be used; the message is one line that names it.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Gives the program --version, reads its arguments, calls `run`, and returns the exit code. Where
// something is wrong, that is one line on stderr, and nothing else.
int run_program(CLI::App& app, int argc, const char* const* argv, const std::function<void()>& run);

// A line on stderr that begins with the program's name.
void tell(const CLI::App& app, const std::string& line);

}  // namespace mistral_ext::programs
