// Python's selectors API for fibers: select() parks the calling fiber, and the thread goes on with the
// others.
//
//   annulet::selector sel;
//   sel.register_(listener, annulet::io_event::read, std::string("accept"));
//   for (;;) {
//     for (auto& [key, events] : sel.select()) {
//       ...  // key->fd, key->events, key->data, key->get<Socket>()
//     }
//   }
//
// Exact and level-triggered: what select() returns was ready when it looked, on the way out, and what is
// ready and registered is returned again until consumed. Sockets, pipes, ttys, eventfd, timerfd, signalfd,
// pidfd, epoll descriptors and regular files (always ready, as for poll(2)) all work; there is no upper limit
// on descriptors.
//
// A selector belongs to the thread of its hub. Its calls throw wrong_thread elsewhere and hub_gone when the
// hub has ended, but for get_map, and for close where nothing is left to do; after close() all others throw
// std::runtime_error "selector is closed". A call that throws has changed nothing. Only select parks.
#pragma once

#include "file_object.hpp"
#include "io_event.hpp"
#include "key.hpp"
#include "selector_core.hpp"

#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/wait_case.hpp>

#include <any>
#include <cstddef>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

namespace annulet {

// What a key's pointer shows: key->fd, key->events, key->data, key->get<Socket>().
// A handle to an immutable record: it stays valid after unregister and close, and may outlive selector and
// hub. Copying allocates nothing. All copies are for one thread, the hub's; the count of them is plain.
template <class Data>
class selector_key {
 public:
  using record = detail::typed_record<Data>;

  selector_key() noexcept = default;
  explicit selector_key(detail::any_record r) noexcept : record_(std::move(r)) {}

  // The data may be changed through any copy of the key.
  [[nodiscard]] record* operator->() const noexcept { return static_cast<record*>(record_.address()); }
  [[nodiscard]] record& operator*() const noexcept { return *operator->(); }
  [[nodiscard]] explicit operator bool() const noexcept { return record_.address() != nullptr; }
  // The same registration; a modify makes another.
  [[nodiscard]] friend bool operator==(const selector_key& a, const selector_key& b) noexcept {
    return a.record_.address() == b.record_.address();
  }

 private:
  template <class>
  friend class basic_selector;

  detail::any_record record_;
};

// A live, read-only view of what is registered: fd -> key. Shares ownership of the selector's inside, and is
// empty once that is closed. Iterating while registrations come and go visits each key that stayed exactly
// once.
template <class Data>
class selector_mapping {
 public:
  using key_type = selector_key<Data>;
  using value_type = std::pair<int, key_type>;

  class iterator {
   public:
    using value_type = selector_mapping::value_type;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;

    iterator() noexcept = default;
    iterator(const detail::selector_core& core, std::size_t place) : core_(&core), place_(place) { settle(); }

    [[nodiscard]] value_type operator*() const { return {key_->fd, key_}; }
    iterator& operator++() {
      ++place_;
      settle();
      return *this;
    }
    void operator++(int) { ++*this; }
    [[nodiscard]] friend bool operator==(const iterator& i, std::default_sentinel_t) noexcept {
      return !i.key_;
    }

   private:
    // Moves on to the next place that is taken, and holds its key: it can be read even if it is unregistered
    // meanwhile.
    void settle() {
      key_ = {};
      for (; place_ < core_->places(); ++place_) {
        if (key_type key(core_->at_place(place_)); key) {
          key_ = std::move(key);
          return;
        }
      }
    }

    const detail::selector_core* core_ = nullptr;
    std::size_t place_ = 0;
    key_type key_;
  };

  explicit selector_mapping(detail::counted_pointer<const detail::selector_core> core) noexcept
      : core_(std::move(core)) {}

  [[nodiscard]] std::size_t size() const { return core_->size(); }
  [[nodiscard]] bool empty() const { return size() == 0; }
  template <file_object F>
  [[nodiscard]] bool contains(F&& file) const {
    return core_->find(detail::refer_to(std::forward<F>(file))).address() != nullptr;
  }
  // Throws key_error where it is not registered.
  template <file_object F>
  [[nodiscard]] key_type operator[](F&& file) const {
    const auto reference = detail::refer_to(std::forward<F>(file));
    key_type key(core_->find(reference));
    if (!key) {
      detail::selector_core::throw_not_registered(reference);
    }
    return key;
  }
  [[nodiscard]] iterator begin() const { return iterator(*core_, 0); }
  [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

 private:
  detail::counted_pointer<const detail::selector_core> core_;
};

template <class Data = std::any>
class basic_selector {
 public:
  using key_type = selector_key<Data>;
  using mapping = selector_mapping<Data>;
  struct ready_type {
    key_type key;
    io_event events;  // of those asked for, the ones that are ready
  };

  // On this thread's hub. Throws no_hub.
  basic_selector() : core_(detail::selector_core::make(nullptr)) {}
  // The hub must be this thread's, else wrong_thread.
  explicit basic_selector(hub& h) : core_(detail::selector_core::make(&h)) {}
  basic_selector(const basic_selector&) = delete;
  basic_selector& operator=(const basic_selector&) = delete;
  // Closes. A fiber parked in select() gets the closed error.
  ~basic_selector() { close(); }

