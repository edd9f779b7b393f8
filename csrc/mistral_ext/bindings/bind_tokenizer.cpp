// Tokenizers as the tests need them: no part of the public Python API.

#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <tuple>
#include <utility>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/core/check.h"
#include "mistral_ext/tokenizers/instruction_template.h"
#include "mistral_ext/tokenizers/load_tokenizer.h"
#include "mistral_ext/tokenizers/sentencepiece_tokenizer.h"
#include "mistral_ext/tokenizers/tekken.h"
#include "mistral_ext/tokenizers/tokenizer_json.h"

namespace py = pybind11;

namespace mistral_ext::bindings {

using tokenizers::TextStream;
using tokenizers::Tokenizer;

namespace {

tokenizers::Message::Role role(const std::string& name) {
  using Role = tokenizers::Message::Role;
  if (name == "system") return Role::kSystem;
  if (name == "user") return Role::kUser;
  if (name == "assistant") return Role::kAssistant;
  MISTRAL_EXT_CHECK(name == "tool", "role must be system, user, assistant or tool, got {}", name);
  return Role::kTool;
}

// pybind11 holds one class in one kind of pointer.
std::shared_ptr<Tokenizer> shared(std::unique_ptr<Tokenizer> tokenizer) { return tokenizer; }

// (id, name, arguments) and (name, description, parameters).
using Texts = std::tuple<std::string, std::string, std::string>;

tokenizers::Message message(const std::string& role_name,
                            std::string content,
                            bool prefix,
                            const std::vector<Texts>& tool_calls,
                            std::string tool_call_id,
                            std::optional<std::string> name) {
  tokenizers::Message made{role(role_name), std::move(content), prefix};
  for (const auto& [id, function, arguments] : tool_calls) {
    made.tool_calls.push_back({id, function, arguments});
  }
  made.tool_call_id = std::move(tool_call_id);
  made.name = std::move(name);
  return made;
}

std::vector<int64_t> encode_conversation(const Tokenizer& tokenizer,
                                         const std::string& version,
                                         const std::vector<tokenizers::Message>& messages,
                                         const std::vector<Texts>& tools) {
  const auto known = tokenizers::instruction_version(version);
  MISTRAL_EXT_CHECK(known, "version must be v1, v2, v3, v7, v11 or v13, got {}", version);
  std::vector<tokenizers::Tool> list;
  list.reserve(tools.size());
  for (const auto& [name, description, parameters] : tools) {
    list.push_back({name, description, parameters});
  }
  return tokenizers::encode_conversation(tokenizer, *known, messages, list);
}

}  // namespace

void bind_tokenizer(py::module_& m) {
  py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(
      m, "Tokenizer", "Text to token ids and back, of one model's file.")
      .def(
          "encode",
          [](const Tokenizer& tokenizer,
             const std::string& text,
             bool add_special_tokens,
             bool parse_special_tokens) {
            const py::gil_scoped_release release;
            return tokenizer.encode(text, {add_special_tokens, parse_special_tokens});
          },
          py::arg("text"),
          py::arg("add_special_tokens") = true,
          py::arg("parse_special_tokens") = true)
      .def(
          "decode",
          [](const Tokenizer& tokenizer,
             const std::vector<int64_t>& ids,
             bool skip_special_tokens) { return tokenizer.decode(ids, skip_special_tokens); },
          py::arg("ids"),
          py::arg("skip_special_tokens") = false)
      .def("text_stream",
           &Tokenizer::text_stream,
           py::arg("skip_special_tokens") = false,
           py::keep_alive<0, 1>())
      .def("token_to_id", &Tokenizer::token_to_id, py::arg("token"))
      .def("id_to_token", &Tokenizer::id_to_token, py::arg("id"))
      .def("is_special", &Tokenizer::is_special, py::arg("id"))
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size)
      .def_property_readonly("bos_token_id", &Tokenizer::bos_token_id)
      .def_property_readonly("eos_token_id", &Tokenizer::eos_token_id);
  py::class_<TextStream>(m, "TextStream", "The text of ids that come one at a time.")
      .def("put", &TextStream::put, py::arg("id"))
      .def("finish", &TextStream::finish);
  m.def(
      "load_tokenizer",
      // pybind11 knows no const.
      [](const std::filesystem::path& folder) {
        return std::const_pointer_cast<Tokenizer>(tokenizers::load_tokenizer(folder));
      },
      py::arg("folder"),
      "The tokenizer in a model's folder.");
  m.def(
      "parse_tokenizer_json",
      [](const std::string& text) {
        return shared(tokenizers::parse_tokenizer_json(text, "text"));
      },
      py::arg("text"));
  m.def(
      "load_sentencepiece",
      [](const std::filesystem::path& file) {
        return shared(tokenizers::load_sentencepiece(file));
      },
      py::arg("file"));
  m.def(
      "load_tekken",
      [](const std::filesystem::path& file) { return shared(tokenizers::load_tekken(file)); },
      py::arg("file"));
  py::class_<tokenizers::Message>(m, "Message", "One message of a conversation.")
      .def(py::init(&message),
           py::arg("role"),
           py::arg("content") = "",
           py::arg("prefix") = false,
           py::arg("tool_calls") = std::vector<Texts>(),
           py::arg("tool_call_id") = "",
           py::arg("name") = std::nullopt,
           "tool_calls: (id, name, arguments) each.");
  m.def("encode_conversation",
        &encode_conversation,
        py::arg("tokenizer"),
        py::arg("version"),
        py::arg("messages"),
        py::arg("tools") = std::vector<Texts>(),
        "tools: (name, description, parameters) each.");
}

}  // namespace mistral_ext::bindings
