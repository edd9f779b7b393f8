#pragma once

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>

namespace mistral_ext::ops {

// The message of the ValueError that `call` throws; a failure of the test where it throws none.
template <typename Call>
std::string error_message(const Call& call) {
  try {
    call();
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace mistral_ext::ops
