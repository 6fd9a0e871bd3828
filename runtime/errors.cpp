#include "errors.hpp"

#include "check.hpp"

#include <cxxabi.h>

#include <new>
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

void report_uncollected(const char* whose, const std::exception_ptr& error) noexcept {
  try {
    report(std::string(whose) + " ended by an error that nobody collected: " + what_of(error));
  } catch (const std::bad_alloc&) {
    report("something ended by an error that nobody collected, and there is no memory to describe it");
  }
}

}  // namespace annulet::detail
