#include "mistral_ext/io/prepacked_file.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/checksum.h"
#include "mistral_ext/io/config_file.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/on_threads.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/io/safetensors_dtype.h"

namespace mistral_ext::io {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPage = 4096;

// The fields of __metadata__. Whatever changes the meaning of another one changes the version.
constexpr const char* kFormat = "format";
constexpr const char* kFormatName = "mistral_ext.prepacked";
constexpr const char* kVersion = "format_version";
constexpr const char* kVersionRead = "1";
// "separate": a parameter is a tensor of its own, under Hugging Face's name.
constexpr const char* kLayout = "layout";
constexpr const char* kLayoutRead = "separate";
// Which part of the model the file holds, of how many.
constexpr const char* kRank = "rank";
constexpr const char* kWorldSize = "world_size";
constexpr const char* kConfig = "config";
constexpr const char* kHeaderChecksum = "header_xxh3";
constexpr std::string_view kTensorChecksum = "xxh3:";  // and the tensor's name
constexpr std::string_view kPadding = "padding.";      // tensors that hold nothing

using Metadata = std::map<std::string, std::string>;

// Of all that the header says but the checksum itself. Offsets count from the first tensor.
class HeaderChecksum {
 public:
  void add(const std::string& name, const TensorInfo& info, int64_t offset) {
    add_text(name);
    add_text(std::string(safetensors_name(info.dtype).value_or("")));
    for (const int64_t dimension : info.shape) add_number(dimension);
    add_number(-1);
    add_number(offset);
  }
  std::string finish(const Metadata& metadata) {
    for (const auto& [key, value] : metadata) {
      if (key == kHeaderChecksum) continue;
      add_text(key);
      add_text(value);
    }
    return checksum_of(text_.data(), std::ssize(text_));
  }

 private:
  void add_number(int64_t number) { fmt::format_to(std::back_inserter(text_), "{} ", number); }
  void add_text(const std::string& text) {
    add_number(std::ssize(text));
    text_ += text;
  }

  std::string text_;
};

int64_t alignment_of_size(const at::Tensor& tensor) {
  const auto bytes = tensor.nbytes();
  return bytes == 0 ? kPage : std::min<int64_t>(kPage, int64_t{1} << std::countr_zero(bytes));
}

// Those whose sizes are whole pages first, and so on: each then begins at a multiple of what its
// own size is one of. What is no multiple of kAlignment is filled up to one.
NamedTensors in_places(NamedTensors tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return alignment_of_size(a.second) > alignment_of_size(b.second);
  });
  NamedTensors placed;
  for (auto& entry : tensors) {
    const auto over = static_cast<int64_t>(entry.second.nbytes()) % kAlignment;
    placed.push_back(std::move(entry));
    if (over == 0) continue;
    placed.emplace_back(fmt::format("{}{}", kPadding, placed.size()),
                        at::zeros(kAlignment - over, at::kByte));
  }
  return placed;
}

}  // namespace

PrepackedFile::PrepackedFile(const std::filesystem::path& path) : file_(path) {
  check_version();
  check_header();
  check_field(kLayout, kLayoutRead);
  check_field(kRank, "0");
  check_field(kWorldSize, "1");
  for (const auto& [name, stored] : file_.tensors()) {
    if (name.starts_with(kPadding)) continue;
    MISTRAL_EXT_CHECK(stored.offset % kAlignment == 0,
                      "{}: {} must begin at a multiple of {} bytes, got {}",
                      label(),
                      printable(name),
                      kAlignment,
                      stored.offset);
    names_.push_back(name);
  }
  config_ = parse_config(config_text(), label() + ": config");
}

const std::string& PrepackedFile::config_text() const { return field(kConfig); }

const std::string& PrepackedFile::field(const std::string& name) const {
  const auto found = file_.metadata().find(name);
  MISTRAL_EXT_CHECK(found != file_.metadata().end(),
                    "{}: __metadata__: {} must be given, got none",
                    label(),
                    printable(name));
  return found->second;
}

void PrepackedFile::check_field(const std::string& name, std::string_view value) const {
  MISTRAL_EXT_CHECK(field(name) == value,
                    "{}: __metadata__: {} must be \"{}\", got \"{}\"",
                    label(),
                    name,
                    value,
                    printable(field(name)));
}

void PrepackedFile::check_version() const {
  check_field(kFormat, kFormatName);
  MISTRAL_EXT_CHECK(field(kVersion) == kVersionRead,
                    "{}: __metadata__: {} must be {}, got {}: this release reads no other; save "
                    "the model with it again",
                    label(),
                    kVersion,
                    kVersionRead,
                    printable(field(kVersion)));
}

void PrepackedFile::check_header() const {
  HeaderChecksum header;
  const auto& tensors = file_.tensors();
  int64_t begin = tensors.empty() ? 0 : tensors.begin()->second.offset;
  for (const auto& [name, stored] : tensors) begin = std::min(begin, stored.offset);
  for (const auto& [name, stored] : tensors) header.add(name, stored.info, stored.offset - begin);
  MISTRAL_EXT_CHECK(header.finish(file_.metadata()) == field(kHeaderChecksum),
                    "{}: the header must have the checksum {}, got another: it is damaged",
                    label(),
                    printable(field(kHeaderChecksum)));
}

const std::string& PrepackedFile::header_checksum() const { return field(kHeaderChecksum); }

void PrepackedFile::verify() const {
  on_threads(at::get_num_threads(), std::ssize(names_), [&](int64_t i) {
    const auto& stored = file_.tensors().at(names_[i]);
    const auto found = checksum_of(file_.bytes(stored), stored.bytes);
    const auto& expected = field(std::string(kTensorChecksum) + names_[i]);
    MISTRAL_EXT_CHECK(found == expected,
                      "{}: {} must have the checksum {}, got {}: its bytes are damaged",
                      label(),
                      printable(names_[i]),
                      printable(expected),
                      found);
  });
}

void write_prepacked(AtomicFile& file, const ConfigMap& config, const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) check_writable(file, name, tensor);
  const auto placed = in_places(tensors);
  Metadata metadata = {{kFormat, kFormatName},
                       {kVersion, kVersionRead},
                       {kLayout, kLayoutRead},
                       {kRank, "0"},
                       {kWorldSize, "1"},
                       {kConfig, to_json(config, file.label(), /*indented=*/false)}};
  HeaderChecksum header;
  std::map<std::string, int64_t> offsets;
  int64_t offset = 0;
  for (const auto& [name, tensor] : placed) {
    offsets[name] = offset;
    offset += static_cast<int64_t>(tensor.nbytes());
    if (name.starts_with(kPadding)) continue;
    const auto piece = in_one_piece(tensor);
    metadata[std::string(kTensorChecksum) + name] =
        checksum_of(piece.const_data_ptr(), static_cast<int64_t>(piece.nbytes()));
  }
  const std::map<std::string, at::Tensor> sorted(placed.begin(), placed.end());
  for (const auto& [name, tensor] : sorted) {
    header.add(name, {tensor.scalar_type(), tensor.sizes().vec()}, offsets.at(name));
  }
  metadata[kHeaderChecksum] = header.finish(metadata);
  write_safetensors(file, placed, metadata, kPage);
}

}  // namespace mistral_ext::io
