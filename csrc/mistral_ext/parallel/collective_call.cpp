#include "mistral_ext/parallel/collective_call.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

namespace mistral_ext::parallel {

const char* name_of(Collective collective) {
  switch (collective) {
    case Collective::all_reduce:
      return "all_reduce";
    case Collective::reduce:
      return "reduce";
    case Collective::broadcast:
      return "broadcast";
    case Collective::all_gather:
      return "all_gather";
    case Collective::gather:
      return "gather";
    case Collective::scatter:
      return "scatter";
    case Collective::reduce_scatter:
      return "reduce_scatter";
    case Collective::all_to_all:
      return "all_to_all";
    case Collective::barrier:
      return "barrier";
  }
  return "unknown";
}

std::string describe(const CollectiveCall& call) {
  const std::string name = name_of(call.collective);
  const char* const dtype = c10::toString(static_cast<c10::ScalarType>(call.dtype));
  const auto elements =
      fmt::format("{} {} element{}", call.elements, dtype, call.elements == 1 ? "" : "s");
  switch (call.collective) {
    case Collective::all_reduce:
    case Collective::reduce_scatter:
      return fmt::format("{}({} of {})", name, name_of(call.reduction), elements);
    case Collective::reduce:
      return fmt::format(
          "{}({} of {} to rank {})", name, name_of(call.reduction), elements, call.root);
    case Collective::broadcast:
    case Collective::scatter:
      return fmt::format("{}({} from rank {})", name, elements, call.root);
    case Collective::gather:
      return fmt::format("{}({} to rank {})", name, elements, call.root);
    case Collective::all_gather:
      return fmt::format("{}({})", name, elements);
    case Collective::all_to_all:
      return fmt::format("{}({})", name, dtype);
    case Collective::barrier:
      break;
  }
  return name + "()";
}

}  // namespace mistral_ext::parallel
