// Saves that fail midway, of checkpoints in several files too: the folder keeps what it had.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include "io/child_process.h"
#include "io/temporary_folder.h"
#include "mistral_ext/models/load_pretrained.h"
#include "mistral_ext/models/prepacked.h"
#include "mistral_ext/models/save_pretrained.h"
#include "models/tiny_model.h"

namespace {

// Some file systems cannot do it.
bool names_are_exchanged = true;

}  // namespace

// Stands before the system's for the library too.
extern "C" int renameat2(
    int from_folder, const char* from, int folder, const char* to, unsigned how) {
  if (!names_are_exchanged) {
    errno = EINVAL;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_renameat2, from_folder, from, folder, to, how));
}

namespace mistral_ext::models {
namespace {

using io::message_of;
using io::TemporaryFolder;

// Everything that a folder holds; of folders in it, that they are there.
std::map<std::string, std::string> contents(const std::filesystem::path& folder) {
  std::map<std::string, std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    auto& content = found[entry.path().filename()];
    if (entry.is_directory()) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    content = {std::istreambuf_iterator<char>(file), {}};
  }
  return found;
}

std::shared_ptr<MistralForCausalLM> other_model() {
  auto other = std::make_shared<MistralForCausalLM>(tiny_config());
  io::StateDict state;
  for (const auto& [name, weight] : state_dict(*tiny_model())) state.emplace(name, weight + 1);
  load_parameters(*other, state);
  return other;
}

constexpr int64_t kSmallShard = 16'000;

TEST(FailingSaves, AFileOfSeveralThatCannotBeWrittenLeavesTheOldOnesAndNothingElse) {
  std::signal(SIGXFSZ, SIG_IGN);
  for (const bool old_in_several : {false, true}) {
    const TemporaryFolder folder;
    save_pretrained(*tiny_model(),
                    folder.path(),
                    {{"mark", {"old"}}},
                    {.max_shard_size = old_in_several ? kSmallShard : kSmallShard * 1000});
    const auto before = contents(folder.path());
    const auto other = other_model();
    // A limit of the files' size stands for the disk's: no file, then some of them, then all but
    // the last fit.
    const TemporaryFolder measured;
    save_pretrained(*other, measured.path(), {}, {.max_shard_size = kSmallShard});
    std::set<size_t> sizes = {1};
    for (const auto& [name, bytes] : contents(measured.path())) sizes.insert(bytes.size() - 1);
    ASSERT_GT(sizes.size(), 4);
    for (const auto size : sizes) {
      rlimit unlimited{};
      ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &unlimited), 0);
      const rlimit limit{size, unlimited.rlim_max};
      ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
      const auto message = message_of(folder, [&] {
        save_pretrained(*other, folder.path(), {}, {.max_shard_size = kSmallShard});
      });
      ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &unlimited), 0);
      EXPECT_TRUE(message.starts_with("save: model-0") &&
                  message.ends_with(": must be a file that can be written, got \"File too large\""))
          << message;
      ASSERT_EQ(contents(folder.path()), before) << size;
    }
    EXPECT_TRUE(same_weights(*load_pretrained(folder.path()), *tiny_model()));
    save_pretrained(*other, folder.path(), {}, {.max_shard_size = kSmallShard});
    EXPECT_TRUE(same_weights(*load_pretrained(folder.path()), *other));
  }
}

TEST(FailingSaves, ADiskThatIsFullBeforeTheLastFileLeavesTheOldOnesAndNothingElse) {
  const TemporaryFolder folder;
  const auto model = tiny_model();
  const auto answer = io::in_child([&]() -> std::string {
    // A disk of its own for this process, seen by no other, with room for the files once and a
    // half.
    const TemporaryFolder measured;
    save_pretrained(*model, measured.path(), {}, {.max_shard_size = kSmallShard});
    size_t bytes = 0;
    for (const auto& [name, content] : contents(measured.path())) bytes += content.size();
    const auto size = "size=" + std::to_string(bytes * 3 / 2);
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, size.c_str()) != 0) {
      return "no disk";
    }
    const auto save = [&] {
      save_pretrained(*model, folder.path(), {}, {.max_shard_size = kSmallShard});
    };
    save();
    const auto before = contents(folder.path());
    const auto message = message_of(folder, save);
    return message + (contents(folder.path()) == before ? "" : ", and changed a file");
  });
  if (answer == "no disk") GTEST_SKIP() << "this user may not mount a disk of its own";
  EXPECT_TRUE(answer.starts_with("save: model-0") &&
              answer.ends_with("that can be written, got \"No space left on device\""))
      << answer;
}