  // Watches a descriptor, or an object that has one. Throws std::invalid_argument for no or unknown event
  // bits and for a descriptor that is negative, not open or O_PATH; key_error where the number is registered
  // already; std::system_error, std::bad_alloc where memory or descriptors ran out.
  template <file_object F>
  key_type register_(F&& file, io_event events, Data data = {}) {
    const auto reference = detail::refer_to(std::forward<F>(file));
    core_->require_registrable(reference, events);
    detail::any_record record(new detail::typed_record<Data>(reference, events, std::move(data)));
    core_->add(record);
    return key_type(std::move(record));
  }

  // Changes events and data of what is registered; the old key keeps the old ones. Asks the kernel nothing: a
  // descriptor closed meanwhile shows at the next select. Throws std::invalid_argument (events) and
  // key_error.
  template <file_object F>
  key_type modify(F&& file, io_event events, Data data = {}) {
    const auto reference = core_->require_modifiable(detail::refer_to(std::forward<F>(file)), events);
    detail::any_record record(new detail::typed_record<Data>(reference, events, std::move(data)));
    core_->replace(record);
    return key_type(std::move(record));
  }

  // When it returns the kernel holds nothing of the file any more: a bare close(2) after it is a close. Works
  // for a descriptor that was closed, or closed and reused. Throws key_error.
  template <file_object F>
  key_type unregister(F&& file) {
    return key_type(core_->remove(detail::refer_to(std::forward<F>(file))));
  }

  // The same for many in one batch. Throws key_error where one is not registered, or named twice; then all
  // stay.
  template <std::ranges::input_range Range>
  requires file_object<std::ranges::range_reference_t<Range>>
  void unregister_all(Range&& files) {
    std::vector<detail::file_reference> references;
    if constexpr (std::ranges::sized_range<Range>) {
      references.reserve(static_cast<std::size_t>(std::ranges::size(files)));
    }
    for (auto&& file : files) {
      references.push_back(detail::refer_to(std::forward<decltype(file)>(file)));
    }
    core_->remove_all(references);
  }

  // What is ready now, or becomes so first; empty where the deadline came first. never() parks until
  // something is ready; a duration of zero or less looks once, and lets other fibers run. Meanwhile other
  // fibers may register, modify, unregister and close, and it takes effect at once; a second one that selects
  // gets std::logic_error. Throws std::system_error, naming the descriptor, where the kernel refuses to watch
  // one (the key stays registered).
  [[nodiscard]] std::vector<ready_type> select(deadline until = deadline::never()) {
    std::vector<ready_type> out;
    select(out, until);
    return out;
  }

  // The same into a vector that is cleared and reused; returns how many there are.
  std::size_t select(std::vector<ready_type>& out, deadline until = deadline::never()) {
    const auto core = core_;  // this selector may be destroyed meanwhile
    out.resize(0);
    const auto ready = core->select(until);
    out.reserve(ready.size());
    for (const auto& [record, events] : ready) {
      out.push_back({key_type(*record), events});
    }
    return out.size();
  }

  // Throws key_error.
  template <file_object F>
  [[nodiscard]] key_type get_key(F&& file) const {
    return key_type(core_->get_key(detail::refer_to(std::forward<F>(file))));
  }

  [[nodiscard]] mapping get_map() const {
    return mapping(detail::counted_pointer<const detail::selector_core>(core_));
  }

  // Unregisters everything, and wakes a parked select with the closed error. Twice is fine.
  void close() {
    const auto core = core_;  // a key's data may own this selector
    core->close();
  }

 private:
  template <class>
  friend class detail::case_of;

  detail::counted_pointer<detail::selector_core> core_;
};

namespace detail {

// For wait_any (runtime/wait_any.hpp). One that is chosen has reported nothing yet: its select() does.
template <class Data>
class case_of<basic_selector<Data>> final : public wait_case {
 public:
  static constexpr bool lasting = false;

  explicit case_of(basic_selector<Data>& s) noexcept : core_(s.core_) {}
  bool take() override { return core_->has_ready(nullptr); }
  void enlist(waiter& w) override {
    w.stand_in(place_.emplace(w, true));
    core_->tell(&*place_);
  }
  [[nodiscard]] const wait_place* place() const noexcept override { return place_ ? &*place_ : nullptr; }
  bool was_told() override { return core_->has_ready(&*place_); }
  [[noreturn]] void throw_closed(const char* call) const override { selector_core::throw_closed(call); }
  [[nodiscard]] bool hears_hints() const noexcept override { return true; }
  void leave() noexcept override {
    core_->tell(nullptr);
    place_.reset();
  }
  [[nodiscard]] bool is_outside() const noexcept override { return true; }

 private:
  const counted_pointer<selector_core> core_;  // the selector may go meanwhile
  std::optional<wait_place> place_;
};

}  // namespace detail

using selector = basic_selector<>;
using default_selector = selector;

}  // namespace annulet
