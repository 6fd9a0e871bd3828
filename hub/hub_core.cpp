#include "hub_core.hpp"

#include "engine_choice.hpp"
#include "name_threads.hpp"
#include "syscalls.hpp"
#include "threaded_calls.hpp"

#include <annulet/runtime/check.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet_plants.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>

namespace annulet::detail {

constinit thread_local hub_core* hub_core::current_ = nullptr;
constinit thread_local hub_core* hub_core::of_caller_ = nullptr;

namespace {

constexpr unsigned posts_at_a_time = 64;

scheduler_options fiber_options(const hub_options& options) {
  if (options.look_every == 0) {
    throw std::invalid_argument("annulet: hub_options::look_every is 0, must be at least 1");
  }
  if (options.shutdown_limit <= std::chrono::nanoseconds::zero()) {
    throw std::invalid_argument("annulet: hub_options::shutdown_limit must be more than 0");
  }
  if (options.slow_slice < std::chrono::nanoseconds::zero()) {
    throw std::invalid_argument("annulet: hub_options::slow_slice must not be negative");
  }
  return {.stack_size = options.stack_size,
          .guard = options.guard,
          .look_every = options.look_every,
          .slow_slice = options.slow_slice.count(),
          .overflows = options.overflows};
}

}  // namespace

hub_core::hub_core(const hub_options& options)
    : scheduler_(*this, fiber_options(options)),
      call_signals_(*this, options.dump_signal),
      shutdown_limit_(options.shutdown_limit) {
  {
    const std::lock_guard no_fork(process_hub::mutex());  // a child knows of all its descriptors, or of none
    engine_ = make_engine(options);
    link_->share_wake_fd(engine_->wake_fd());
  }
  dump_signal_.emplace(options.dump_signal, *link_);  // may come on any thread now, and wakes this one
  link_->hub = this;
  current_ = this;
  of_caller_ = this;
}

hub_core::~hub_core() {
  check(current_ == this, "a hub was destroyed on another thread than its own");
  link_->posts.close();
  posted* rest = std::exchange(undelivered_, nullptr);  // off the hub first: their destructors may park
  while (rest != nullptr) {
    delete std::exchange(rest, inbox::next(*rest));
  }
  const bool unlimited = shutdown_limit_ == std::chrono::nanoseconds::max();
  const deadline limit = unlimited ? deadline::never() : deadline(shutdown_limit_);
  scheduler_.shut_down(limit);
  end_threads(limit);
  link_->rings.close();
  end_watches();
  of_caller_ = nullptr;  // a handler may call while the engine ends
  {
    const std::lock_guard no_fork(process_hub::mutex());
    engine_.reset();
  }
  link_->keep(std::move(by_fd_));
  link_->hub = nullptr;
  current_ = nullptr;
}

hub_core& hub_core::here(const char* call) {
  if (current_ == nullptr) {
    throw no_hub(std::string("annulet: ") + call + " needs a hub, and this thread has none");
  }
  return *current_;
}

void hub_core::throw_not_ours(const hub_core* hub, const char* call) {
  if (hub == nullptr) {
    throw hub_gone(std::string("annulet: ") + call + ": the hub that this belonged to has ended");
  }
  throw wrong_thread(std::string("annulet: ") + call + ": this belongs to the hub of another thread");
}

// --- what is under watch

fd_state& hub_core::make_state(int fd) {
  const auto at = static_cast<std::size_t>(fd);
  if (at >= by_fd_.size()) {
    by_fd_.resize(std::max(at + 1, by_fd_.size() * 2));
  }
  by_fd_[at] = std::make_unique<fd_state>(*this, fd);
  return *by_fd_[at];
}

void hub_core::attach(watch& w, int fd) {
  fd_state& file = state_of(fd);
  engine_->attach(w, fd);
  file.watchers.push_back(w);
  ++watched_;
}

void hub_core::detach(std::span<watch* const> watches) noexcept {
  engine_->let_go(watches);
  for (watch* const w : watches) {
    static_cast<list_hook<fd_tag>&>(*w).unlink();
    engine_->detach(*w);
  }
  watched_ -= watches.size();
}

// In batches, for this must not allocate: the descriptor may be replaced already, and a destructor comes here
// too.
template <class Each>
void hub_core::drain(watch_list& watches, Each&& each) noexcept {
  std::array<watch*, 64> batch;
  while (!watches.empty()) {
    std::size_t count = 0;
    while (count < batch.size() && !watches.empty()) {
      batch[count++] = &watches.pop_front();
    }
    each(std::span<watch* const>(batch).first(count));
  }
}

void hub_core::prepare_close(fd_state& file) noexcept {
  file.begin_closing();
  dismiss_watchers(file);
}

void hub_core::dismiss_watchers(fd_state& file) noexcept {
  drain(file.watchers, [this](std::span<watch* const> told) {
    for (watch* const w : told) {
      closed_.push_back(*w);
      w->on_close();
    }
    engine_->let_go(told);
  });
}

void hub_core::prepare_close_and_wait(fd_state& file) {
  prepare_close(file);
  file.await_requests();
  dismiss_watchers(file);  // who came meanwhile
  file.end_closing();
}

namespace {

bool lingers(int fd) noexcept {
  linger how{};
  socklen_t size = sizeof(how);
  return kernel(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &how, &size).ok() && how.l_onoff != 0 &&
         how.l_linger != 0;
}

}  // namespace

// The number is free at once. Where closing the file waits for what is unsent, it is closed as a request.
io_result hub_core::close_number(int fd) {
  const int lingering = hold_if_lingering(fd);
  const io_result closed = close_file(fd);
  if (lingering >= 0) {
    close_lingering(lingering);
  }
  return closed;
}

int hub_core::hold_if_lingering(int fd) noexcept {
  if (!lingers(fd) || !is_in_its_process()) {
    return -1;
  }
  const io_result duplicate = kernel(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
  return duplicate.ok() ? static_cast<int>(duplicate.value()) : -1;
}

void hub_core::close_lingering(int duplicate) {
  request r;
  engine_->start(r, {.what = operation::call::close, .fd = duplicate});
  while (!r.done()) {
    waiter w(scheduler_.running(), "close", duplicate);
    r.wait_with(&w);
    (void)scheduler_.park_uninterrupted(w, deadline::never(), wakers::outside);
    r.wait_with(nullptr);
  }
  if (r.result().error() == ENOMEM) {  // there was no thread for it, so this one has to wait
    (void)close_file(duplicate);
  }
}

void hub_core::end_watches() noexcept {
  const auto end = [this](std::span<watch* const> watches) {
    detach(watches);
    for (watch* const w : watches) {
      w->on_hub_end();
    }
  };
  drain(closed_, end);
  for (const auto& file : by_fd_) {
    if (file != nullptr) {
      drain(file->watchers, end);
    }
  }
}

void hub_core::leave_to_parent() noexcept {
  scheduler_.leave_to_parent();
  if (engine_ != nullptr) {  // else it was just being made, or had ended
    engine_->leave_to_parent();
  }
  call_signals_.leave_to_parent(current_ == this);
  link_->leave_to_parent();
  if (current_ == this) {
    current_ = nullptr;
    of_caller_ = nullptr;
  }
}

name_threads& hub_core::names() {
  if (names_ == nullptr) {
    names_ = std::make_shared<name_threads>();
  }
  return *names_;
}

// What was offloaded goes on though nobody waits for it any more.
void hub_core::end_threads(deadline limit) noexcept {
  while (!engine_->threads().none()) {
    (void)engine_->wait(limit);
    check(!limit.reached() || engine_->threads().none(),
          "the hub ends, and after its shutdown limit an offloaded function has not returned");
  }
}

// --- the world outside, for the scheduler

std::int64_t hub_core::about_now() const noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::int64_t hub_core::now() const noexcept {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool hub_core::has_outside_handles() const noexcept {
  return link_->handles.load(std::memory_order_acquire) != 0 || has_posts();
}

void hub_core::wait(deadline until) noexcept {
  const away from_callers;
  if (delivery_failed_) {
    until = std::min(until, deadline(std::chrono::milliseconds(10)));  // memory may be there again
  }
  const bool nothing_posted = link_->fall_asleep() && undelivered_ == nullptr;
  if (planted(plant::unsaid_sleep)) {
    link_->be_awake();
  }
  if (!nothing_posted && !delivery_failed_) {
    glance();  // no wait, but the descriptors have their turn
  } else if (call_signals_.none()) [[likely]] {
    (void)engine_->wait(until);
  } else if (!takes_in_at_once()) {
    call_signals_.wait(until);
  }
  link_->be_awake();
  call_signals_.after_look();
  deliver();
}

void hub_core::look() noexcept {
  const away from_callers;
  glance();
  call_signals_.after_look();
  deliver();
}

// Whether there was something, so that nobody waits and signals need not be seen to. The ring may show work
// that has been done already.
bool hub_core::takes_in_at_once() noexcept {
  const std::uint64_t before = engine_->taken_in();
  if (engine_->has_news() == engine::news::some) {
    glance();
  }
  // Ready also by a thread's call that has ended, which no event has told of yet.
  return engine_->taken_in() != before || scheduler_.ready_fibers() != 0;
}

bool hub_core::may_have_news() const noexcept {
  return call_signals_.was_told() || has_posts() || !link_->rings.empty() || link_->dump_is_asked() ||
         engine_->has_news() != engine::news::none;
}

// What other threads have left.
void hub_core::deliver() noexcept {
  if (link_->dump_was_asked()) [[unlikely]] {
    dump();
  }
  for (posted* ring = link_->rings.take(); ring != nullptr;) {
    const std::unique_ptr<posted> now(std::exchange(ring, inbox::next(*ring)));
    now->run();
  }
  if (has_posts()) {
    run_posts();
  }
}

void hub_core::dump() noexcept {
  try {
    report(scheduler_.dump(dump_format::text));
  } catch (const std::bad_alloc&) {
    report("there is no memory to list the fibers");
  }
}

// Until as many fibers were made ready as run before the next look. Had a thousand been, what was touched for
// the first of them, a watch and a waiter on a stack each, would have left the caches by the time that they
// run. Events that nobody waits for make none ready, and hold up nobody. What fires on and on is for the next
// look.
void hub_core::glance() noexcept {
  const std::size_t enough = scheduler_.ready_fibers() + scheduler_.look_every();
  std::size_t calls = watched_ / 8 + 8;  // of two pieces of work a watch, so many take in all
  while (engine_->glance() && --calls != 0 && scheduler_.ready_fibers() < enough) {
  }
}

// Each posted function becomes a fiber of its own, so it may park and throw. Some at a time: those that wait
// cost less as what they are, and who runs already has his turn.
void hub_core::run_posts() noexcept {
  for (unsigned left = posts_at_a_time; left != 0; --left) {
    if (undelivered_ == nullptr) {
      undelivered_ = link_->posts.take();
    }
    if (undelivered_ == nullptr) {
      break;
    }
    std::unique_ptr<posted> item(undelivered_);
    undelivered_ = inbox::next(*item);
    try {
      spawn(
          {.name = "posted", .place = {}}, [](const std::unique_ptr<posted>& p) { p->run(); },
          std::move(item));
    } catch (const std::exception& e) {
      undelivered_ = item.release();  // still linked to the rest
      if (!std::exchange(delivery_failed_, true)) {
        report(std::string("a posted function has to wait: ") + e.what());
      }
      return;
    }
  }
  delivery_failed_ = false;
}

}  // namespace annulet::detail
