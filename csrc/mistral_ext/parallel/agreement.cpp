#include "mistral_ext/parallel/agreement.h"

#include <ATen/ops/tensor.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <exception>

#include "mistral_ext/core/check.h"
#include "mistral_ext/parallel/collectives.h"

namespace mistral_ext::parallel {

Digest& Digest::add(std::string_view bytes) {
  for (const char byte : bytes) {
    state_ = (state_ ^ static_cast<unsigned char>(byte)) * 1099511628211ULL;
  }
  return *this;
}

Digest& Digest::add(int64_t number) {
  return add(std::string_view(reinterpret_cast<const char*>(&number), sizeof number));
}

Digest& Digest::add(const at::Tensor& tensor) {
  if (!tensor.defined()) return add("undefined");
  add(tensor.dim());
  for (const int64_t size : tensor.sizes()) add(size);
  add(static_cast<int64_t>(tensor.scalar_type()));
  if (tensor.is_floating_point() || tensor.is_meta()) return *this;
  const auto host = tensor.cpu().contiguous();
  return add(std::string_view(static_cast<const char*>(host.const_data_ptr()), host.nbytes()));
}

namespace {

constexpr int64_t kMost = 3;

// The ranks' values, [ranks, kMost], of a call that all of them make.
at::Tensor exchange(const std::string& call,
                    const std::array<int64_t, kMost>& values,
                    at::Device device,
                    const Context& context) {
  std::array<int64_t, 1 + kMost> message{Digest().add(call).value()};
  std::ranges::copy(values, message.begin() + 1);
  const auto all =
      all_gather(at::tensor(c10::ArrayRef<int64_t>(message)).to(device), context).cpu();
  const auto* const row = all.const_data_ptr<int64_t>();
  for (int64_t rank = 0; rank < context.size(); ++rank) {
    MISTRAL_EXT_CHECK(
        row[rank * std::ssize(message)] == message.front(),
        "parallel: all ranks of group {} must make the same calls, got another one on "
        "rank {} than on rank {}, which compares {}",
        context.name(),
        rank,
        context.rank(),
        call);
  }
  return all.narrow(1, 1, kMost);
}

std::string names_of(const std::vector<Statement>& statements) {
  std::string names;
  for (const auto& statement : statements) {
    names += names.empty() ? statement.what : ", " + statement.what;
  }
  return names;
}

}  // namespace

void check_agreement(const std::vector<Statement>& statements,
                     at::Device device,
                     const Context& context) {
  if (!context.is_sharded()) return;
  std::array<int64_t, kMost> digests{};
  for (size_t i = 0; i < statements.size(); ++i) digests.at(i) = statements[i].digest;
  const auto all = exchange(names_of(statements), digests, device, context);
  for (size_t i = 0; i < statements.size(); ++i) {
    std::vector<int64_t> others;
    for (int64_t rank = 1; rank < context.size(); ++rank) {
      const auto column = static_cast<int64_t>(i);
      if (all[rank][column].item<int64_t>() != all[0][column].item<int64_t>()) {
        others.push_back(rank);
      }
    }
    MISTRAL_EXT_CHECK(
        others.empty(),
        "parallel: {} must be the same on all ranks of group {}, got another one than "
        "rank 0's on rank {}",
        statements[i].what,
        context.name(),
        fmt::join(others, ", "));
  }
}

bool any_rank(bool says_so, at::Device device, const Context& context) {
  if (!context.is_sharded()) return says_so;
  const auto all = exchange("whether to go on", {says_so ? 1 : 0}, device, context);
  return all.ne(0).any().item<bool>();
}

void on_all_ranks(const std::string& what,
                  const std::function<void()>& work,
                  at::Device device,
                  const Context& context) {
  if (!context.is_sharded()) {
    work();
    return;
  }
  std::exception_ptr error;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  const bool failed = any_rank(error != nullptr, device, context);
  if (error != nullptr) std::rethrow_exception(error);
  MISTRAL_EXT_CHECK(!failed,
                    "{}: must be done by all ranks of group {}, got an error on another one",
                    what,
                    context.name());
}

}  // namespace mistral_ext::parallel
