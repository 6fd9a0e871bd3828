#include "selector_core.hpp"

#include "selector_impl.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/syscalls.hpp>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include <fcntl.h>

namespace annulet::detail {

namespace {

void require_events(io_event events, const char* call) {
  constexpr auto known = io_event::read | io_event::write;
  if (events == io_event::none || (events & known) != events) {
    throw std::invalid_argument(std::string("annulet: ") + call +
                                ": events must be read, write or both, not " +
                                std::to_string(static_cast<unsigned>(events)));
  }
}

}  // namespace

counted_pointer<selector_core> selector_core::make(const hub* wanted) {
  hub_core* const here = hub_core::current();
  if (wanted != nullptr && &core_of(*wanted) != here) {
    throw wrong_thread("annulet: selector: the hub belongs to another thread");
  }
  return counted_pointer<selector_core>(new selector_impl(hub_core::here("selector")));
}

void selector_core::throw_not_registered(const file_reference& file) {
  if (file.fd < 0) {
    throw std::invalid_argument("annulet: selector: " + number_text(file.fd) +
                                " is negative, and no such object is registered");
  }
  throw key_error("annulet: selector: " + number_text(file.fd) + " is not registered");
}

void selector_core::throw_closed(const char* call) {
  throw std::runtime_error(std::string("annulet: ") + call + ": selector is closed");
}

// --- registering

void selector_impl::require_registrable(const file_reference& file, io_event events) {
  constexpr const char* call = "selector::register_";
  const hub_core& hub = open(call);
  require_events(events, call);
  const auto refuse = [&](const char* why) {
    throw std::invalid_argument(std::string("annulet: ") + call + ": " + number_text(file.fd) + why);
  };
  if (file.fd < 0) {
    refuse(" is negative");
  }
  if (keys_.lookup(file) != nullptr) {
    throw key_error(std::string("annulet: ") + call + ": " + number_text(file.fd) + " is registered already");
  }
  const auto flags = kernel(SYS_fcntl, file.fd, F_GETFL);
  const fd_state* const known = hub.find_state(file.fd);
  if (!flags.ok() || (known != nullptr && known->closing())) {
    refuse(" is not open");
  }
  if ((flags.value() & O_PATH) != 0) {
    refuse(" is an O_PATH descriptor, which has nothing to wait for");
  }
}

void selector_impl::add(const any_record& record) {
  hub_core& hub = open("selector::register_");
  const int fd = record.address()->fd;
  candidates_.make_room(keys_.size() + 1);
  ready_.reserve(candidates_.room());
  registration& r = keys_.claim(fd);
  hub.attach(r, fd);
  keys_.take(r, record);
  hub.io().set_interest(r, r.interest());  // which tells if it is ready already
}

file_reference selector_impl::require_modifiable(const file_reference& file, io_event events) {
  (void)open("selector::modify");
  require_events(events, "selector::modify");
  const registration& r = keys_.require(file);
  return {r.number(), r.record().address()->object};
}

void selector_impl::replace(const any_record& record) {
  (void)open("selector::modify");
  registration& r = keys_.require({record.address()->fd, {}});
  const any_record before = r.replace(record);  // held to the end
  if (before.address()->events == r.events()) {
    return;
  }
  if (r.nested() && !r.closed) {
    r.error = r.renest();
    failures_ = failures_ || r.error != 0;
  }
  note(r);
}

void selector_impl::forget(registration& r) noexcept {
  candidates_.remove(r);
  keys_.forget(r);
}

any_record selector_impl::remove(const file_reference& file) {
  hub_core& hub = open("selector::unregister");
  registration& r = keys_.require(file);
  const std::array<watch*, 1> watches{&r};
  hub.detach(watches);
  any_record record = r.record();
  forget(r);
  return record;
}

void selector_impl::remove_all(std::span<const file_reference> files) {
  hub_core& hub = open("selector::unregister_all");
  std::vector<watch*> named;
  std::vector<any_record> records;  // held to the end: their data's destructors are the user's
  named.reserve(files.size());
  records.reserve(files.size());
  const auto each_named = [&](auto&& fn) {
    std::ranges::for_each(named, [&](watch* w) { fn(static_cast<registration&>(*w)); });
  };
  const auto unname = [](registration& r) { r.named = false; };
  try {
    for (const file_reference& file : files) {
      registration& r = keys_.require(file);
      if (r.named) {
        throw key_error("annulet: selector::unregister_all: " + number_text(r.number()) + " is named twice");
      }
      r.named = true;
      named.push_back(&r);
      records.push_back(r.record());
    }
  } catch (...) {
    each_named(unname);
    throw;
  }
  each_named(unname);
  hub.detach(named);
  each_named([this](registration& r) { forget(r); });
}

void selector_impl::close() {
  if (closed_) {
    return;
  }
  hub_core* const hub = link_->hub.load(std::memory_order_relaxed);
  if (hub != nullptr) {
    (void)hub_core::of(*link_, "selector::close");
  }
  closed_ = true;
  // In batches, for a destructor comes here too and must not allocate.
  std::array<watch*, 256> batch;
  std::size_t count = 0;
  for (std::size_t place = 0; place < keys_.places(); ++place) {
    if (registration& r = keys_.at(place); hub != nullptr && r.attached()) {
      batch[count++] = &r;
    }
    if (hub != nullptr && (count == batch.size() || place + 1 == keys_.places())) {
      hub->detach(std::span(batch).first(count));
      count = 0;
    }
  }
  for (std::size_t place = 0; place < keys_.places(); ++place) {
    if (registration& r = keys_.at(place); r.taken()) {
      forget(r);
    }
  }
  if (parked_ != nullptr) {
    parked_->wake(wake_reason::closed);
  }
}

// --- looking things up

any_record selector_impl::get_key(const file_reference& file) const {
  (void)open("selector::get_key");
  return keys_.require(file).record();
}

std::size_t selector_impl::size() const {
  if (closed_) {
    return 0;
  }
  (void)open("selector mapping");
  return keys_.size();
}

any_record selector_impl::find(const file_reference& file) const {
  if (closed_) {
    return {};
  }
  (void)open("selector mapping");
  const registration* const r = keys_.lookup(file);
  return r == nullptr ? any_record() : r->record();
}

std::size_t selector_impl::places() const { return size() == 0 ? 0 : keys_.places(); }

any_record selector_impl::at_place(std::size_t place) const { return keys_.at(place).record(); }

}  // namespace annulet::detail
