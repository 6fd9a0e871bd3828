// What the runtime knows of one fiber. It lies at the top of the fiber's own stack, together with the
// callable and the result, so a warm spawn allocates nothing.
//
// Life: spawn builds it and queues it; it runs, yields and parks on its own stack; when the body has ended it
// is `done`. The stack goes back to the pool when the switch away from it is over and no handle is left,
// whichever comes last.
#pragma once

#include "intrusive_list.hpp"
#include "stack.hpp"
#include "waiter.hpp"

#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <exception>
#include <source_location>
#include <string>
#include <string_view>

namespace annulet {

class [[gnu::visibility("default")]] timeout;  // as where it is defined: the first mention decides

namespace detail {

enum class fiber_state : std::uint8_t { ready, running, parked, done };
enum class fiber_outcome : std::uint8_t { none, value, error, killed, timed_out };

// The layout that the Itanium C++ ABI gives to __cxa_eh_globals.
struct exception_state {
  void* caught = nullptr;
  unsigned uncaught = 0;
};

// What every switch touches, in one cache line.
struct alignas(64) switch_state {
  void* context = nullptr;     // where to resume; valid while not running
  exception_state exceptions;  // valid while switched away
  int saved_errno = 0;         // likewise
  fiber_state state = fiber_state::ready;
  bool interrupt_pending = false;  // kill_pending, or an expired guard: looked at by each park and yield
  bool has_handle = false;
  bool ending = false;  // callable or result are being destroyed: no destructor is ended by a kill
  std::uint32_t shields = 0;
  waiter* parked_on = nullptr;
  std::atomic<scheduler*> owner{nullptr};  // null once the hub has ended; read by handles of any thread
};

// A fiber_local's value for one fiber, in a list of all of that fiber's.
struct local_slot {
  local_slot* next = nullptr;
  std::uint64_t variable = 0;
  void (*destroy)(local_slot&) noexcept = nullptr;
};

class control_block;

// A group, as its members' ends know it.
class member_keeper {
 public:
  // It has failed, and nobody has collected that.
  virtual void take_error(control_block& member) noexcept = 0;
  // It has ended, and all that it had is destroyed.
  virtual void let_go(control_block& member) noexcept = 0;

 protected:
  ~member_keeper() = default;
};

struct expired_tag;
struct all_fibers_tag;
struct group_tag;

class [[gnu::visibility("default")]] control_block : public switch_state,
                                                     public list_hook<all_fibers_tag>,
                                                     public list_hook<group_tag> {
 public:
  control_block() = default;

  // Runs the body on the fiber's own stack and keeps its value; destroys the callable in any case.
  void (*run)(control_block&) = nullptr;
  // Destroys the callable without running it.
  void (*skip)(control_block&) noexcept = nullptr;
  // Destroys the value, if there is one. The error is the control block's own.
  void (*discard_value)(control_block&) noexcept = nullptr;

  wait_line joiners;
  member_keeper* keeper = nullptr;               // whose member it is
  local_slot* locals = nullptr;                  // owned; the newest first
  intrusive_list<timeout, expired_tag> expired;  // guards that have yet to be thrown, in order of expiry
  std::exception_ptr error;
  std::uint64_t id = 0;
  std::source_location place;
  stack memory;
  fiber_outcome outcome = fiber_outcome::none;
  const timeout* ended_by = nullptr;  // the guard that interrupted the last park, where it was one
  bool kill_pending = false;
  bool deadlocked = false;
  bool error_collected = false;
  bool value_taken = false;

  [[nodiscard]] std::string_view name() const noexcept { return {name_.data(), name_length_}; }
  void set_name(std::string_view name) noexcept;
  // Of one that has ended without a value: what get() throws.
  [[nodiscard]] std::exception_ptr failure() const;
  // `fiber 7 "ticker" (spawned at main.cpp:12)`; of a name what is no character, such as a line's end, is
  // written as a number.
  [[nodiscard]] std::string describe() const;
  // The same in pieces, for who must not allocate.
  template <class Append>
  void describe_by(Append && append) const noexcept(noexcept(append(std::string_view{})));

 protected:
  ~control_block() = default;

 private:
  static constexpr std::size_t longest_name = 31;
  std::array<char, longest_name> name_{};
  std::uint8_t name_length_ = 0;
};

template <class Append>
void control_block::describe_by(Append&& append) const noexcept(noexcept(append(std::string_view{}))) {
  std::array<char, 20> digits;
  const auto number = [&](std::uint64_t n) {
    const char* const end = std::to_chars(digits.data(), digits.data() + digits.size(), n).ptr;
    append(std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data())));
  };
  append("fiber ");
  number(id);
  if (name_length_ != 0) {
    append(" \"");
    for (const char& c : name()) {
      const auto code = static_cast<unsigned char>(c);
      if (code < 0x20 || code == 0x7f) {
        constexpr std::string_view digit = "0123456789abcdef";
        append("\\x");
        append(digit.substr(code / 16, 1));
        append(digit.substr(code % 16, 1));
      } else {
        append(std::string_view(&c, 1));
      }
    }
    append("\"");
  }
  if (place.line() != 0) {
    append(" (spawned at ");
    append(place.file_name());
    append(":");
    number(place.line());
    append(")");
  }
}

}  // namespace detail

}  // namespace annulet
