// The index of the operators: every schema, in one block.
// Kernels are registered beside their code, in ops/{cpu,cuda,autograd}/.

#include <torch/library.h>

TORCH_LIBRARY(mistral_ext, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};

  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor", tags);
  m.def("rms_norm_backward(Tensor grad_y, Tensor x, Tensor weight, float eps) -> (Tensor, Tensor)",
        tags);

  m.def("add_rms_norm(Tensor x, Tensor residual, Tensor weight, float eps) -> (Tensor, Tensor)",
        tags);
  m.def(
      "add_rms_norm_backward(Tensor grad_y, Tensor grad_sum, Tensor sum, Tensor weight, float eps)"
      " -> (Tensor, Tensor)",
      tags);

  m.def(
      "rotary_embedding(Tensor query, Tensor key, Tensor positions, Tensor cos_sin,"
      " Tensor? query_scale=None) -> (Tensor, Tensor)",
      tags);
  m.def(
      "rotary_embedding_backward(Tensor grad_query, Tensor grad_key, Tensor positions,"
      " Tensor cos_sin, Tensor? query_scale=None) -> (Tensor, Tensor)",
      tags);

  m.def("silu_mul(Tensor gate, Tensor up) -> Tensor", tags);
  m.def("silu_mul_backward(Tensor grad_y, Tensor gate, Tensor up) -> (Tensor, Tensor)", tags);

  m.def(
      "attention(Tensor query, Tensor key, Tensor value, float scale, bool is_causal=True,"
      " int sliding_window=0, Tensor? mask=None, Tensor? sequence_ids=None) -> (Tensor, Tensor)",
      tags);
  m.def(
      "attention_backward(Tensor grad_output, Tensor query, Tensor key, Tensor value,"
      " Tensor output, Tensor logsumexp, float scale, bool is_causal=True, int sliding_window=0,"
      " Tensor? mask=None, Tensor? sequence_ids=None) -> (Tensor, Tensor, Tensor)",
      tags);

  m.def(
      "kv_cache_update_(Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor key, Tensor value,"
      " SymInt start) -> ()",
      tags);
  m.def(
      "kv_cache_update_backward(Tensor grad_cache, SymInt start, SymInt length)"
      " -> (Tensor, Tensor)",
      tags);

  m.def("linear(Tensor x, Tensor weight) -> Tensor", tags);
  m.def("linear_backward(Tensor grad_y, Tensor x, Tensor weight) -> (Tensor, Tensor)", tags);

  m.def("cross_entropy(Tensor logits, Tensor labels, int ignore_index=-100) -> Tensor", tags);

  m.def(
      "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor labels, int ignore_index=-100)"
      " -> Tensor",
      tags);
  m.def(
      "linear_cross_entropy_gradients(Tensor hidden, Tensor weight, Tensor labels,"
      " int ignore_index, bool for_hidden, bool for_weight) -> (Tensor, Tensor, Tensor)",
      tags);
  m.def(
      "linear_cross_entropy_backward(Tensor grad_loss, Tensor hidden, Tensor weight,"
      " Tensor hidden_gradient, Tensor weight_gradient) -> (Tensor, Tensor)",
      tags);
  m.def(
      "linear_cross_entropy_logits(Tensor hidden, Tensor weight, Tensor labels, int ignore_index)"
      " -> (Tensor, Tensor)",
      tags);
  m.def(
      "linear_cross_entropy_logits_backward(Tensor grad_loss, Tensor hidden, Tensor weight,"
      " Tensor labels, Tensor logits, int ignore_index, bool for_hidden, bool for_weight)"
      " -> (Tensor, Tensor)",
      tags);
}
