#include "mistral_ext/models/token_steps.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "mistral_ext/models/mistral_for_causal_lm.h"

namespace mistral_ext::models {
namespace {

std::atomic<TokenStepsPool::Factory> registered = nullptr;

}  // namespace

void TokenStepsPool::set_factory(Factory factory) { registered = factory; }

TokenStepsPool::Taken TokenStepsPool::take(MistralForCausalLM& model, int64_t batch) {
  const Key key{batch, model.dtype(), model.device()};
  const Factory factory = registered;
  if (factory == nullptr || model.parallel().is_sharded()) return {key, nullptr};
  {
    const std::scoped_lock lock(mutex_);
    std::erase_if(idle_, [&](const Taken& idle) {
      return idle.key.dtype != key.dtype || idle.key.device != key.device;
    });
    const auto found = std::ranges::find(idle_, key, &Taken::key);
    if (found != idle_.end()) {
      auto taken = std::move(*found);
      idle_.erase(found);
      return taken;
    }
  }
  return {key, factory(model, batch)};
}

void TokenStepsPool::give_back(Taken taken) {
  if (taken.steps == nullptr) return;
  const std::scoped_lock lock(mutex_);
  idle_.push_back(std::move(taken));
}

}  // namespace mistral_ext::models
