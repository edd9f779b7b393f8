#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <string>

namespace mistral_ext::io {

// What `call` returns in a process of its own, which may give up rights or set limits. Empty where
// that process ended in another way.
inline std::string in_child(const std::function<std::string()>& call) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return "";
  const pid_t child = ::fork();
  if (child == 0) {
    std::string answer;
    try {
      answer = call();
    } catch (const std::exception& error) {
      answer = std::string("threw: ") + error.what();
    }
    const auto written = ::write(ends[1], answer.data(), answer.size());
    ::_exit(written == static_cast<ssize_t>(answer.size()) ? 0 : 1);
  }
  ::close(ends[1]);
  std::string answer;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
    answer.append(buffer.data(), static_cast<size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return "";
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? answer : "";
}

}  // namespace mistral_ext::io
