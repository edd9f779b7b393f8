#pragma once

#include <cstdint>
#include <vector>

namespace mistral_ext::trial {

struct Model {
  const char* name;
  int64_t hidden, intermediate, vocab;
  int layers, heads, kv_heads, head_dim, batch;
  std::vector<int> capacities;  // one a layer; the window where it is smaller than what comes
  int past;                     // tokens in the cache at first
  int steps;
  int padding = 0;  // of these, from the first on, that every other row does not see
};

inline const std::vector<Model> kModels = {
    {"one row", 320, 712, 1003, 3, 6, 2, 64, 1, {64, 8, 64}, 5, 12},
    {"empty cache", 256, 512, 500, 2, 4, 4, 64, 2, {16, 16}, 0, 10},
    {"three rows, ring", 320, 712, 1003, 2, 6, 2, 96, 3, {8, 40}, 20, 9},
    {"eight rows", 576, 1536, 2048, 2, 9, 3, 64, 8, {50, 50}, 37, 6},
    {"one kv head of 128", 256, 520, 96, 2, 12, 1, 128, 2, {64, 33}, 40, 6},
    {"heads of 256", 128, 256, 300, 2, 3, 3, 256, 1, {45, 45}, 30, 6},
    {"a head of 16", 64, 128, 50, 2, 5, 1, 16, 5, {30, 7}, 9, 12},
    {"padding, rings", 320, 712, 1003, 3, 6, 2, 64, 3, {64, 8, 24}, 20, 12, 17},
    {"padding of all", 256, 512, 500, 2, 4, 4, 64, 4, {32, 12}, 9, 10, 9},
    {"sixteen rows", 576, 1536, 2048, 2, 9, 3, 64, 16, {50, 20}, 37, 4},
    {"twenty rows", 4096, 712, 203, 2, 4, 2, 128, 20, {50, 50}, 37, 3, 11},
    {"thirty-two rows", 320, 14336, 1003, 2, 6, 2, 96, 32, {300, 50}, 290, 3, 100},
    {"groups of 12", 256, 520, 96, 2, 24, 2, 16, 9, {64, 33}, 40, 4},
    {"many keys", 128, 256, 300, 2, 4, 2, 64, 2, {1000, 850}, 900, 3, 30},
    {"groups of 4", 512, 1024, 4000, 2, 16, 4, 128, 4, {64, 64}, 50, 6},
};

}  // namespace mistral_ext::trial
