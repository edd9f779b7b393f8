#include "mistral_ext/models/token_steps.h"

#include <algorithm>
#include <atomic>

namespace mistral_ext::models {
namespace {

std::atomic<TokenStepsPool::Factory> registered = nullptr;

}  // namespace

void TokenStepsPool::set_factory(Factory factory) { registered = factory; }

std::unique_ptr<TokenSteps> TokenStepsPool::take(MistralForCausalLM& model, int64_t batch) {
  const Factory factory = registered;
  if (factory == nullptr) return nullptr;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(idle_, batch, &Idle::batch);
    if (found != idle_.end()) {
      auto steps = std::move(found->steps);
      idle_.erase(found);
      return steps;
    }
  }
  return factory(model, batch);
}

void TokenStepsPool::give_back(std::unique_ptr<TokenSteps> steps, int64_t batch) {
  const std::scoped_lock lock(mutex_);
  idle_.push_back({batch, std::move(steps)});
}

}  // namespace mistral_ext::models
