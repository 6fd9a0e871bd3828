#include "epoll_engine.hpp"

#include "syscalls.hpp"
#include "wake_up.hpp"

#include <annulet/runtime/check.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>

namespace annulet::detail {

namespace {

// They are told whether asked for or not.
constexpr std::uint32_t always_told = EPOLLERR | EPOLLHUP;
// What poll(2) says of a file that nobody can wait for.
constexpr std::uint16_t ready_for_good = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;

const char* way_out(int error) noexcept {
  switch (error) {
    case EMFILE:
      return ": this process may open no more descriptors: raise RLIMIT_NOFILE";
    case ENFILE:
      return ": the system may open no more files: raise sysctl fs.file-max";
    default:
      return "";
  }
}

[[noreturn]] void throw_refused(int error, const char* what) {
  throw std::system_error(error, std::generic_category(),
                          std::string("annulet: hub: ") + what + way_out(error));
}

}  // namespace

epoll_engine::epoll_engine() {
  info_.name = "epoll";
  if (wait_for_events(0, 1, nullptr).error() != EBADF) {  // of no set yet: what else is said is a filter's
    has_pwait2_ = false;
  }
  info_.features.emplace_back(has_pwait2_ ? "epoll_pwait2" : "epoll_wait, in milliseconds");
  const io_result set = kernel(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (!set.ok()) {
    throw_refused(set.error(), "epoll_create1");
  }
  epoll_fd_ = static_cast<int>(set.value());
  const io_result wakes = make_wake_fd();
  if (!wakes.ok()) {
    (void)kernel(SYS_close, epoll_fd_);
    throw_refused(wakes.error(), "eventfd for wake-ups");
  }
  wake_fd_ = static_cast<int>(wakes.value());
  if (const int error = add_wake_fd(epoll_fd_); error != 0) {
    (void)kernel(SYS_close, epoll_fd_);
    (void)kernel(SYS_close, wake_fd_);
    throw_refused(error, "eventfd for wake-ups");
  }
  calls_.emplace(wake_fd_);
}

void epoll_engine::leave_to_parent() noexcept {
  (void)kernel(SYS_close, epoll_fd_);
  (void)kernel(SYS_close, wake_fd_);
}

int epoll_engine::add_wake_fd(int set) noexcept {
  epoll_event wake{EPOLLIN | EPOLLET, {.u64 = wake_data}};
  return uninterrupted([&] { return kernel(SYS_epoll_ctl, set, EPOLL_CTL_ADD, wake_fd_, &wake); }).error();
}

epoll_engine::~epoll_engine() {
  calls_.reset();
  (void)kernel(SYS_close, epoll_fd_);
  (void)kernel(SYS_close, wake_fd_);
}

void epoll_engine::attach(watch& w, int fd) {
  if (const auto at = static_cast<std::size_t>(fd); at >= entries_.size()) {
    entries_.resize(std::max(at + 1, entries_.size() * 2));
  }
  w.slot_ = slots_.claim();
  slots_[w.slot_] = {&w, nobody};
  w.fd_ = fd;
  w.attached_ = true;
}

void epoll_engine::detach(watch& w) noexcept {
  check(w.state_ == watch::state::idle, "a watch was detached while it was armed");
  static_cast<list_hook<pending_tag>&>(w).unlink();
  slots_[w.slot_].owner = nullptr;
  slots_.give_back(w.slot_);
  w.attached_ = false;
}

// --- towards the kernel

void epoll_engine::flush() noexcept {
  // Those that change anew while they are told have their turn next time.
  intrusive_list<watch, pending_tag> now;
  while (!changed_.empty()) {
    now.push_back(changed_.pop_front());
  }
  while (!now.empty()) {
    reconcile(now.pop_front());
  }
  make_calls();
}

void epoll_engine::reconcile(watch& w) noexcept {
  if (w.wanted_ == 0) {
    leave(w);
    return;
  }
  if (planted(plant::refused_poll)) {
    leave(w);
    tell_refused(w, EINVAL);
  } else if (const int error = join(w); error != 0) {
    leave(w);
    tell_refused(w, error);
  }
}

// Arms it, or arms it otherwise. The level is checked anew in any case. Returns the errno.
int epoll_engine::join(watch& w) noexcept {
  if (static_cast<std::size_t>(w.fd_) >= entries_.size()) {
    try {
      entries_.resize(static_cast<std::size_t>(w.fd_) + 1);  // it was retargeted
    } catch (const std::bad_alloc&) {
      return ENOMEM;
    }
  }
  entry& at = entries_[static_cast<std::size_t>(w.fd_)];
  if (w.state_ != watch::state::armed) {
    slots_[w.slot_].next = std::exchange(at.first, w.slot_);
    w.state_ = watch::state::armed;
  }
  w.armed_ = w.wanted_;
  return hand_over(w.fd_, at);
}

void epoll_engine::leave(watch& w) noexcept {
  if (w.state_ != watch::state::armed) {
    return;
  }
  w.state_ = watch::state::idle;
  entry& at = entries_[static_cast<std::size_t>(w.fd_)];
  std::uint32_t* link = &at.first;
  while (*link != w.slot_) {
    link = &slots_[*link].next;
  }
  *link = std::exchange(slots_[w.slot_].next, nobody);
  if (at.first == nobody || interest_of(at) != at.events) {
    (void)hand_over(w.fd_, at);  // fails where the number was closed: nothing is to be taken back then
  }
}

// Regular files and their like have nothing to wait for: they are always ready, as poll(2) says, and nothing
// else ever happens to them.
void epoll_engine::tell_refused(watch& w, int error) noexcept {
  const std::uint16_t wanted = std::exchange(w.wanted_, std::uint16_t{0});
  if (error == EPERM && (wanted & ready_for_good) == 0) {
    return;
  }
  ++taken_in_;
  if (error == EINVAL && planted(plant::failed_poll)) {
    error = ENOMEM;
  }
  w.on_event(error == EPERM ? io_result(wanted & ready_for_good) : io_result(-error));
}

std::uint32_t epoll_engine::interest_of(const entry& at) noexcept {
  std::uint32_t all = EPOLLET;
  for (std::uint32_t i = at.first; i != nobody; i = slots_[i].next) {
    all |= slots_[i].owner->armed_;
  }
  return all;
}

// Makes the set's entry what its watches want. Returns the errno.
int epoll_engine::hand_over(int fd, entry& at) noexcept {
  if (at.first == nobody) {
    const bool was_there = std::exchange(at.events, 0) != 0;
    return was_there && !planted(plant::queued_cancel) ? control(EPOLL_CTL_DEL, fd, at) : 0;
  }
  const bool was_there = at.events != 0;
  at.events = interest_of(at);
  int error = was_there ? control(EPOLL_CTL_MOD, fd, at) : ENOENT;
  if (error == ENOENT) {  // none yet, or the number has another file now
    ++at.generation;
    error = control(EPOLL_CTL_ADD, fd, at);
  }
  if (error == EEXIST) {  // one that could not be named, and that can be now
    error = control(EPOLL_CTL_MOD, fd, at);
  }
  if (error != 0) {
    at.events = 0;
  }
  return error;
}

int epoll_engine::control(int operation, int fd, const entry& at) noexcept {
  epoll_event event{at.events, {.u64 = std::uint64_t{at.generation} << 32 | static_cast<std::uint32_t>(fd)}};
  ++counts_.requests;
  return uninterrupted([&] { return kernel(SYS_epoll_ctl, epoll_fd_, operation, fd, &event); }).error();
}

void epoll_engine::let_go(std::span<watch* const> watches) noexcept {
  for (watch* const w : watches) {
    w->wanted_ = 0;
    static_cast<list_hook<pending_tag>&>(*w).unlink();
    leave(*w);
  }
}

// Afterwards the number would not name the entry any more.
void epoll_engine::before_replacing(int fd) noexcept {
  if (static_cast<std::size_t>(fd) >= entries_.size()) {
    return;
  }
  entry& at = entries_[static_cast<std::size_t>(fd)];
  if (std::exchange(at.events, 0) != 0) {
    (void)control(EPOLL_CTL_DEL, fd, at);
    note_armed(at);
  }
}

void epoll_engine::note_armed(const entry& at) noexcept {
  for (std::uint32_t i = at.first; i != nobody; i = slots_[i].next) {
    note_change(*slots_[i].owner);
  }
}

// All that is registered is handed to a new set, and the old one goes with whatever nobody can name in it.
// The number stays: a program may count on those that it has closed.
void epoll_engine::begin_new_set() noexcept {
  stale_ = false;
  const io_result made = kernel(SYS_epoll_create1, EPOLL_CLOEXEC);
  if (!made.ok()) {
    return;  // no descriptor left: the next such event tries again
  }
  const int fresh = static_cast<int>(made.value());
  const bool replaced = add_wake_fd(fresh) == 0 && kernel(SYS_dup3, fresh, epoll_fd_, O_CLOEXEC).ok();
  (void)kernel(SYS_close, fresh);
  if (!replaced) {
    return;
  }
  for (entry& at : entries_) {
    at.events = 0;
    note_armed(at);
  }
}

// --- requests

void epoll_engine::start(request& r, const operation& what) noexcept {
  auto* const call = new (std::nothrow) threaded_call(r, what, &callable_);
  if (call == nullptr) {
    ++taken_in_;
    r.complete(io_result(-ENOMEM));
    return;
  }
  r.carrier = call;
  if (call->needs() == 0) {
    callable_.push_back(*call);
    unsubmitted_ = true;
    return;
  }
  if (const int error = call->refusal(); error != 0) {
    threaded_calls::finish(*call, io_result(-error));
    return;
  }
  try {
    attach(*call, what.fd);
    set_interest(*call, call->needs());
  } catch (const std::bad_alloc&) {
    threaded_calls::finish(*call, io_result(-ENOMEM));
  }
}

// Gives threads to those calls that can be made.
void epoll_engine::make_calls() noexcept {
  unsubmitted_ = false;
  while (!callable_.empty()) {
    auto& call = static_cast<threaded_call&>(callable_.pop_front());
    stop_waiting(call);
    if (!calls_->submit(call)) {
      ++taken_in_;
    }
  }
}

void epoll_engine::cancel(request& r) noexcept {
  auto& call = *static_cast<threaded_call*>(r.carrier);
  if (call.submitted) {
    calls_->cancel(call);
    return;
  }
  static_cast<list_hook<>&>(call).unlink();
  stop_waiting(call);
  threaded_calls::finish(call, io_result(-ECANCELED));
}

void epoll_engine::stop_waiting(threaded_call& call) noexcept {
  if (call.attached()) {
    const std::array<watch*, 1> self{&call};
    let_go(self);
    detach(call);
  }
}

// --- from the kernel

std::size_t epoll_engine::events_a_look() noexcept { return planted(plant::narrow_events) ? 1 : most_events; }
// Fewer, for fibers run before more are taken in.
std::size_t epoll_engine::events_a_wait() noexcept { return planted(plant::narrow_events) ? 1 : 64; }

unsigned epoll_engine::fetch(std::optional<std::int64_t> nanoseconds, std::size_t most,
                             const signal_mask* mask) noexcept {
  const io_result got = wait_for_events(nanoseconds, static_cast<int>(most), mask);
  interrupted_ = got.error() == EINTR;
  const bool refused = got.error() == ENOMEM;
  if (!refused) {
    refusals_.end();
  }
  if (!got.ok()) {
    if (!interrupted_ && !(refused && !refusals_.are_for_good())) {
      const bool lost = got.error() == EBADF || got.error() == EINVAL;  // EINVAL: the number is another's
      fail(std::string("hub: epoll_pwait: ") + std::strerror(got.error()) +
           (lost ? ": the descriptor was closed, and not by the hub" : ""));
    }
    return 0;  // signal handlers have run, or there is no memory just now
  }
  for (unsigned i = 0; i < got.value(); ++i) {
    dispatch(events_[i]);
  }
  if (stale_) [[unlikely]] {
    begin_new_set();
  }
  make_calls();
  return got.value();
}

void epoll_engine::dispatch(const epoll_event& event) noexcept {
  ++taken_in_;
  if (event.data.u64 == wake_data) {
    calls_->collect();
    return;
  }
  const entry& at = entries_[static_cast<std::uint32_t>(event.data.u64)];
  if (at.first == nobody || at.generation != event.data.u64 >> 32) {
    stale_ = true;
    return;
  }
  for (std::uint32_t i = at.first; i != nobody;) {
    watch& w = *slots_[i].owner;
    i = slots_[i].next;
    const std::uint32_t mask = event.events & (w.armed_ | always_told);
    if (mask != 0 && !planted(plant::lost_event)) {
      w.on_event(io_result(static_cast<int>(mask)));
    }
  }
}

void epoll_engine::look() noexcept {
  unsigned rounds = 0;
  do {
    flush();  // in a round too: a new set has to be told of everything before it can tell of anything
  } while (fetch(0, events_a_look()) == events_a_look() && ++rounds <= slots_.size() / events_a_look() + 1);
}

bool epoll_engine::glance() noexcept {
  calls_->tend();  // where fibers are always ready nothing else does
  flush();
  return fetch(0, events_a_wait()) == events_a_wait();
}

}  // namespace annulet::detail
