#include "selector_core.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/hub/hub_core.hpp>
#include <annulet/hub/syscalls.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>

namespace annulet::detail {

namespace {

class selector_impl;

constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

// Events that a key may have while nobody selects, before its request is taken back: a descriptor that is
// busy, and that nobody asks about, must not cost for ever.
constexpr unsigned events_unseen = 4;

short poll_mask(io_event events) noexcept {
  return static_cast<short>((has(events, io_event::read) ? POLLIN : 0) |
                            (has(events, io_event::write) ? POLLOUT : 0));
}

// Python's rule: any bit but OUT means read, any bit but IN means write. So a hang-up or an error wakes both.
io_event events_of(short revents) noexcept {
  io_event events = io_event::none;
  if ((revents & ~POLLOUT) != 0) {
    events |= io_event::read;
  }
  if ((revents & ~POLLIN) != 0) {
    events |= io_event::write;
  }
  return events;
}

std::string number(int fd) { return "descriptor " + std::to_string(fd); }

// One registration. Stays where it is for as long as the selector lives, and serves others after it.
class entry final : public watch {
 public:
  entry(selector_impl& core, std::uint32_t its_place) noexcept : core_(core), place(its_place) {}
  ~entry() override { leave_nest(); }

  [[nodiscard]] bool taken() const noexcept { return record.address() != nullptr; }
  [[nodiscard]] int number() const noexcept { return record.address()->fd; }
  [[nodiscard]] short mask() const noexcept { return poll_mask(record.address()->events); }
  // What the watch has to be armed for: an epoll descriptor that stands for the file is readable when the
  // file is ready.
  [[nodiscard]] std::uint16_t interest() const noexcept {
    return static_cast<std::uint16_t>(nest_ < 0 ? mask() : POLLIN);
  }

  // io_uring refuses to poll files with more than two wait queues. An epoll descriptor of its own watches
  // such a one in its place. Returns 0 or the errno.
  int nest() noexcept;
  [[nodiscard]] int renest() noexcept;
  [[nodiscard]] bool nested() const noexcept { return nest_ >= 0; }
  void leave_nest() noexcept {
    if (nest_ >= 0) {
      (void)kernel(SYS_close, nest_);
      nest_ = -1;
    }
  }

  void on_event(io_result mask) noexcept override;
  void on_close() noexcept override;
  void on_hub_end() noexcept override {}

 private:
  selector_impl& core_;
  int nest_ = -1;

 public:
  any_record record;
  const std::uint32_t place;
  std::uint32_t candidate = none;  // where it stands among the candidates
  unsigned unseen = 0;             // events since a select asked about it
  int error = 0;                   // with which its request was refused
  bool closed = false;             // through the hub: reported for all it asked, whoever has the number now
  bool named = false;              // while remove_all checks its arguments
};

class selector_impl final : public selector_core {
 public:
  explicit selector_impl(hub_core& hub) : link_(hub.link()) {}
  ~selector_impl() override { close(); }

  void require_registrable(const file_reference& file, io_event events) override;
  void add(const any_record& record) override;
  int require_modifiable(const file_reference& file, io_event events) override;
  void replace(const any_record& record) override;
  any_record remove(const file_reference& file) override;
  void remove_all(std::span<const file_reference> files) override;
  std::span<const ready_record> select(deadline until) override;
  [[nodiscard]] any_record get_key(const file_reference& file) const override;
  void close() override;
  [[nodiscard]] std::size_t size() const override;
  [[nodiscard]] any_record find(const file_reference& file) const override;
  [[nodiscard]] std::size_t places() const override;
  [[nodiscard]] any_record at_place(std::size_t place) const override;

  // Something is to be asked about this one; a parked select does so at once.
  void note(entry& e) noexcept;
  void note_event(entry& e) noexcept;
  void note_failure() noexcept { failures_ = true; }

 private:
  hub_core& open(const char* call) const;
  hub_core& idle(const char* call) const;
  [[nodiscard]] entry* lookup(const file_reference& file) const noexcept;
  entry& require(const file_reference& file) const;
  entry& claim_place();
  void make_room_for_one_more();
  void forget(entry& e) noexcept;
  void remove_candidate(entry& e) noexcept;
  std::span<const ready_record> look(hub_core& hub);
  void face_failures();
  void poll_candidates();
  wake_reason park(hub_core& hub, deadline until);

