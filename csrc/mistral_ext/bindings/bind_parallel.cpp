#include <torch/csrc/utils/pybind.h>

#include <chrono>
#include <string>

#include "mistral_ext/bindings/bindings.h"
#include "mistral_ext/parallel/shared_memory_backend.h"

namespace py = pybind11;

namespace mistral_ext::bindings {

void bind_parallel(py::module_& m) {
  m.def(
      "create_shared_memory_backend",
      [](const c10::intrusive_ptr<c10d::Store>& store,
         int rank,
         int size,
         int64_t timeout,
         const std::string& group) -> c10::intrusive_ptr<c10d::Backend> {
        return c10::make_intrusive<parallel::SharedMemoryBackend>(
            store, rank, size, std::chrono::milliseconds(timeout), group);
      },
      py::arg("store"),
      py::arg("rank"),
      py::arg("size"),
      py::arg("timeout"),
      py::arg("group"),
      // The store may be one written in Python, and waits for the other ranks.
      py::call_guard<py::gil_scoped_release>(),
      "The backend mistral_shm of one rank. timeout: in milliseconds.");
}

}  // namespace mistral_ext::bindings
