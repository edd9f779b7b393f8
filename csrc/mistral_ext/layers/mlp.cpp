#include "mistral_ext/layers/mlp.h"

#include "mistral_ext/ops/silu_mul.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::layers {

MLP::MLP(const MistralConfig& config, const parallel::Context& context)
    : torch::nn::Module("MLP"), context_(context) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  const auto add = [&](const char* name, int64_t in, int64_t out, const parallel::ShardSpec& part) {
    return register_module(name, std::make_shared<Linear>(in, out, part));
  };
  const auto columns = parallel::ShardSpec::column_parallel(context);
  gate_proj_ = add("gate_proj", hidden, intermediate, columns);
  up_proj_ = add("up_proj", hidden, intermediate, columns);
  down_proj_ = add("down_proj", intermediate, hidden, parallel::ShardSpec::row_parallel(context));
}

at::Tensor MLP::forward(const at::Tensor& hidden_states) const {
  const auto both = ops::linear_many(parallel::copy_to_ranks(hidden_states, context_),
                                     {gate_proj_->weight(), up_proj_->weight()});
  return parallel::all_reduce(down_proj_->forward(ops::silu_mul(both[0], both[1])), context_);
}

}  // namespace mistral_ext::layers
