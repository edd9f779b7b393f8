// Gives the files of the folders it is called with to a fuzz target, one by one: the corpus as an
// ordinary test, with no fuzzer.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "fuzz.h"

int main(int count, char** arguments) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < count; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(arguments[i])) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  for (const auto& path : files) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    // What comes after the last line is the input that failed.
    fmt::print("{}\n", path.filename().string());
    std::fflush(stdout);
    // In memory of its own, so that the sanitizers see a read beyond it.
    const std::vector<uint8_t> copy(bytes.begin(), bytes.end());
    LLVMFuzzerTestOneInput(copy.data(), copy.size());
  }
  fmt::print("{} inputs passed\n", files.size());
  return files.empty() ? 1 : 0;
}
