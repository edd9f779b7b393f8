#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>

#include "io/temporary_folder.h"
#include "mistral_ext/io/safetensors_file.h"
#include "mistral_ext/io/sharded_safetensors.h"
#include "mistral_ext/io/write_safetensors.h"

namespace mistral_ext::io {
namespace {

void write(const std::filesystem::path& path, const StateDict& tensors) {
  AtomicFile file(path);
  write_safetensors(file, tensors);
  file.finish();
  file.commit();
}

// Beyond a piece of what is converted at once, in each dtype.
StateDict some_tensors() {
  torch::manual_seed(0);
  return {{"matrix", torch::randn({600, 700}).to(at::kBFloat16)},
          {"cube", torch::randn({7, 5, 3}).to(at::kHalf)},
          {"vector", torch::randn({100'003})}};
}

void expect_parts(const TensorSource& source, const StateDict& tensors) {
  for (const auto& [name, tensor] : tensors) {
    for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
      const int64_t size = tensor.size(dim);
      for (const auto& [start, length] : std::vector<std::pair<int64_t, int64_t>>{
               {0, size}, {0, size / 2}, {size / 2, size - size / 2}, {size, 0}, {1, 1}}) {
        const TensorPart part{dim, start, length};
        const auto expected = tensor.narrow(dim, start, length);
        EXPECT_EQ(source.shape_of(name, part), expected.sizes().vec());
        EXPECT_TRUE(torch::equal(source.slice(name, part), expected)) << name << dim << start;
        for (const auto dtype : {tensor.scalar_type(), at::kFloat, at::kDouble}) {
          const auto read = source.converted(name, dtype, at::kCPU, part);
          EXPECT_TRUE(read.is_contiguous());
          EXPECT_TRUE(torch::equal(read, expected.to(dtype))) << name << dim << start << dtype;
        }
      }
    }
  }
}

TEST(TensorPart, PartsOfAFileAreThoseOfTheTensor) {
  const TemporaryFolder folder;
  const auto tensors = some_tensors();
  write(folder.path() / "file", tensors);
  expect_parts(SafetensorsFile(folder.path() / "file"), tensors);
}

TEST(TensorPart, PartsOfSeveralFilesAreThoseOfTheTensor) {
  const TemporaryFolder folder;
  const auto tensors = some_tensors();
  std::string map;
  for (const auto& [name, tensor] : tensors) {
    write(folder.path() / (name + ".safetensors"), {{name, tensor}});
    map += (map.empty() ? "\"" : ", \"") + name + "\": \"" + name + ".safetensors\"";
  }
  const auto index = folder.write("index.json", "{\"weight_map\": {" + map + "}}");
  expect_parts(ShardedSafetensors(index), tensors);
}

TEST(TensorPart, ASliceIsTheFilesOwnMemoryAndUpdatesStayOutOfTheFile) {
  const TemporaryFolder folder;
  const auto tensors = some_tensors();
  write(folder.path() / "file", tensors);
  const SafetensorsFile file(folder.path() / "file");
  const auto slice = file.slice("matrix", {0, 10, 5});
  EXPECT_TRUE(slice.is_contiguous());
  EXPECT_EQ(slice.data_ptr(), file.tensor("matrix").narrow(0, 10, 5).data_ptr());
  slice.add_(1);
  EXPECT_TRUE(torch::equal(file.converted("matrix", at::kBFloat16, at::kCPU, TensorPart{0, 10, 5}),
                           tensors.at("matrix").narrow(0, 10, 5)));
}

TEST(TensorPart, APartReadsNoOtherBytes) {
  const TemporaryFolder folder;
  const auto tensors = some_tensors();
  const auto path = folder.path() / "file";
  write(path, tensors);
  const SafetensorsFile file(path);
  // Cut short behind the header's check: reading beyond the part would be noticed.
  const auto& stored = file.tensors().at("matrix");
  std::filesystem::resize_file(path, stored.offset + stored.bytes / 2);
  EXPECT_TRUE(torch::equal(file.converted("matrix", at::kFloat, at::kCPU, TensorPart{0, 0, 300}),
                           tensors.at("matrix").narrow(0, 0, 300).to(at::kFloat)));
  EXPECT_THROW(file.converted("matrix", at::kFloat, at::kCPU, TensorPart{0, 0, 301}),
               c10::ValueError);
}

TEST(TensorPart, APartThatIsNotThereIsNamed) {
  const TemporaryFolder folder;
  write(folder.path() / "file", {{"t", torch::ones({4, 3})}});
  const SafetensorsFile file(folder.path() / "file");
  const auto message = [&](const std::string& name, TensorPart part) {
    return message_of(folder, [&] { file.slice(name, part); });
  };
  EXPECT_EQ(message("t", {2, 0, 1}), "load: file: t: a part's dim must be in [0, 2), got 2");
  EXPECT_EQ(message("t", {-1, 0, 1}), "load: file: t: a part's dim must be in [0, 2), got -1");
  EXPECT_EQ(message("t", {0, 3, 2}),
            "load: file: t: a part must lie in the 4 entries of dimension 0, got 2 from 3 on");
  EXPECT_EQ(message("t", {1, -1, 2}),
            "load: file: t: a part must lie in the 3 entries of dimension 1, got 2 from -1 on");
  EXPECT_EQ(message("t", {0, 1, INT64_MAX}),
            "load: file: t: a part must lie in the 4 entries of dimension 0, got "
            "9223372036854775807 from 1 on");
  EXPECT_EQ(message("u", {0, 0, 1}), "load: file: u must be there, got none");
  EXPECT_EQ(message_of(folder, [&] { file.read("t", torch::empty({3, 4}), std::nullopt); }),
            "load: file: t: the result must be contiguous of shape [4, 3], got [3, 4]");
}

}  // namespace
}  // namespace mistral_ext::io
