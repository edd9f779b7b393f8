#include "mistral_ext/io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <utility>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/json.h"
#include "mistral_ext/io/printable.h"
#include "mistral_ext/io/safetensors_dtype.h"

namespace mistral_ext::io {
namespace {

// The format's own limit.
constexpr int64_t kMostHeaderBytes = 100'000'000;
constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMostDimensions = 64;
constexpr const char* kMetadata = "__metadata__";

// The levels of a header: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}.
constexpr int kNames = 1;
constexpr int kFields = 2;
constexpr int kNumbers = 3;

class HeaderReader : public JsonEvents {
 public:
  HeaderReader(const std::string& label, SafetensorsHeader& header)
      : label_(label), header_(header) {}

  void begin_object() override {
    check(depth_ < kFields, "must be of the form that the format has, got an object");
    ++depth_;
    if (depth_ == kFields) {
      dtype_.reset();
      shape_.reset();
      offsets_.reset();
      in_metadata_ = name_ == kMetadata;
    }
  }

  void key(std::string name) override {
    if (depth_ == kNames) {
      name_ = std::move(name);
      const bool is_new = name_ == kMetadata ? !std::exchange(has_metadata_, true)
                                             : !header_.tensors.contains(name_);
      check(is_new, "must be given once, got it twice");
    } else {
      field_ = std::move(name);
      check(in_metadata_ || field_ == "dtype" || field_ == "shape" || field_ == "data_offsets",
            "must be no field of a tensor, got it");
    }
  }

  void end_object() override {
    if (depth_ == kFields && !in_metadata_) add_tensor();
    --depth_;
    field_.clear();
  }

  void begin_array() override {
    check(depth_ == kFields && !in_metadata_,
          "must be of the form that the format has, got a list");
    check(field_ != "dtype", "must be a string, got a list");
    auto& numbers = field_ == "shape" ? shape_ : offsets_;
    check(!numbers.has_value(), "must be given once, got it twice");
    numbers.emplace();
    ++depth_;
  }

  void end_array() override { --depth_; }

  void scalar(JsonScalar value) override {
    if (depth_ == kNumbers) {
      add_number(value);
      return;
    }
    check(depth_ == kFields, "must be a JSON object, got another value");
    auto* text = std::get_if<std::string>(&value);
    check(in_metadata_ || field_ == "dtype", "must be a list of integers, got another value");
    check(text != nullptr, "must be a string, got another value");
    if (in_metadata_) {
      check(header_.metadata.emplace(field_, std::move(*text)).second,
            "must be given once, got it twice");
      return;
    }
    check(!dtype_.has_value(), "must be given once, got it twice");
    dtype_ = dtype_of_safetensors(*text);
    MISTRAL_EXT_CHECK(
        dtype_.has_value(), "{} must be a dtype that torch has, got {}", place(), printable(*text));
  }

 private:
  // "load: model.safetensors: norm.weight: dtype"
  std::string place() const {
    if (depth_ == 0) return label_ + ": the header";
    auto place = label_ + ": " + printable(name_);
    return field_.empty() ? place : place + ": " + printable(field_);
  }
  void check(bool holds, const char* rule) const {
    MISTRAL_EXT_CHECK(holds, "{} {}", place(), rule);
  }

  void add_number(const JsonScalar& value) {
    const auto* number = std::get_if<int64_t>(&value);
    check(number != nullptr && *number >= 0,
          "must hold integers from 0 to 2^63 - 1, got another value");
    auto& numbers = field_ == "shape" ? *shape_ : *offsets_;
    const int64_t most = field_ == "shape" ? kMostDimensions : 2;
    MISTRAL_EXT_CHECK(
        std::ssize(numbers) < most, "{} must have at most {} entries, got more", place(), most);
    numbers.push_back(*number);
  }

