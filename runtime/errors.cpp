#include "errors.hpp"

#include <cxxabi.h>

#include <typeinfo>

namespace annulet::detail {

std::string what_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    const std::type_info* const type = abi::__cxa_current_exception_type();
    return type == nullptr ? "not a C++ exception" : std::string("an object of type ") + type->name();
  }
}

}  // namespace annulet::detail
