#include "mistral_ext/generation/load_generation_config.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io/temporary_folder.h"
#include "ops/error_message.h"
#include "tokenizers/tekken_file.h"

namespace mistral_ext::generation {
namespace {

using Ids = std::vector<int64_t>;
using ops::error_message;

TEST(LoadGenerationConfig, OfMistralsOwnFormatTheEndIsTheTokenizers) {
  const io::TemporaryFolder folder;
  folder.write("params.json", "{}");
  EXPECT_EQ(load_generation_config(folder.path()).eos_token_ids, Ids{});  // no tokenizer, no end
  folder.write("tekken.json", tokenizers::tekken::file());
  const auto config = load_generation_config(folder.path());
  EXPECT_EQ(config.eos_token_ids, Ids{2});
  EXPECT_EQ(config.pad_token_id, 2);
  EXPECT_EQ(config.top_k, 0);
  folder.write("generation_config.json", R"({"temperature": 0.5})");
  EXPECT_EQ(load_generation_config(folder.path()).eos_token_ids, Ids{2});
}

TEST(LoadGenerationConfig, WhatTheFolderSaysOfItsEndsGoesBeforeTheTokenizer) {
  const io::TemporaryFolder folder;
  folder.write("params.json", "{}");
  folder.write("tekken.json", "no tokenizer: nobody asks it");
  for (const auto& [ends, expected] :
       std::vector<std::pair<std::string, Ids>>{{"7", {7}}, {"[5, 6]", {5, 6}}, {"null", {}}}) {
    folder.write("generation_config.json", R"({"eos_token_id": )" + ends + "}");
    EXPECT_EQ(load_generation_config(folder.path()).eos_token_ids, expected);
  }
  std::filesystem::remove(folder.path() / "generation_config.json");
  EXPECT_NE(error_message([&] {
              load_generation_config(folder.path());
            }).find("tekken.json: must be JSON"),
            std::string::npos);
  folder.write("config.json", "{}");  // Hugging Face's: no end there is none
  EXPECT_EQ(load_generation_config(folder.path()).eos_token_ids, Ids{});
}

TEST(GenerationConfigFromMap, BeamsAreForThoseWhoAskForThem) {
  const io::TemporaryFolder folder;
  const auto load = [&](const std::string& json) {
    folder.write("generation_config.json", json);
    BeamSearchConfig beams;
    load_generation_config(folder.path(), &beams);
    return beams;
  };
  const auto beams = load(R"({"num_beams": 3, "length_penalty": 0.5, "early_stopping": "never"})");
  EXPECT_EQ(beams.num_beams, 3);
  EXPECT_EQ(beams.length_penalty, 0.5);
  EXPECT_EQ(beams.early_stopping, EarlyStopping::kNever);
  EXPECT_NE(error_message([&] {
              load_generation_config(folder.path());
            }).find("num_beams must be off for generate, got 3"),
            std::string::npos);
  EXPECT_EQ(load(R"({"early_stopping": true})").early_stopping, EarlyStopping::kAtOnce);
  EXPECT_EQ(load("{}").num_beams, 1);
  EXPECT_EQ(load("{}").early_stopping, EarlyStopping::kUnlikely);
  for (const auto* bad : {R"("num_beams": 0)",
                          R"("num_beams": "3")",
                          R"("length_penalty": [])",
                          R"("early_stopping": "always")"}) {
    EXPECT_THROW(load("{" + std::string(bad) + "}"), c10::ValueError) << bad;
  }
}

std::vector<BiasedSequence> bias(const io::TemporaryFolder& folder, const std::string& json) {
  folder.write("generation_config.json", R"({"sequence_bias": )" + json + "}");
  return load_generation_config(folder.path()).sequence_bias;
}

TEST(ReadSequenceBias, BothFormsOfTransformersAreRead) {
  const io::TemporaryFolder folder;
  for (const auto* json :
       {"[[[3, 4], 2.0], [[5], 9.0], [[5], -1]]", "{\"(3, 4)\": 2.0, \"(5,)\": -1}"}) {
    const auto sequences = bias(folder, json);
    ASSERT_EQ(sequences.size(), 2);
    EXPECT_EQ(sequences[0].token_ids, (Ids{3, 4}));
    EXPECT_EQ(sequences[0].bias, 2.0);
    EXPECT_EQ(sequences[1].token_ids, Ids{5});
    EXPECT_EQ(sequences[1].bias, -1.0);
  }
  EXPECT_TRUE(bias(folder, "null").empty());
}

TEST(ReadSequenceBias, WhatIsNeitherFormIsRefused) {
  const io::TemporaryFolder folder;
  for (const auto* json : {"1",
                           "\"(3, 4)\"",
                           "[1]",
                           "[[[3]]]",
                           "[[[\"3\"], 1.0]]",
                           "[[[3], \"1\"]]",
                           "{\"()\": 1.0}",
                           "{\"(\": 1.0}",
                           "{\"3\": 1.0}",
                           "{\"(3, )\": 1.0}",
                           "{\"(3 4)\": 1.0}",
                           "{\"(,3)\": 1.0}",
                           "{\"(3.5,)\": 1.0}",
                           "{\"(99999999999999999999,)\": 1.0}",
                           "{\"(3,)\": null}"}) {
    EXPECT_NE(error_message([&] { bias(folder, json); }).find("sequence_bias must "),
              std::string::npos)
        << json;
  }
}

}  // namespace
}  // namespace mistral_ext::generation
