#include "mistral_ext/cache/kv_cache.h"

#include <algorithm>

#include "mistral_ext/core/check.h"

namespace mistral_ext::cache {

KVCache::KVCache(const std::vector<int64_t>& windows) {
  MISTRAL_EXT_CHECK(!windows.empty(), "cache: windows must have one entry a layer, got none");
  layers_.reserve(windows.size());
  for (const int64_t window : windows) {
    MISTRAL_EXT_CHECK(window >= 0, "cache: a window must be 0 or positive, got {}", window);
    layers_.emplace_back(window);
  }
}

KVCache KVCache::clone() const {
  KVCache copy;
  copy.layers_.reserve(layers_.size());
  for (const auto& layer : layers_) copy.layers_.push_back(layer.clone());
  return copy;
}

bool KVCache::requires_grad() const {
  return std::ranges::any_of(layers_, [](const auto& layer) { return layer.requires_grad(); });
}

int64_t KVCache::nbytes() const {
  int64_t total = 0;
  for (const auto& layer : layers_) total += layer.nbytes();
  return total;
}

void KVCache::reserve(int64_t tokens) {
  for (auto& layer : layers_) layer.reserve(tokens);
}

void KVCache::drop_last(int64_t tokens) {
  for (auto& layer : layers_) layer.check_drop(tokens);
  for (auto& layer : layers_) layer.drop_last(tokens);
}

void KVCache::record_past(bool record) {
  for (auto& layer : layers_) layer.record_past(record);
}

void KVCache::select_rows(const at::Tensor& indices) {
  // To the host once, where its layers look at it.
  const bool same_number = indices.dim() == 1 && indices.size(0) == batch_size();
  const auto rows = same_number ? indices.to(at::kCPU) : indices;
  for (auto& layer : layers_) layer.select_rows(rows);
}

void KVCache::move_rows(std::span<const RowMove> moves) {
  for (auto& layer : layers_) layer.move_rows(moves);
}

void KVCache::repeat_rows(int64_t repeats) {
  for (auto& layer : layers_) layer.repeat_rows(repeats);
}

void KVCache::reset() {
  for (auto& layer : layers_) layer.reset();
}

}  // namespace mistral_ext::cache