TEST(FailingSaves, AFolderInAFilesPlaceLeavesTheOldFiles) {
  for (const auto* name :
       {"config.json", "generation_config.json", "model.safetensors.index.json"}) {
    for (const auto most : {kSmallShard, kSmallShard * 1000}) {
      const TemporaryFolder folder;
      save_pretrained(*tiny_model(), folder.path());
      std::filesystem::remove(folder.path() / name);
      std::filesystem::create_directories(folder.path() / name / "inside");
      const auto before = contents(folder.path());
      const auto message = message_of(folder, [&] {
        save_pretrained(*other_model(),
                        folder.path(),
                        {},
                        {.max_shard_size = most, .generation_config = ConfigMap()});
      });
      EXPECT_TRUE(message.starts_with(fmt::format("save: {}: must be a file that can be ", name)) &&
                  message.ends_with("got \"Is a directory\""))
          << message;
      EXPECT_EQ(contents(folder.path()), before) << name;
    }
  }
}

// In a folder such as /tmp a user replaces only what is his.
class FileOfAnotherUser : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { names_are_exchanged = GetParam(); }
  void TearDown() override { names_are_exchanged = true; }
};
INSTANTIATE_TEST_SUITE_P(NamesAreExchanged, FileOfAnotherUser, testing::Bool());

TEST_P(FileOfAnotherUser, ThatMayNotBeReplacedLeavesTheOldFiles) {
  const TemporaryFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  const auto inside = folder.path() / "model";
  for (const auto most : {kSmallShard, kSmallShard * 1000}) {
    save_pretrained(*tiny_model(), inside);
    std::filesystem::permissions(inside, std::filesystem::perms(01777));
    const auto weights = inside / "model.safetensors";
    if (::geteuid() != 0 || ::chown(weights.c_str(), 65534, 65534) != 0) {
      GTEST_SKIP() << "only root can be another user";
    }
    const auto before = contents(inside);
    const auto answer = io::in_child([&]() -> std::string {
      if (::setuid(65534) != 0) return "root";
      return message_of(
          folder, [&] { save_pretrained(*other_model(), inside, {}, {.max_shard_size = most}); });
    });
    if (answer == "root") GTEST_SKIP() << "only root can be another user";
    save_pretrained(*tiny_model(), folder.path() / "new");  // where nothing is in the way
    EXPECT_EQ(answer,
              "save: model/config.json: must be a file that can be written, got \"Operation not "
              "permitted\"");
    EXPECT_EQ(contents(inside), before);
  }
}

// What is in a folder's list reaches the disk too, where the user may open it.
TEST(FailingSaves, AFolderThatMayNotBeListedIsWrittenTo) {
  const TemporaryFolder folder;
  const auto inside = folder.path() / "model";
  std::filesystem::create_directory(inside);
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  std::filesystem::permissions(inside, std::filesystem::perms(0333));
  const auto model = tiny_model();
  const auto answer = io::in_child([&]() -> std::string {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return "root";
    return message_of(folder, [&] { save_prepacked(*model, inside); });
  });
  std::filesystem::permissions(inside, std::filesystem::perms(0755));
  if (answer == "root") GTEST_SKIP() << "root that cannot be another user opens every folder";
  EXPECT_EQ(answer, "no error");
  EXPECT_TRUE(same_weights(*load_prepacked(inside), *model));
}

}  // namespace
}  // namespace mistral_ext::models
