#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <string>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/layers/embedding.h"
#include "mistral_ext/layers/vocab_parallel_cross_entropy.h"
#include "mistral_ext/models/gather.h"
#include "mistral_ext/models/parameter_shard.h"
#include "mistral_ext/parallel/agreement.h"
#include "mistral_ext/parallel/collectives.h"
#include "mistral_ext/parallel/shard_spec.h"

namespace py = pybind11;

namespace mistral_ext::bindings {
namespace {

using parallel::Context;
using parallel::ShardSpec;
using NoGil = py::call_guard<py::gil_scoped_release>;

at::Tensor cross_entropy_of_agreed_labels(const at::Tensor& hidden,
                                          const at::Tensor& weight,
                                          const at::Tensor& labels,
                                          int64_t ignore_index,
                                          const Context& context) {
  const auto digest = parallel::Digest().add(labels).add(ignore_index);
  parallel::check_agreement({{"labels", digest.value()}}, labels.device(), context);
  return layers::vocab_parallel_cross_entropy(hidden, weight, labels, ignore_index, context);
}

void bind_context(py::module_& m) {
  py::class_<Context>(m, "ParallelContext", "The ranks over which a model's weights are spread.")
      .def(py::init<>(), "One rank, which holds everything.")
      .def(py::init<const std::string&>(),
           py::arg("group_name"),
           "The process group of this name (`ProcessGroup.group_name`). ValueError for none.")
      .def_property_readonly("rank", &Context::rank)
      .def_property_readonly("size", &Context::size)
      .def_property_readonly("name", &Context::name)
      .def(
          "check_device",
          [](const Context& context, const at::Device& device) {
            context.check_device(device.type());
          },
          py::arg("device"),
          "ValueError where the group has no backend for tensors of such a device.")
      // A process group is not copied: a copy of a model belongs to the same.
      .def("__copy__", [](const Context& context) { return context; })
      .def("__deepcopy__", [](const Context& context, const py::dict&) { return context; })
      .def(py::pickle([](const Context& context) { return py::make_tuple(context.name()); },
                      [](const py::tuple& state) {
                        const auto name = state[0].cast<std::string>();
                        return name.empty() ? Context() : Context(name);
                      }));
  py::class_<ShardSpec>(m, "ShardSpec", "Of `count` equal parts along `dim` the one at `index`.")
      .def(py::init<>())
      .def_readonly("dim", &ShardSpec::dim)
      .def_readonly("index", &ShardSpec::index)
      .def_readonly("count", &ShardSpec::count)
      .def_readonly("replicas", &ShardSpec::replicas)
      .def(py::pickle(
          [](const ShardSpec& spec) {
            return py::make_tuple(spec.dim, spec.index, spec.count, spec.replicas);
          },
          [](const py::tuple& state) {
            return ShardSpec{.dim = state[0].cast<int64_t>(),
                             .index = state[1].cast<int64_t>(),
                             .count = state[2].cast<int64_t>(),
                             .replicas = state[3].cast<int64_t>()};
          }));
}

}  // namespace

void bind_parallel_context(py::module_& m) {
  bind_context(m);
  m.def("check_rank_count",
        &parallel::check_rank_count,
        py::arg("config"),
        py::arg("ranks"),
        "ValueError that names the counts which work, where this one does not.");
  m.def("parameter_shard",
        &models::parameter_shard,
        py::arg("name"),
        py::arg("config"),
        py::arg("context"),
        "Which part of a parameter each rank holds.");
  m.def(
      "check_agreement",
      [](const std::string& what,
         const std::string& text,
         const at::Device& device,
         const Context& context) {
        parallel::check_agreement({{what, parallel::Digest().add(text).value()}}, device, context);
      },
      py::arg("what"),
      py::arg("text"),
      py::arg("device"),
      py::arg("context"),
      NoGil(),
      "ValueError on every rank where the ranks' texts differ.");
  m.def("any_rank",
        &parallel::any_rank,
        py::arg("says_so"),
        py::arg("device"),
        py::arg("context"),
        NoGil(),
        "Whether one of the ranks says so.");
  m.def("copy_to_ranks", &parallel::copy_to_ranks, py::arg("x"), py::arg("context"), NoGil());
  m.def("all_reduce",
        &parallel::all_reduce,
        py::arg("x"),
        py::arg("context"),
        NoGil(),
        "The sum over the ranks, in place of x where that is contiguous.");
  m.def("all_gather_last", &parallel::all_gather_last, py::arg("x"), py::arg("context"), NoGil());
  m.def("gather_shards",
        &parallel::gather_shards,
        py::arg("part"),
        py::arg("shard"),
        py::arg("context"),
        NoGil());
  m.def(
      "broadcast",
      [](at::Tensor x, const Context& context) { parallel::broadcast_(x, context); },
      py::arg("x"),
      py::arg("context"),
      NoGil(),
      "Rank 0's values, into every rank's x.");
  m.def("sum_gradients_of_replicas",
        &parallel::sum_gradients_of_replicas,
        py::arg("weight"),
        py::arg("shard"),
        py::arg("context"),
        NoGil());
  m.def("vocab_parallel_embedding",
        &layers::vocab_parallel_embedding,
        py::arg("input_ids"),
        py::arg("weight"),
        py::arg("padding_idx"),
        py::arg("context"),
        NoGil());
  m.def("vocab_parallel_cross_entropy",
        &cross_entropy_of_agreed_labels,
        py::arg("hidden"),
        py::arg("weight"),
        py::arg("labels"),
        py::arg("ignore_index"),
        py::arg("context"),
        NoGil());
}

}  // namespace mistral_ext::bindings
