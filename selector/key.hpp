// The record of a registration: Python's SelectorKey.
#pragma once

#include "counted.hpp"
#include "file_object.hpp"
#include "io_event.hpp"

#include <utility>

namespace [[gnu::visibility("default")]] annulet {

namespace detail {

// Immutable once made. A typed record derives from it and adds the data.
class key_record : public counted {
 public:
  key_record(const file_reference& file, io_event wanted) noexcept
      : fd(file.fd), events(wanted), object(file.object) {}

  const int fd;           // the number, also when it has been closed
  const io_event events;  // what was asked for
  const object_identity object;
};

template <class Data>
class typed_record final : public key_record {
 public:
  typed_record(const file_reference& file, io_event wanted, Data&& value)
      : key_record(file, wanted), data(std::move(value)) {}

  Data data;

  // The object that was registered, or null: a plain descriptor, another type, or a const one asked for
  // without const.
  template <class Object>
  [[nodiscard]] Object* get() const noexcept {
    if (object.address == nullptr || *object.type != typeid(std::remove_const_t<Object>) ||
        (object.is_const && !std::is_const_v<Object>)) {
      return nullptr;
    }
    return static_cast<Object*>(const_cast<void*>(object.address));
  }
};

using any_record = counted_pointer<key_record>;

}  // namespace detail

}  // namespace annulet
