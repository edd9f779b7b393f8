#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <memory>
#include <string>

namespace c10d {
class ProcessGroup;
}  // namespace c10d

namespace mistral_ext::parallel {

// The ranks that hold one model's weights together, and which of them this process is. Copies stand
// for the same group, which lives as long as one of them.
class Context {
 public:
  // One rank, which holds everything; no collective does anything.
  Context() = default;

  // The group of torch.distributed or of init_from_env with this name
  // (`ProcessGroup.group_name`). Throws ValueError where there is none.
  explicit Context(const std::string& group_name);

  // A group of one rank is as no group. Throws ValueError for none.
  explicit Context(const c10::intrusive_ptr<c10d::ProcessGroup>& group);

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  bool is_sharded() const { return size_ > 1; }

  // The group's name; "" for one rank.
  const std::string& name() const { return name_; }

  // Throws ValueError where the group has no backend for tensors of such a device.
  void check_device(c10::DeviceType device) const;

  // For collectives, where is_sharded().
  c10d::ProcessGroup& group() const;

 private:
  struct Group;

  void take(const c10::intrusive_ptr<c10d::ProcessGroup>& group);

  int64_t rank_ = 0;
  int64_t size_ = 1;
  std::string name_;
  std::shared_ptr<const Group> group_;
};

}  // namespace mistral_ext::parallel
