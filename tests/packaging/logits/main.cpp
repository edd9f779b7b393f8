// logits <folder> <tokens to make> <output> <id>...: continues the prompt with the likeliest
// tokens. Writes the new ids, "tokens", and the logits of each, "logits" [tokens, vocab_size], as
// safetensors.
#include <iostream>
#include <string>
#include <vector>

#include "mistral_ext/io/atomic_file.h"
#include "mistral_ext/io/write_safetensors.h"
#include "mistral_ext/mistral_ext.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto model = mistral_ext::models::load_pretrained(arguments.at(0));
  mistral_ext::generation::GenerationConfig config;
  config.max_new_tokens = std::stoll(arguments.at(1));
  config.output_logits = true;
  std::vector<int64_t> ids;
  for (size_t i = 3; i < arguments.size(); ++i) ids.push_back(std::stoll(arguments[i]));
  mistral_ext::generation::GenerateInputs inputs;
  inputs.input_ids = at::tensor(ids, at::kLong).unsqueeze(0);
  const auto output = mistral_ext::generation::generate(*model, inputs, config);

  mistral_ext::io::AtomicFile file(arguments.at(2));
  mistral_ext::io::write_safetensors(
      file,
      {{"tokens", output.sequences[0].slice(0, std::ssize(ids)).contiguous()},
       {"logits", at::cat(output.logits).contiguous()}},
      {});
  file.finish();
  file.commit();
}
