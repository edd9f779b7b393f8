#include "mistral_ext/core/config.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>

namespace mistral_ext {
namespace {

ConfigMap small() {
  return {{"model_type", {"mistral"}},
          {"vocab_size", {int64_t{99}}},
          {"hidden_size", {int64_t{64}}},
          {"intermediate_size", {int64_t{96}}},
          {"num_hidden_layers", {int64_t{2}}},
          {"num_attention_heads", {int64_t{4}}},
          {"num_key_value_heads", {int64_t{2}}},
          {"rope_theta", {1e4}}};
}

std::string message_of(const ConfigMap& map) {
  try {
    MistralConfig::from_map(map);
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

std::string message_with(const std::string& key, ConfigValue value) {
  auto map = small();
  map[key] = std::move(value);
  return message_of(map);
}

TEST(MistralConfig, ReadsBothRopeSchemas) {
  auto older = small();
  older["rope_scaling"] = {ConfigMap{{"type", {"linear"}}, {"factor", {2.0}}}};
  auto newer = small();
  newer.erase("rope_theta");
  newer["rope_parameters"] = {
      ConfigMap{{"rope_type", {"linear"}}, {"factor", {2.0}}, {"rope_theta", {int64_t{10000}}}}};
  for (const auto& map : {older, newer}) {
    const auto config = MistralConfig::from_map(map);
    EXPECT_EQ(config.rope.rope_type, "linear");
    EXPECT_EQ(config.rope.rope_theta, 1e4);
    EXPECT_EQ(config.rope.factor, 2.0);
  }
}

TEST(MistralConfig, TheOlderRopeSchemaCountsWhereBothAreGiven) {
  auto map = small();
  map["rope_parameters"] = {ConfigMap{{"rope_type", {"default"}}, {"rope_theta", {100.0}}}};
  map["rope_scaling"] = {ConfigMap{{"type", {"linear"}}, {"factor", {2.0}}}};
  EXPECT_EQ(MistralConfig::from_map(map).rope.rope_type, "linear");
  EXPECT_EQ(MistralConfig::from_map(map).rope.rope_theta, 1e4);
  for (const ConfigValue& none : {ConfigValue{nullptr}, ConfigValue{ConfigMap()}}) {
    map["rope_scaling"] = none;
    EXPECT_EQ(MistralConfig::from_map(map).rope.rope_type, "default");
    EXPECT_EQ(MistralConfig::from_map(map).rope.rope_theta, 100.0);
  }
}

TEST(MistralConfig, AYarnFactorThatIsNullFollowsFromTheLengths) {
  auto map = small();
  map["max_position_embeddings"] = {int64_t{128}};
  ConfigMap yarn{{"rope_type", {"yarn"}},
                 {"factor", {nullptr}},
                 {"original_max_position_embeddings", {int64_t{16}}}};
  map["rope_parameters"] = {yarn};
  EXPECT_EQ(MistralConfig::from_map(map).rope.factor, 8.0);
  map["original_max_position_embeddings"] = {int64_t{32}};  // counts before the rope's own
  EXPECT_EQ(MistralConfig::from_map(map).rope.factor, 4.0);
  yarn["original_max_position_embeddings"] = {int64_t{0}};
  map.erase("original_max_position_embeddings");
  map["rope_parameters"] = {yarn};
  EXPECT_EQ(message_of(map),
            "config: rope_parameters: original_max_position_embeddings must be positive, got 0");
}

TEST(MistralConfig, SizesWhoseProductsDoNotFitAreNamed) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  EXPECT_EQ(message_with("vocab_size", {kHuge}),
            "config: vocab_size * hidden_size must be at most 72057594037927936, got "
            "4611686018427387904 * 64");
  EXPECT_EQ(message_with("intermediate_size", {kHuge}),
            "config: intermediate_size * hidden_size must be at most 72057594037927936, got "
            "4611686018427387904 * 64");
  EXPECT_EQ(message_with("hidden_size", {kHuge}),
            "config: vocab_size * hidden_size must be at most 72057594037927936, got 99 * "
            "4611686018427387904");
  // Times head_dim it is 64 again, as far as int64 goes.
  auto map = small();
  map["head_dim"] = {int64_t{16}};
  map["num_attention_heads"] = {(int64_t{1} << 60) + 4};
  EXPECT_EQ(message_of(map),
            "config: num_attention_heads * head_dim * hidden_size must be at most "
            "72057594037927936, got 1152921504606846980 * 16 * 64");
  EXPECT_EQ(message_with("vocab_size", {int64_t{1} << 40}), "no error");
}

TEST(MistralConfig, AnAbsentWindowIsTheDefaultAndNullAndZeroAreNone) {
  EXPECT_EQ(MistralConfig::from_map(small()).layer_windows, (std::vector<int64_t>{4096, 4096}));
  auto map = small();
  map["sliding_window"] = {nullptr};
  EXPECT_EQ(MistralConfig::from_map(map).layer_windows, (std::vector<int64_t>{0, 0}));
  map["sliding_window"] = {int64_t{0}};
  EXPECT_EQ(MistralConfig::from_map(map).layer_windows, (std::vector<int64_t>{0, 0}));
}

TEST(MistralConfig, OnlyMinistralReadsLayerTypes) {
  auto map = small();
  map["sliding_window"] = {int64_t{8}};
  map["layer_types"] = {ConfigList{{"full_attention"}, {"sliding_attention"}}};
  EXPECT_EQ(MistralConfig::from_map(map).layer_windows, (std::vector<int64_t>{8, 8}));
  map["model_type"] = {"ministral"};
  EXPECT_EQ(MistralConfig::from_map(map).layer_windows, (std::vector<int64_t>{0, 8}));
}

TEST(MistralConfig, HeadDimComesFromTheHeadsUnlessGiven) {
  EXPECT_EQ(MistralConfig::from_map(small()).head_dim, 16);
  auto map = small();
  map["head_dim"] = {int64_t{32}};
  EXPECT_EQ(MistralConfig::from_map(map).head_dim, 32);
}

TEST(MistralConfig, NamesTheFieldThatCannotWork) {
  EXPECT_EQ(message_with("num_key_value_heads", {int64_t{3}}),
            "config: num_key_value_heads must divide num_attention_heads = 4, got 3");
  EXPECT_EQ(message_with("hidden_size", {int64_t{-64}}),
            "config: hidden_size must be positive, got -64");
  EXPECT_EQ(message_with("hidden_size", {"wide"}),
            "config: hidden_size must be an integer, got \"wide\"");
  EXPECT_EQ(message_with("head_dim", {int64_t{15}}), "config: head_dim must be even, got 15");
  EXPECT_EQ(message_with("num_attention_heads", {int64_t{0}}),
            "config: num_attention_heads must be positive, got 0");
  EXPECT_EQ(message_with("sliding_window", {int64_t{-1}}),
            "config: sliding_window must be null, 0 or positive, got -1");
  EXPECT_EQ(message_with("model_type", {"llama"}),
            "config: model_type must be mistral, ministral or ministral3, got llama");
  EXPECT_EQ(
      message_with("rope_parameters", {ConfigMap{{"rope_type", {"longrope"}}}}),
      "config: rope_type must be one of default, linear, dynamic, yarn, llama3, got longrope");
  EXPECT_EQ(message_with("rope_parameters", {ConfigMap{{"rope_type", {"yarn"}}}}),
            "config: rope_parameters: factor must be positive for rope_type yarn, got none");
  const ConfigMap yarn{{"rope_type", {"yarn"}}, {"factor", {2.0}}, {"beta_fast", {-1.0}}};
  EXPECT_EQ(message_with("rope_parameters", {yarn}),
            "config: rope_parameters: beta_fast and beta_slow must be positive, got -1 and 1");
  const ConfigMap zero{{"rope_type", {"default"}},
                       {"original_max_position_embeddings", {int64_t{0}}}};
  EXPECT_EQ(message_with("rope_parameters", {zero}),
            "config: rope_parameters: original_max_position_embeddings must be positive, got 0");
  EXPECT_EQ(message_with("num_hidden_layers", {int64_t{1} << 60}),
            "config: num_hidden_layers must be at most 10000, got 1152921504606846976");
}

TEST(MistralConfig, AMissingThetaIsAnError) {
  auto map = small();
  map.erase("rope_theta");
  EXPECT_EQ(message_of(map),
            "config: rope_theta must be given (in rope_parameters or at the top level), got none");
}

}  // namespace
}  // namespace mistral_ext
