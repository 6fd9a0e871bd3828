// What a caller is told when it used the runtime in a way that cannot work, or when what it waited for did
// not come. All are std::logic_error or std::runtime_error, so a program that knows nothing of annulet can
// still print them. The errors that end a wait on purpose (fiber_killed, timeout_expired) are in
// cancellation.hpp.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>

namespace [[gnu::visibility("default")]] annulet {

// A call that needs a hub was made on a thread that has none.
class no_hub : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// A hub, or something that belongs to one (fiber handle, selector, event), was used from another thread.
class wrong_thread : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// The hub that a handle or a selector belonged to has ended.
class hub_gone : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// A call's own deadline came before what it waited for: of get(), and of calls on descriptors. code() is
// std::errc::timed_out; a connection that timed out by itself is a plain std::system_error with that code.
class deadline_passed : public std::system_error {
 public:
  explicit deadline_passed(const std::string& what)
      : std::system_error(std::make_error_code(std::errc::timed_out), what) {}
};

// Thrown by fiber<T>::get() for a fiber that was killed or that a timeout guard of its own ended.
// what() names the fiber.
class fiber_failed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown out of the main fiber's park when no fiber can ever run again: all are parked on primitives or
// joins of this thread, without a deadline, and nobody outside can wake one. what() lists them.
class deadlock : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown by future<T>::get() where the promise was destroyed before it was kept.
class broken_promise : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

// What is said of an error in a report.
[[nodiscard]] std::string what_of(const std::exception_ptr& error);
// Says on stderr that nobody has collected it.
void report_uncollected(const char* whose, const std::exception_ptr& error) noexcept;

}  // namespace detail

}  // namespace annulet
