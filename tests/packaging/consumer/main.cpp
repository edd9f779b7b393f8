// Calls an operator through the installed headers and library: prints 0.5 0.5 and the version.
#include <ATen/ops/full.h>

#include <iostream>

#include "mistral_ext/mistral_ext.h"

static_assert(__cplusplus >= 202002L, "the target brings C++20");

int main() {
  const auto x = at::full({1, 2}, 3.0);
  const auto weight = at::full({2}, 0.5);
  const auto y = mistral_ext::ops::rms_norm(x, weight, 0.0);
  std::cout << y[0][0].item<float>() << ' ' << y[0][1].item<float>() << ' ' << MISTRAL_EXT_VERSION
            << '\n';
}
