#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/cache/kv_cache.h"

namespace py = pybind11;

namespace mistral_ext::bindings {

using cache::KVCache;
using cache::KVCacheLayer;

void bind_cache(py::module_& m) {
  py::class_<KVCacheLayer>(m, "KVCacheLayer", "Keys and values of one layer.")
      .def_property_readonly("keys",
                             &KVCacheLayer::keys,
                             "[batch, kv_heads, kept, head_dim], oldest first; None while empty. A "
                             "view where the slots\n"
                             "are in order.")
      .def_property_readonly("values", &KVCacheLayer::values)
      .def_property_readonly("window", &KVCacheLayer::window)
      .def_property_readonly("seen", &KVCacheLayer::seen)
      .def_property_readonly("capacity", &KVCacheLayer::capacity)
      .def_property_readonly("batch_size", &KVCacheLayer::batch_size)
      .def_property_readonly("is_initialized", &KVCacheLayer::is_initialized)
      .def_property_readonly("records_past", &KVCacheLayer::records_past)
      .def(
          "update",
          [](KVCacheLayer& layer,
             const at::Tensor& key,
             const at::Tensor& value,
             bool differentiable) {
            auto all = layer.update(key.transpose(1, 2), value.transpose(1, 2), differentiable);
            return std::make_pair(all.key.transpose(1, 2), all.value.transpose(1, 2));
          },
          py::arg("key"),
          py::arg("value"),
          py::arg("differentiable") = false,
          "Appends [batch, kv_heads, new, head_dim] and returns all that the new queries see, in\n"
          "slot order (see extent).")
      .def(
          "extent",
          [](const KVCacheLayer& layer, int64_t new_tokens, bool differentiable) {
            const auto extent = layer.extent(new_tokens, differentiable);
            return std::make_tuple(extent.length, extent.first_position, extent.rotation);
          },
          py::arg("new_tokens"),
          py::arg("differentiable") = false,
          "(number of keys, position of the oldest, its slot) for an update of new_tokens.")
      .def("assign", &KVCacheLayer::assign, py::arg("keys"), py::arg("values"), py::arg("seen"))
      .def("reserve", &KVCacheLayer::reserve, py::arg("tokens"))
      .def("drop_last", &KVCacheLayer::drop_last, py::arg("tokens"))
      .def("record_past", &KVCacheLayer::record_past, py::arg("record") = true)
      .def("select_rows", &KVCacheLayer::select_rows, py::arg("indices"))
      .def("repeat_rows", &KVCacheLayer::repeat_rows, py::arg("repeats"))
      .def("reset", &KVCacheLayer::reset);

  py::class_<KVCache, std::shared_ptr<KVCache>>(m, "KVCache", "Keys and values of every layer.")
      .def(py::init<const std::vector<int64_t>&>(),
           py::arg("windows"),
           "windows: one entry a layer, the keys a query sees; 0 is all.")
      .def("layer",
           py::overload_cast<int64_t>(&KVCache::layer),
           py::arg("index"),
           py::return_value_policy::reference_internal)
      .def("__len__", &KVCache::num_layers)
      .def_property_readonly("seen", &KVCache::seen)
      .def_property_readonly("batch_size", &KVCache::batch_size)
      .def_property_readonly("nbytes", &KVCache::nbytes)
      .def("reserve", &KVCache::reserve, py::arg("tokens"))
      .def("drop_last", &KVCache::drop_last, py::arg("tokens"))
      .def("record_past", &KVCache::record_past, py::arg("record") = true)
      .def("select_rows", &KVCache::select_rows, py::arg("indices"))
      .def("repeat_rows", &KVCache::repeat_rows, py::arg("repeats"))
      .def("reset", &KVCache::reset);
}

}  // namespace mistral_ext::bindings
