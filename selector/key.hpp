// The record of a registration: Python's SelectorKey.
#pragma once

#include "file_object.hpp"
#include "io_event.hpp"

#include <atomic>
#include <utility>

namespace [[gnu::visibility("default")]] annulet {

namespace detail {

// Immutable once made, and counted. A typed record derives from it and adds the data.
class key_record {
 public:
  key_record(const file_reference& file, io_event wanted) noexcept
      : fd(file.fd), events(wanted), object(file.object) {}
  key_record(const key_record&) = delete;
  key_record& operator=(const key_record&) = delete;

  const int fd;           // the number, also when it has been closed
  const io_event events;  // what was asked for

  void hold() noexcept { holders_.fetch_add(1, std::memory_order_relaxed); }
  void drop() noexcept {
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete this;
    }
  }

  const object_identity object;

 protected:
  virtual ~key_record() = default;

 private:
  std::atomic<unsigned> holders_{1};
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

// One pointer, counted. Copying allocates nothing.
template <class Record>
class record_pointer {
 public:
  record_pointer() noexcept = default;
  // Takes over a count.
  explicit record_pointer(Record* counted) noexcept : record_(counted) {}
  record_pointer(const record_pointer& other) noexcept : record_(other.record_) {
    if (record_ != nullptr) {
      record_->hold();
    }
  }
  record_pointer(record_pointer&& other) noexcept : record_(std::exchange(other.record_, nullptr)) {}
  record_pointer& operator=(const record_pointer& other) noexcept {
    if (record_ != other.record_) {
      record_pointer(other).swap(*this);
    }
    return *this;
  }
  record_pointer& operator=(record_pointer&& other) noexcept {
    record_pointer(std::move(other)).swap(*this);
    return *this;
  }
  ~record_pointer() {
    if (record_ != nullptr) {
      record_->drop();
    }
  }

  [[nodiscard]] Record* address() const noexcept { return record_; }
  void swap(record_pointer& other) noexcept { std::swap(record_, other.record_); }

 private:
  Record* record_ = nullptr;
};

using any_record = record_pointer<key_record>;

}  // namespace detail

}  // namespace annulet
