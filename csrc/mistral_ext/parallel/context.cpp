#include "mistral_ext/parallel/context.h"

#include <algorithm>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "mistral_ext/core/check.h"
#include "mistral_ext/parallel/failure.h"

namespace mistral_ext::parallel {

struct Context::Group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

Context::Context(const std::string& group_name) {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  try {
    group = c10d::resolve_process_group(group_name);
  } catch (const c10::Error&) {
    MISTRAL_EXT_CHECK(
        false, "parallel: group must be a registered group's name, got {}", group_name);
  }
  take(group);
}

Context::Context(const c10::intrusive_ptr<c10d::ProcessGroup>& group) {
  MISTRAL_EXT_CHECK(group.defined(), "parallel: group must be a process group, got none");
  take(group);
}

void Context::take(const c10::intrusive_ptr<c10d::ProcessGroup>& group) {
  if (group->getSize() == 1) return;
  rank_ = group->getRank();
  size_ = group->getSize();
  name_ = group->getGroupName();
  group_ = std::make_shared<Group>(group);
  introduce_rank(*group);
}

void Context::check_device(c10::DeviceType device) const {
  if (!is_sharded()) return;
  const auto served = group().getDeviceTypes();
  MISTRAL_EXT_CHECK(
      std::ranges::any_of(served, [&](c10::Device each) { return each.type() == device; }),
      "parallel: group must have a backend for {} tensors, got {}, which has none",
      c10::DeviceTypeName(device, /*lower_case=*/true),
      name_);
}

c10d::ProcessGroup& Context::group() const { return *group_->group; }

}  // namespace mistral_ext::parallel
