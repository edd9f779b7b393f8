#include "mistral_ext/parallel/process_identity.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <optional>
#include <sstream>

namespace mistral_ext::parallel {
namespace {

// The file's first bytes: those of /proc are short.
std::optional<std::string> read_text(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  std::array<char, 1024> text{};
  const auto bytes = ::read(file, text.data(), text.size());
  ::close(file);
  if (bytes < 0) return std::nullopt;
  return std::string(text.data(), static_cast<size_t>(bytes));
}

struct Status {
  char state = '?';
  int64_t threads = 0;
  uint64_t started = 0;
};

std::optional<Status> status_of(int64_t pid) {
  const auto text = read_text(fmt::format("/proc/{}/stat", pid));
  if (!text) return std::nullopt;
  // The second field is the program's name in brackets, which may hold anything.
  const auto name_end = text->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text->substr(name_end + 1));
  Status status;
  std::string skipped;
  // Fields 3, 20 and 22 of proc(5).
  fields >> status.state;
  for (int field = 4; field < 20; ++field) fields >> skipped;
  fields >> status.threads >> skipped >> status.started;
  return fields.fail() ? std::nullopt : std::optional(status);
}

}  // namespace

ProcessIdentity this_process() {
  const int64_t pid = ::getpid();
  const auto status = status_of(pid);
  return {pid, status ? status->started : 0};
}

bool has_ended(const ProcessIdentity& process) {
  const auto status = status_of(process.pid);
  if (!status || process.started == 0) {
    return ::kill(static_cast<pid_t>(process.pid), 0) != 0 && errno == ESRCH;
  }
  if (status->started != process.started) return true;
  // The thread that began the process may be gone while others run on.
  return (status->state == 'Z' || status->state == 'X') && status->threads <= 1;
}

std::string this_host() {
  auto host = read_text("/proc/sys/kernel/random/boot_id").value_or("");
  while (!host.empty() && host.back() == '\n') host.pop_back();
  std::array<char, 64> name{};
  const auto length = ::readlink("/proc/self/ns/pid", name.data(), name.size());
  if (length > 0) host.append("/").append(name.data(), static_cast<size_t>(length));
  return host;
}

}  // namespace mistral_ext::parallel
