#include "mistral_ext/parallel/shared_segment.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <random>
#include <sstream>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include "mistral_ext/core/check.h"
#include "mistral_ext/parallel/futex.h"
#include "mistral_ext/parallel/store_wait.h"

namespace mistral_ext::parallel {
namespace {

constexpr uint32_t kNone = 0;
constexpr uint32_t kBeingWritten = 1;
constexpr uint32_t kWritten = 2;

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr std::string_view kAccepted = "all have mapped it";

std::string system_message(const char* call) {
  const int error = errno;
  return fmt::format("{} failed: {}", call, std::generic_category().message(error));
}

// What no other group has: so that memory found under a number is known to be this group's.
std::string random_token() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

// How rank 0 offers the memory to the others.
struct Offer {
  std::string token;
  int64_t pid = 0;
  int file = -1;
  std::string host;

  std::string text() const { return fmt::format("{} {} {} {}", token, pid, file, host); }

  static std::optional<Offer> read(const std::string& text) {
    Offer offer;
    std::istringstream stream(text);
    stream >> offer.token >> offer.pid >> offer.file >> offer.host;
    if (stream.fail()) return std::nullopt;
    return offer;
  }
};

std::string joined_key(int rank) { return fmt::format("joined/{}", rank); }
std::string told_key(int rank) { return fmt::format("told/{}", rank); }

// Rank 0 may end, and the store with it, as soon as it is through: not before the others have read
// how it went. One that is gone is not waited for long.
void wait_until_told(c10d::Store& store, int size, const std::vector<int>& missing) {
  const auto deadline = Clock::now() + std::chrono::seconds(1);
  for (int other = 1; other < size; ++other) {
    if (std::find(missing.begin(), missing.end(), other) != missing.end()) continue;
    wait_for_value(store, told_key(other), deadline);
  }
}

}  // namespace

struct SharedSegment::Header {
  std::array<char, 32> token;
  int32_t size;
  std::atomic<uint32_t> failure;
  std::array<char, 2048> message;
};

SharedSegment::SharedSegment(c10d::Store& store,
                             int rank,
                             int size,
                             const std::string& group,
                             std::chrono::milliseconds timeout)
    : size_(size) {
  static_assert(std::is_trivially_destructible_v<RankState>);
  MISTRAL_EXT_CHECK(size >= 1 && size <= kMostRanks && rank >= 0 && rank < size,
                    "mistral_shm: rank must be below the number of ranks, at most {}, got {} of {}",
                    kMostRanks,
                    rank,
                    size);
  static_assert(sizeof(RankState) % alignof(RankState) == 0 && sizeof(Header) <= 4096);
  bytes_ = 4096 + static_cast<size_t>(size) * (sizeof(RankState) + 2 * kBufferBytes);
  const auto deadline = Clock::now() + timeout;
  const auto label = fmt::format("mistral_shm: rank {} of group {}", rank, group);
  const auto late = [&](const std::vector<int>& ranks) {
    return fmt::format("mistral_shm: group {}: {} did not come within {} ms",
                       group,
                       list_ranks(ranks),
                       timeout.count());
  };
  int file = -1;
  std::string verdict;
  try {
    if (rank == 0) {
      const auto token = random_token();
      const auto problem = create(file, token);
      store.set("memory",
                problem.empty() ? Offer{token, ::getpid(), file, this_host()}.text() : "none");
      std::vector<int> missing;
      for (int other = 1; other < size; ++other) {
        const auto answer = wait_for_value(store, joined_key(other), deadline);
        if (!answer) missing.push_back(other);
        if (answer && *answer != kAccepted && verdict.empty()) verdict = *answer;
      }
      if (!missing.empty()) verdict = late(missing);
      if (!problem.empty()) verdict = fmt::format("{}: cannot make the memory: {}", label, problem);
      if (verdict.empty()) verdict = kAccepted;
      store.set("verdict", verdict);
      wait_until_told(store, size, missing);
    } else {
      const auto offer = wait_for_value(store, "memory", deadline);
      if (offer) {
        const auto problem = join(*offer);
        if (problem.empty()) state(rank).process = this_process();
        store.set(joined_key(rank),
                  problem.empty() ? std::string(kAccepted) : fmt::format("{} {}", label, problem));
      }
      const auto answer = wait_for_value(store, "verdict", deadline);
      store.set(told_key(rank), "yes");
      std::vector<int> missing;
      for (int other = offer ? 1 : size; !answer && other < size; ++other) {
        if (!store.check({joined_key(other)})) missing.push_back(other);
      }
      if (missing.empty()) missing.push_back(0);
      verdict = answer ? *answer : late(missing);
    }
  } catch (const std::exception& error) {
    verdict = fmt::format("{}: its store failed: {}", label, message_of(error));
  }
  if (file >= 0) ::close(file);
  if (verdict == kAccepted) return;
  if (memory_ != nullptr) ::munmap(memory_, bytes_);
  C10_THROW_ERROR(DistBackendError, verdict);
}

SharedSegment::~SharedSegment() { ::munmap(memory_, bytes_); }

std::string SharedSegment::create(int& file, const std::string& token) {
  file = ::memfd_create("mistral_shm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) return system_message("memfd_create");
  // Sealed, so that no rank can make another read where there is no memory any more.
  if (::fchmod(file, S_IRUSR | S_IWUSR) != 0) return system_message("fchmod");
  if (::ftruncate(file, static_cast<off_t>(bytes_)) != 0) return system_message("ftruncate");
  if (::fcntl(file, F_ADD_SEALS, kSeals) != 0) return system_message("fcntl");
  return map(file, token, true);
}

std::string SharedSegment::join(const std::string& text) {
  const auto offer = Offer::read(text);
  if (!offer) return "got no memory from rank 0";
  std::string elsewhere =
      "is on another host or in another container than rank 0; mistral_shm is for the ranks of "
      "one host, use gloo";
  if (offer->host != this_host()) return elsewhere;
  const auto path = fmt::format("/proc/{}/fd/{}", offer->pid, offer->file);
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) {
    return fmt::format(
        "cannot open the memory of rank 0 ({}): {}; where ranks may not see each "
        "other's files, use gloo",
        path,
        system_message("open"));
  }
  auto problem = map(file, offer->token, false);
  ::close(file);
  return problem;
}

std::string SharedSegment::map(int file, const std::string& token, bool fresh) {
  struct stat status{};
  if (::fstat(file, &status) != 0) return system_message("fstat");
  if (static_cast<size_t>(status.st_size) != bytes_ || ::fcntl(file, F_GET_SEALS) != kSeals) {
    return "got memory that is not this group's from rank 0";
  }
  void* const memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return system_message("mmap");
  memory_ = static_cast<std::byte*>(memory);
  auto& head = header();
  if (fresh) {
    new (&head) Header{};
    for (int rank = 0; rank < size_; ++rank) new (&state(rank)) RankState{};
    std::copy(token.begin(), token.end(), head.token.begin());
    head.size = size_;
    state(0).process = this_process();
  } else if (head.size != size_ ||
             !std::equal(token.begin(), token.end(), head.token.begin(), head.token.end())) {
    return "got memory that is not this group's from rank 0";
  }
  return "";
}

SharedSegment::Header& SharedSegment::header() const {
  return *std::launder(reinterpret_cast<Header*>(memory_));
}

RankState& SharedSegment::state(int rank) const {
  auto* const states = reinterpret_cast<RankState*>(memory_ + 4096);
  return *std::launder(states + rank);
}

std::byte* SharedSegment::buffer(int rank, uint64_t round) const {
  const auto index = 2 * static_cast<size_t>(rank) + (round & 1);
  return memory_ + bytes_ - (2 * static_cast<size_t>(size_) - index) * kBufferBytes;
}

std::string SharedSegment::record_failure(const std::string& text) const {
  auto& head = header();
  uint32_t expected = kNone;
  if (head.failure.compare_exchange_strong(expected, kBeingWritten)) {
    const auto length = std::min(text.size(), head.message.size() - 1);
    std::memcpy(head.message.data(), text.data(), length);
    head.message[length] = '\0';
    head.failure.store(kWritten);
    for (int rank = 0; rank < size_; ++rank) wake_all(state(rank).steps);
    return text;
  }
  // Whoever writes it is a few instructions from being done, or has ended.
  for (int i = 0; i < 100 && head.failure.load() == kBeingWritten; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const auto recorded = failure();
  return recorded.empty() ? text : recorded;
}

bool SharedSegment::has_failed() const {
  return header().failure.load(std::memory_order_relaxed) != kNone;
}

std::string SharedSegment::failure() const {
  const auto& head = header();
  if (head.failure.load() != kWritten) return "";
  return {head.message.data(), ::strnlen(head.message.data(), head.message.size())};
}

}  // namespace mistral_ext::parallel
