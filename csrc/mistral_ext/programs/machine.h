#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "mistral_ext/core/config_value.h"

namespace mistral_ext::programs {

// What figures were measured on: processor, memory, device, threads, versions, the kernels' level.
ConfigMap describe_machine(const at::Device& device);

// Bytes of memory that the machine has.
int64_t memory_bytes();

// The most bytes that this process has had in memory, files' pages that it used among them.
int64_t peak_memory_bytes();

// Bytes a second at which the device's memory is read: the best of some runs.
double read_bandwidth(const at::Device& device);

// Operations a second in large products of matrices, torch's or ours: the best of some runs.
double operations_per_second(const at::Device& device, at::ScalarType dtype);

}  // namespace mistral_ext::programs
