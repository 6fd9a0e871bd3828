// select() itself: look, and park where there is nothing to report. selector_core.hpp says how it works.

#include "selector_impl.hpp"

#include <annulet_plants.hpp>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace annulet::detail {

namespace {

// Events that a key may have while nobody selects, before its request is taken back: a descriptor that is
// busy, and that nobody asks about, must not cost for ever.
constexpr unsigned most_unseen = 4;

}  // namespace

void selector_impl::note(registration& r) noexcept {
  if (!planted(plant::forgotten_candidate)) {
    candidates_.put(r);
  }
  // What the caller will look at, key and data, while poll(2) is asked.
  const auto* const record = reinterpret_cast<const std::byte*>(r.record().address());
  __builtin_prefetch(record);
  __builtin_prefetch(record + sizeof(key_record));
  if (parked_ != nullptr) {
    parked_->wake(wake_reason::ready);
  }
}

void selector_impl::note_event(registration& r) noexcept {
  failures_ = failures_ || r.error != 0;
  note(r);
  if (parked_ == nullptr && ++r.unseen >= most_unseen) {
    link_->hub.load(std::memory_order_relaxed)->io().clear_interest(r);
  }
}

// What has become a candidate since he asked, for others have asked the kernel meanwhile, he is told at once.
void selector_impl::tell(wait_place* who) noexcept {
  parked_ = who;
  if (who != nullptr && !candidates_.empty()) {
    who->wake(wake_reason::ready);
  }
}

void selector_impl::throw_parked(const char* call) {
  throw std::logic_error(std::string("annulet: ") + call +
                         ": another fiber is parked in this selector's select");
}

std::span<const ready_record> selector_impl::select(deadline until) {
  constexpr const char* call = "selector::select";
  hub_core& hub = unparked(call);
  // Other fibers run before the look, not after it: what is returned has to be true on the way out.
  if (until.is_past()) {
    hub.fibers().yield();
  } else {
    hub.fibers().breathe(ready_.size() + 1);  // what the caller was given to do last time
  }
  (void)unparked(call);
  for (bool last = until.is_past();;) {
    const auto ready = look(hub);
    if (last || !ready.empty()) {
      hub.io().flush_changes();  // arms the keys that ceased to be candidates; where it parks, the wait does
      return ready;
    }
    last = park(hub, until) == wake_reason::timed_out;
    (void)open(call);  // it may have been closed, also after something else had woken this fiber
  }
}

bool selector_impl::has_ready(const wait_place* who) {
  constexpr const char* call = "wait_any on a selector";
  hub_core& hub = who != nullptr && who == parked_ ? open(call) : unparked(call);
  const bool any = !look(hub).empty();
  hub.io().flush_changes();
  return any;
}

wake_reason selector_impl::park(hub_core& hub, deadline until) {
  struct parking {
    parking(selector_impl& s, waiter& w) noexcept : owner(s) { owner.parked_ = &w; }
    ~parking() { owner.parked_ = nullptr; }
    selector_impl& owner;
  };
  waiter w(hub.fibers().running(), "selector::select");
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
  candidates_.ask();
  candidates_.sweep([&](registration& r, io_event events) {
    r.unseen = 0;
    if (planted(plant::stale_candidate)) {
      events = r.events();
    }
    if (events == io_event::none) {
      hub.io().set_interest(r, r.lasting_interest());
      r.told = false;
      return !r.settled();  // it stays until it can be armed
    }
    ready_.push_back({&r.record(), events});  // add() made room
    return true;
  });
  return ready_;
}

// A request that was refused never means silence: the file is watched another way, or the caller is told.
void selector_impl::face_failures() {
  for (registration* const r : candidates_.keys()) {
    int error = std::exchange(r->error, 0);
    if (r->closed) {
      continue;  // reported without being watched; its number may be another's
    }
    if (error == EINVAL && !r->nested()) {
      error = r->nest();
    }
    if (error != 0 && error != EBADF) {
      throw std::system_error(
          error, std::generic_category(),
          "annulet: selector::select: " + number_text(r->number()) + " cannot be watched");
    }
  }
  failures_ = false;
}

}  // namespace annulet::detail