  void add_tensor() {
    field_.clear();
    check(dtype_.has_value(), "must have a dtype, got none");
    check(shape_.has_value(), "must have a shape, got none");
    check(offsets_.has_value() && offsets_->size() == 2, "must have two data_offsets, got fewer");
    const int64_t begin = (*offsets_)[0];
    const int64_t end = (*offsets_)[1];
    MISTRAL_EXT_CHECK(
        begin <= end, "{}: data_offsets must not fall, got {} and {}", place(), begin, end);
    const int64_t bytes = end - begin;
    // ATen multiplies the dimensions that are not 0, for strides.
    int64_t product = static_cast<int64_t>(c10::elementSize(*dtype_));
    for (const int64_t dimension : *shape_) {
      check(!__builtin_mul_overflow(product, std::max<int64_t>(dimension, 1), &product),
            "must have fewer than 2^63 bytes by its shape, got more");
    }
    const bool empty = std::find(shape_->begin(), shape_->end(), 0) != shape_->end();
    MISTRAL_EXT_CHECK(bytes == (empty ? 0 : product),
                      "{}: data_offsets must span the {} bytes of its shape and dtype, got {}",
                      place(),
                      empty ? 0 : product,
                      bytes);
    header_.tensors.emplace(name_, StoredTensor{{*dtype_, std::move(*shape_)}, begin, bytes});
  }

  const std::string& label_;
  SafetensorsHeader& header_;
  int depth_ = 0;
  std::string name_;
  std::string field_;
  bool in_metadata_ = false;
  bool has_metadata_ = false;
  std::optional<at::ScalarType> dtype_;
  std::optional<std::vector<int64_t>> shape_;
  std::optional<std::vector<int64_t>> offsets_;
};

int64_t read_header_length(const File& file) {
  MISTRAL_EXT_CHECK(file.size() >= kLengthBytes,
                    "{}: must begin with the {} bytes of the header's length, got {} bytes",
                    file.label(),
                    kLengthBytes,
                    file.size());
  std::array<uint8_t, kLengthBytes> bytes{};
  file.read(0, bytes.data(), kLengthBytes);
  uint64_t length = 0;
  for (int i = 0; i < kLengthBytes; ++i) length |= uint64_t{bytes[i]} << (8 * i);
  MISTRAL_EXT_CHECK(length <= kMostHeaderBytes,
                    "{}: the header's length must be at most {}, got {}",
                    file.label(),
                    kMostHeaderBytes,
                    length);
  MISTRAL_EXT_CHECK(std::cmp_less_equal(length, file.size() - kLengthBytes),
                    "{}: the header's length must be within the file's {} bytes, got {}",
                    file.label(),
                    file.size(),
                    length);
  return static_cast<int64_t>(length);
}

// The tensors' bytes follow each other from 0 to the end of the file. Makes the offsets those in
// the file.
void place_tensors(SafetensorsHeader& header, int64_t data_begin, const File& file) {
  using Entry = std::pair<const std::string, StoredTensor>;
  std::vector<Entry*> entries;
  entries.reserve(header.tensors.size());
  for (auto& entry : header.tensors) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.offset, a->second.bytes) <
           std::pair(b->second.offset, b->second.bytes);
  });
  const int64_t data_bytes = file.size() - data_begin;
  int64_t end = 0;
  for (auto* entry : entries) {
    auto& tensor = entry->second;
    MISTRAL_EXT_CHECK(tensor.offset == end,
                      "{}: {}: data_offsets must begin where the tensor before ends, at {}, got {}",
                      file.label(),
                      printable(entry->first),
                      end,
                      tensor.offset);
    MISTRAL_EXT_CHECK(tensor.bytes <= data_bytes - end,
                      "{}: {}: data_offsets must be within the {} bytes of data, got {}",
                      file.label(),
                      printable(entry->first),
                      data_bytes,
                      static_cast<uint64_t>(end) + static_cast<uint64_t>(tensor.bytes));
    end += tensor.bytes;
    tensor.offset += data_begin;
  }
  MISTRAL_EXT_CHECK(end == data_bytes,
                    "{}: the tensors must fill the {} bytes of data, got {}",
                    file.label(),
                    data_bytes,
                    end);
}

}  // namespace

SafetensorsHeader read_safetensors_header(const File& file) {
  const int64_t length = read_header_length(file);
  SafetensorsHeader header;
  {
    std::string text(static_cast<size_t>(length), '\0');
    file.read(kLengthBytes, text.data(), length);
    MISTRAL_EXT_CHECK(
        text.starts_with('{'), "{}: the header must be a JSON object, got none", file.label());
    HeaderReader reader(file.label(), header);
    parse_json(text, file.label() + ": the header", reader);
  }
  place_tensors(header, kLengthBytes + length, file);
  return header;
}

}  // namespace mistral_ext::io
