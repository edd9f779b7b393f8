// What stands where a file is expected, and disks that are full: every reader goes through File and
// every writer through AtomicFile.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "io/child_process.h"
#include "io/temporary_folder.h"
#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/checkpoint_index.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/safetensors_file.h"

namespace mistral_ext::io {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void save(const fs::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text.data(), std::ssize(text));
  file.finish();
  file.commit();
}

size_t files_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(UnusualFiles, WhatIsNoFileIsRefusedByEveryReaderAndNeverWaitedFor) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path() / "folder");
  ASSERT_EQ(::mkfifo((folder.path() / "pipe").c_str(), 0600), 0);
  // Reading it would never end.
  fs::create_symlink("/dev/zero", folder.path() / "device");
  fs::create_symlink("two", folder.path() / "one");
  fs::create_symlink("one", folder.path() / "two");
  const std::string loop = "must be a readable file, got \"Too many levels of symbolic links\"";
  for (const auto& [name, rule] :
       {std::pair<std::string, std::string>("folder", "must be a regular file, got a folder"),
        {"pipe", "must be a regular file, got something else"},
        {"device", "must be a regular file, got something else"},
        {"one", loop},
        {"folder/none", "must be a readable file, got \"No such file or directory\""},
        {"one/none", loop}}) {
    const auto path = folder.path() / name;
    const auto expected = "load: " + name + ": " + rule;
    EXPECT_EQ(message_of(folder, [&] { read_config_file(path); }), expected);
    EXPECT_EQ(message_of(folder, [&] { read_checkpoint_index(path); }), expected);
    EXPECT_EQ(message_of(folder, [&] { SafetensorsFile{path}; }), expected);
  }
}

TEST(UnusualFiles, AFileThatMayNotBeReadIsNamed) {
  const TemporaryFolder folder;
  const auto path = folder.write("locked", "{}");
  fs::permissions(folder.path(), fs::perms(0755));
  fs::permissions(path, fs::perms::none);
  const auto answer = in_child([&]() -> std::string {
    // Nothing is locked for root.
    if (::geteuid() == 0 && ::setuid(65534) != 0) return "root";
    return message_of(folder, [&] { read_config_file(path); });
  });
  if (answer == "root") GTEST_SKIP() << "root that cannot be another user reads every file";
  EXPECT_EQ(answer, "load: locked: must be a readable file, got \"Permission denied\"");
}

TEST(UnusualFiles, AFolderThatMayNotBeWrittenKeepsItsFile) {
  const TemporaryFolder folder;
  const auto path = folder.write("file", "old");
  fs::permissions(folder.path(), fs::perms(0555));
  const auto answer = in_child([&]() -> std::string {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return "root";
    return message_of(folder, [&] { save(path, "new"); });
  });
  fs::permissions(folder.path(), fs::perms(0755));
  if (answer == "root") GTEST_SKIP() << "root that cannot be another user writes to every folder";
  EXPECT_EQ(answer, "save: file: must be a file that can be written, got \"Permission denied\"");
  EXPECT_EQ(content(path), "old");
}

TEST(UnusualFiles, AFullDiskLeavesTheOldFileWholeAndNothingBeside) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "file";
  const auto answer = in_child([&]() -> std::string {
    // A disk of its own for this process, seen by no other.
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, "size=65536") != 0) {
      return "no disk";
    }
    save(path, "old");
    const auto message = message_of(folder, [&] { save(path, std::string(70'000, 'x')); });
    const bool kept = content(path) == "old" && files_in(folder.path()) == 1;
    // It has room again.
    save(path, "new");
    return message + (kept && content(path) == "new" ? "" : ", and lost a file");
  });
  if (answer == "no disk") GTEST_SKIP() << "this user may not mount a disk of its own";
  EXPECT_EQ(answer,
            "save: file: must be a file that can be written, got \"No space left on device\"");
}

TEST(UnusualFiles, AFolderWhereAFileIsToBeSavedStays) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path() / "file");
  EXPECT_EQ(message_of(folder, [&] { save(folder.path() / "file", "new"); }),
            "save: file: must be a file that can be written, got \"Is a directory\"");
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(UnusualFiles, AFileThatIsNotCommittedLeavesTheOldOne) {
  const TemporaryFolder folder;
  const auto path = folder.write("file", "old");
  {
    AtomicFile file(path);
    file.write("new", 3);
    file.finish();
    EXPECT_EQ(content(path), "old");
  }
  EXPECT_EQ(content(path), "old");
  EXPECT_EQ(files_in(folder.path()), 1);
}

}  // namespace
}  // namespace mistral_ext::io
