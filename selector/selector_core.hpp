// The selector without its data type. How it works:
//
//   Each key owns a watch: one poll request that stays armed between calls. A *candidate* is a key about
//   which the kernel has to be asked: it was modified, or was reported last time, or its watch had an event
//   since. Every key that is not a candidate is armed (a new one by the next look or wait), and so will tell.
//
//   select() takes in what the ring has and asks poll(2), with timeout 0, about the candidates only. Those
//   that are ready are returned and stay candidates; the others are armed and cease to be. With none ready
//   the fiber parks; an event makes a candidate and wakes it, and it asks again. No mask of a completion is
//   ever returned.
//
// So what is returned was ready on the way out, nothing ready is missed, and the cost is that of what
// happened.
#pragma once

#include "counted.hpp"
#include "file_object.hpp"
#include "io_event.hpp"
#include "key.hpp"

#include <annulet/runtime/deadline.hpp>

#include <cstddef>
#include <span>
#include <stdexcept>

namespace [[gnu::visibility("default")]] annulet {

class hub;

// Python's KeyError: the descriptor is registered already, or is not registered.
class key_error : public std::out_of_range {
 public:
  using std::out_of_range::out_of_range;
};

namespace detail {

class wait_place;

// A key that is ready, and for what. The record is the registration's: copy it before anything else is
// called.
struct ready_record {
  const any_record* record;
  io_event events;
};

// Shared by the selector and the mappings taken from it. For its hub's thread. Calls throw hub_gone and
// wrong_thread as the public ones say; everything that fails changes nothing.
class selector_core : public counted {
 public:
  [[nodiscard]] static counted_pointer<selector_core> make(const hub* wanted);

  // For register_: the checks, in Python's order, then the key.
  virtual void require_registrable(const file_reference& file, io_event events) = 0;
  virtual void add(const any_record& record) = 0;
  // For modify: what is registered (the object stays the one it was registered by), then the new record in
  // the place of the old.
  virtual file_reference require_modifiable(const file_reference& file, io_event events) = 0;
  virtual void replace(const any_record& record) = 0;
  virtual any_record remove(const file_reference& file) = 0;
  virtual void remove_all(std::span<const file_reference> files) = 0;
  // Valid until the next call. Parks.
  virtual std::span<const ready_record> select(deadline until) = 0;
  [[nodiscard]] virtual any_record get_key(const file_reference& file) const = 0;
  virtual void close() = 0;

  // For who waits for other things too, in the place of a parked select: who hears when there may be
  // something to report; null when he has left.
  virtual void tell(wait_place* who) noexcept = 0;
  // Whether select() has something to report. For him, or where nobody is parked. Does not park.
  virtual bool has_ready(const wait_place* who) = 0;

  // For mappings; a closed selector's is empty.
  [[nodiscard]] virtual std::size_t size() const = 0;
  [[nodiscard]] virtual any_record find(const file_reference& file) const = 0;
  // Keys stand in numbered places that they keep: null where a place is free. Places end at this number.
  [[nodiscard]] virtual std::size_t places() const = 0;
  [[nodiscard]] virtual any_record at_place(std::size_t place) const = 0;

  [[noreturn]] static void throw_not_registered(const file_reference& file);
  [[noreturn, gnu::cold]] static void throw_closed(const char* call);
};

}  // namespace detail

}  // namespace annulet
