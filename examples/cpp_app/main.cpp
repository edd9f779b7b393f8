// Continues a text with the model of a folder: cpp_app FOLDER "Once upon a time"
#include <ATen/ops/tensor.h>

#include <iostream>

#include "mistral_ext/mistral_ext.h"
using namespace mistral_ext;

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  const auto model = models::load_pretrained(argv[1]);
  const auto tokenizer = tokenizers::load_tokenizer(argv[1]);
  auto config = generation::load_generation_config(argv[1]);
  config.max_new_tokens = 128;
  const auto prompt = tokenizer->encode(argv[2]);
  const auto text = tokenizer->text_stream(/*skip_special_tokens=*/true);
  for (const int64_t token : prompt) std::cout << text->put(token);
  generation::Callbacks callbacks;
  callbacks.on_step = generation::stream_tokens(
      [&](int64_t token) { return (std::cout << text->put(token) << std::flush).good(); });
  generation::GenerateInputs inputs;
  inputs.input_ids = at::tensor(prompt).unsqueeze(0);  // [batch = 1, tokens]
  generation::generate(*model, inputs, config, callbacks);
  std::cout << text->finish() << '\n';
} catch (const std::exception& error) {
  const std::string message = error.what();
  std::cerr << message.substr(0, message.find('\n')) << '\n';  // without torch's backtrace
  return 1;
}
