#pragma once

#include <cstdint>
#include <vector>

#include "mistral_ext/cache/kv_cache_layer.h"
#include "mistral_ext/core/config.h"

namespace mistral_ext::cache {

// The keys and values of every layer of one model. Batch size, dtype and device are those of the
// first tokens that enter. For one thread at a time: threads that share a model have one each.
class KVCache {
 public:
  // windows: one entry a layer, 0 for full attention. Throws ValueError where there is none, or a
  // negative one.
  explicit KVCache(const std::vector<int64_t>& windows);
  explicit KVCache(const MistralConfig& config) : KVCache(config.layer_windows) {}

  // A cache with its own copy of the contents: two sequences that begin alike.
  KVCache clone() const;

  KVCacheLayer& layer(int64_t index) { return layers_.at(index); }
  const KVCacheLayer& layer(int64_t index) const { return layers_.at(index); }
  int64_t num_layers() const { return std::ssize(layers_); }

  // Tokens seen: the position of the next one where nothing is padded.
  int64_t seen() const { return layers_.front().seen(); }
  // Rows that there is memory for; 0 before the first tokens.
  int64_t batch_size() const { return layers_.front().batch_size(); }
  // A graph hangs on the contents.
  bool requires_grad() const;
  // Bytes allocated for keys and values.
  int64_t nbytes() const;

  // Each of these is KVCacheLayer's, on every layer.
  void reserve(int64_t tokens);
  void drop_last(int64_t tokens);
  void record_past(bool record = true);
  void select_rows(const at::Tensor& indices);
  void move_rows(std::span<const RowMove> moves);
  void repeat_rows(int64_t repeats);
  void reset();

 private:
  KVCache() = default;

  std::vector<KVCacheLayer> layers_;
};

}  // namespace mistral_ext::cache