  std::shared_ptr<hub_link> link_;
  std::vector<std::unique_ptr<entry>> entries_;  // by place
  std::vector<std::uint32_t> free_places_;
  std::vector<entry*> by_fd_;
  // The candidates, and beside each what poll(2) is asked: kept from call to call, never built anew.
  std::vector<entry*> candidates_;
  std::vector<pollfd> asked_;
  std::vector<ready_record> ready_;
  std::size_t size_ = 0;
  waiter* parked_ = nullptr;
  bool failures_ = false;  // some candidate has an error
  bool closed_ = false;
};

// --- one registration

int entry::nest() noexcept {
  const auto made = kernel(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (!made.ok()) {
    return made.error();
  }
  nest_ = static_cast<int>(made.value());
  epoll_event event{static_cast<std::uint32_t>(mask()), {}};
  if (const auto added = kernel(SYS_epoll_ctl, nest_, EPOLL_CTL_ADD, number(), &event); !added.ok()) {
    leave_nest();
    return added.error();
  }
  retarget(nest_);
  return 0;
}

int entry::renest() noexcept {
  epoll_event event{static_cast<std::uint32_t>(mask()), {}};
  return kernel(SYS_epoll_ctl, nest_, EPOLL_CTL_MOD, number(), &event).error();
}

void entry::on_event(io_result mask) noexcept {
  // EBADF needs no further word: the descriptor was closed behind the hub's back, and poll(2) will say so.
  if (!mask.ok() && mask.error() != EBADF) {
    error = mask.error();
    core_.note_failure();
  }
  core_.note_event(*this);
}

void entry::on_close() noexcept {
  closed = true;
  core_.note(*this);
}

// --- candidates

void selector_impl::note(entry& e) noexcept {
  if (e.candidate == none) {
    e.candidate = static_cast<std::uint32_t>(candidates_.size());
    candidates_.push_back(&e);  // there is room: add() made it
    asked_.push_back({e.number(), e.mask(), 0});
  }
  asked_[e.candidate].fd = e.closed ? -1 : e.number();
  asked_[e.candidate].events = e.mask();
  if (parked_ != nullptr) {
    parked_->wake(wake_reason::ready);
  }
}

void selector_impl::note_event(entry& e) noexcept {
  note(e);
  if (parked_ == nullptr && ++e.unseen >= events_unseen) {
    link_->hub.load(std::memory_order_relaxed)->io().clear_interest(e);
  }
}

void selector_impl::remove_candidate(entry& e) noexcept {
  if (e.candidate == none) {
    return;
  }
  entry& last = *candidates_.back();
  candidates_[e.candidate] = &last;
  asked_[e.candidate] = asked_.back();
  last.candidate = e.candidate;
  candidates_.pop_back();
  asked_.pop_back();
  e.candidate = none;
}

// --- registering

hub_core& selector_impl::open(const char* call) const {
  hub_core& hub = hub_core::of(*link_, call);
  if (closed_) {
    throw std::runtime_error(std::string("annulet: ") + call + ": selector is closed");
  }
  return hub;
}

entry* selector_impl::lookup(const file_reference& file) const noexcept {
  if (file.fd >= 0) {
    const auto at = static_cast<std::size_t>(file.fd);
    return at < by_fd_.size() ? by_fd_[at] : nullptr;
  }
  // An object that was closed has no number any more, but is still itself.
  const auto found = std::ranges::find_if(entries_, [&](const auto& e) {
    return e->taken() && file.object.same_as(e->record.address()->object);
  });
  return found == entries_.end() ? nullptr : found->get();
}

entry& selector_impl::require(const file_reference& file) const {
  entry* const e = lookup(file);
  if (e == nullptr) {
    throw_not_registered(file);
  }
  return *e;
}

void require_events(io_event events, const char* call) {
  constexpr auto known = io_event::read | io_event::write;
  if (events == io_event::none || (events & known) != events) {
    throw std::invalid_argument(std::string("annulet: ") + call +
                                ": events must be read, write or both, not " +
                                std::to_string(static_cast<unsigned>(events)));
  }
}

void selector_impl::require_registrable(const file_reference& file, io_event events) {
  (void)open("selector::register_");
  require_events(events, "selector::register_");
  if (file.fd < 0) {
    throw std::invalid_argument("annulet: selector::register_: " + number(file.fd) + " is negative");
  }
  if (lookup(file) != nullptr) {
    throw key_error("annulet: selector::register_: " + number(file.fd) + " is registered already");
  }
  const auto flags = kernel(SYS_fcntl, file.fd, F_GETFL);
  if (!flags.ok()) {
    throw std::invalid_argument("annulet: selector::register_: " + number(file.fd) + " is not open");
  }
  if ((flags.value() & O_PATH) != 0) {
    throw std::invalid_argument("annulet: selector::register_: " + number(file.fd) +
                                " is an O_PATH descriptor");
  }
}

// So that nothing allocates where nothing may be thrown: note() inside the engine, forget() in destructors.
void selector_impl::make_room_for_one_more() {
  const std::size_t wanted = size_ + 1;
  if (candidates_.capacity() < wanted) {
    const std::size_t room = wanted * 2 + 16;
    candidates_.reserve(room);
    asked_.reserve(room);
    ready_.reserve(room);
  }
}

entry& selector_impl::claim_place() {
  if (free_places_.empty()) {
    const auto place = static_cast<std::uint32_t>(entries_.size());
    free_places_.reserve(entries_.size() + 1);
    if (entries_.size() == entries_.capacity()) {
      entries_.reserve(entries_.size() * 2 + 16);
      free_places_.reserve(entries_.capacity());
    }
    entries_.push_back(std::make_unique<entry>(*this, place));
    free_places_.push_back(place);
  }
  return *entries_[free_places_.back()];
}

void selector_impl::add(const any_record& record) {
  hub_core& hub = open("selector::register_");
  const auto at = static_cast<std::size_t>(record.address()->fd);
  make_room_for_one_more();
  if (at >= by_fd_.size()) {
    by_fd_.resize(std::max(at + 1, by_fd_.size() * 2));
  }
  entry& e = claim_place();
  hub.attach(e, record.address()->fd);
  free_places_.pop_back();
  e.record = record;
  e.unseen = 0;
  e.error = 0;
  e.closed = false;
  by_fd_[at] = &e;
  ++size_;
  note(e);
}

int selector_impl::require_modifiable(const file_reference& file, io_event events) {
  (void)open("selector::modify");
  require_events(events, "selector::modify");
  return require(file).number();
}

void selector_impl::replace(const any_record& record) {
  (void)open("selector::modify");
  entry& e = *by_fd_[static_cast<std::size_t>(record.address()->fd)];
  const bool same_events = e.record.address()->events == record.address()->events;
  e.record = record;
  if (same_events) {
    return;
  }
  if (e.nested() && !e.closed) {
    e.error = e.renest();
    failures_ = failures_ || e.error != 0;
  }
  note(e);
}

void selector_impl::forget(entry& e) noexcept {
  remove_candidate(e);
  by_fd_[static_cast<std::size_t>(e.number())] = nullptr;
  e.leave_nest();
  e.record = {};
  free_places_.push_back(e.place);
  --size_;
}

any_record selector_impl::remove(const file_reference& file) {
  hub_core& hub = open("selector::unregister");
  entry& e = require(file);
  const std::array<watch*, 1> watches{&e};
  hub.detach(watches);
  any_record record = e.record;
  forget(e);
  return record;
}

void selector_impl::remove_all(std::span<const file_reference> files) {
  hub_core& hub = open("selector::unregister_all");
  std::vector<watch*> watches;
  std::vector<entry*> found;
  watches.reserve(files.size());
  found.reserve(files.size());
  try {
    for (const file_reference& file : files) {
      entry& e = require(file);
      if (e.named) {
        throw key_error("annulet: selector::unregister_all: " + number(e.number()) + " is named twice");
      }
      e.named = true;
      watches.push_back(&e);
      found.push_back(&e);
    }
  } catch (...) {
    std::ranges::for_each(found, [](entry* e) { e->named = false; });
    throw;
  }
  hub.detach(watches);
  for (entry* const e : found) {
    e->named = false;
    forget(*e);
  }
}

void selector_impl::close() {
  hub_core* const hub = link_->hub.load(std::memory_order_relaxed);
  if (closed_) {
    return;
  }
  if (hub != nullptr) {
    (void)hub_core::of(*link_, "selector::close");
  }
  closed_ = true;
  // In batches, for a destructor calls this and must not allocate.
  std::array<watch*, 256> batch;
  std::size_t count = 0;
  const auto let_go = [&] {
    if (hub != nullptr) {
      hub->detach(std::span(batch).first(count));
    }
    count = 0;
  };
  for (const auto& e : entries_) {
    if (e->taken()) {
      batch[count++] = e.get();
      if (count == batch.size()) {
        let_go();
      }
    }
  }
  let_go();
  for (const auto& e : entries_) {
    if (e->taken()) {
      forget(*e);
    }
  }
  if (parked_ != nullptr) {
    parked_->wake(wake_reason::closed);
  }
}

// --- selecting

hub_core& selector_impl::idle(const char* call) const {
  hub_core& hub = open(call);
  if (parked_ != nullptr) {
    throw std::logic_error(std::string("annulet: ") + call +
                           ": another fiber is parked in this selector's select");
  }
  return hub;
}

std::span<const ready_record> selector_impl::select(deadline until) {
  constexpr const char* call = "selector::select";
  hub_core& hub = idle(call);
  // Before the look, not after it: what is returned has to be true on the way out.
  if (until.is_past()) {
    hub.fibers().yield();
  } else {
    hub.fibers().breathe();
  }
  (void)idle(call);
  for (bool last = until.is_past();;) {
    const auto ready = look(hub);
    if (last || !ready.empty()) {
      hub.io().flush();  // keys that ceased to be candidates are armed now; where the fiber parks the wait
                         // does it
      return ready;
    }
    switch (park(hub, until)) {
      case wake_reason::closed:
        throw std::runtime_error("annulet: selector::select: selector is closed");
      case wake_reason::timed_out:
        last = true;
        break;
      default:
        break;
    }
  }
}

wake_reason selector_impl::park(hub_core& hub, deadline until) {
  struct parking {
    parking(selector_impl& s, waiter& w) noexcept : selector(s) { s.parked_ = &w; }
    ~parking() { selector.parked_ = nullptr; }
    selector_impl& selector;
  };
  waiter w(hub.fibers().running());
  const parking here(*this, w);
  return hub.fibers().park(w, until, wakers::outside);
}

// Asks about the candidates. The ready ones stay, the others are armed and leave.
std::span<const ready_record> selector_impl::look(hub_core& hub) {
  hub.io().look();
  ready_.clear();
  if (candidates_.empty()) {
    return ready_;
  }
  if (failures_) [[unlikely]] {
    face_failures();
  }
  poll_candidates();
  std::uint32_t kept = 0;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    entry& e = *candidates_[i];
    const io_event asked = e.record.address()->events;
    io_event events = e.closed ? asked : events_of(asked_[i].revents) & asked;
    if (planted(plant::stale_candidate)) {
      events = asked;
    }
    e.unseen = 0;
    if (events == io_event::none) {
      e.candidate = none;
      hub.io().set_interest(e, e.interest());
      continue;
    }
    ready_.push_back({&e.record, events});
    candidates_[kept] = &e;
    asked_[kept] = asked_[i];
    e.candidate = kept++;
  }
  candidates_.resize(kept);
  asked_.resize(kept);
  return ready_;
}

// poll(2) refuses more entries than RLIMIT_NOFILE, which may have been lowered since: then in parts.
void selector_impl::poll_candidates() {
  const std::span<pollfd> all(asked_);
  std::size_t part = all.size();
  for (std::size_t from = 0; from < all.size();) {
    const auto result = poll_now(all.subspan(from, std::min(part, all.size() - from)));
    if (result.ok()) {
      from += part;
    } else if (result.error() == EINVAL && part > 1) {
      part = (part + 1) / 2;
    } else {
      throw std::system_error(result.error(), std::generic_category(), "annulet: selector::select: poll");
    }
  }
}

// A request that was refused never means silence: the file is watched another way, or the caller is told.
void selector_impl::face_failures() {
  for (entry* const e : candidates_) {
    int error = std::exchange(e->error, 0);
    if (error == EINVAL && !e->nested()) {
      error = e->nest();
    }
    if (error != 0 && error != EBADF) {
      throw std::system_error(error, std::generic_category(),
                              "annulet: selector::select: " + number(e->number()) + " cannot be watched");
    }
  }
  failures_ = false;
}

// --- looking things up

any_record selector_impl::get_key(const file_reference& file) const {
  (void)open("selector::get_key");
  return require(file).record;
}

std::size_t selector_impl::size() const {
  if (!closed_) {
    (void)open("mapping::size");
  }
  return size_;
}

any_record selector_impl::find(const file_reference& file) const {
  if (!closed_) {
    (void)open("mapping");
  }
  const entry* const e = lookup(file);
  return e == nullptr ? any_record() : e->record;
}

std::size_t selector_impl::places() const { return size() == 0 ? 0 : entries_.size(); }

any_record selector_impl::at_place(std::size_t place) const { return entries_[place]->record; }

}  // namespace

std::shared_ptr<selector_core> selector_core::make(const hub* wanted) {
  hub_core& here = hub_core::here("selector");
  if (wanted != nullptr && &core_of(*wanted) != &here) {
    throw wrong_thread("annulet: selector: the hub belongs to another thread");
  }
  return std::make_shared<selector_impl>(here);
}

void selector_core::throw_not_registered(const file_reference& file) {
  if (file.fd < 0) {
    throw std::invalid_argument("annulet: selector: " + number(file.fd) +
                                " is negative, and no such object is registered");
  }
  throw key_error("annulet: selector: " + number(file.fd) + " is not registered");
}

}  // namespace annulet::detail
