#include "shared_mutex.hpp"

#include "control_block.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace annulet {

using detail::wake_reason;

struct shared_mutex::queued : detail::waiter, detail::list_hook<visit_tag> {
  queued(detail::control_block& fiber, const char* call, wish w) noexcept : waiter(fiber, call), wants(w) {}
  const wish wants;
  bool destroyed = false;
};

shared_mutex::~shared_mutex() {
  visitors_.for_each([](queued& each) { each.destroyed = true; });
}

void shared_mutex::require_not_writer(const char* call) {
  if (writer_ == waiting_.running().id) {
    throw std::logic_error(std::string("annulet: ") + call + ": " + waiting_.running().describe() +
                           " has it for writing already");
  }
}

void shared_mutex::require_not_reader(const char* call) {
  if (std::ranges::find(readers_, waiting_.running().id) != readers_.end()) {
    throw std::logic_error(std::string("annulet: ") + call + ": " + waiting_.running().describe() +
                           " has it for reading, and would wait for itself");
  }
}

// For one more reader. What is handed over finds it made.
void shared_mutex::make_room() {
  const std::size_t needed = readers_.size() + waiting_readers_ + 1;
  if (needed > readers_.capacity()) {
    readers_.reserve(needed * 2);
  }
}

bool shared_mutex::lock(deadline until) {
  constexpr const char* call = "shared_mutex::lock";
  waiting_.begin(call, in_use());
  require_not_writer(call);
  if (!in_use()) {
    writer_ = waiting_.running().id;
    waiting_.breathe();
    return true;
  }
  require_not_reader(call);
  queued w(waiting_.running(), call, wish::writing);
  return wait(w, until);
}

bool shared_mutex::lock_shared(deadline until) {
  constexpr const char* call = "shared_mutex::lock_shared";
  waiting_.begin(call, in_use());
  require_not_writer(call);
  make_room();
  if (writer_ == nobody && waiting_.empty()) {
    readers_.push_back(waiting_.running().id);
    waiting_.breathe();
    return true;
  }
  require_not_reader(call);
  queued w(waiting_.running(), call, wish::reading);
  return wait(w, until);
}

// A writer that gives up may have been all that kept the readers behind it waiting.
bool shared_mutex::wait(queued& w, deadline until) {
  if (until.is_past()) {
    detail::wait_queue::breathe();
    return false;
  }
  visitors_.push_back(w);
  const std::size_t reads = w.wants == wish::reading ? 1 : 0;
  waiting_readers_ += reads;
  const wake_reason why = waiting_.park_and_tell(w, until);
  if (why == wake_reason::ready) {
    return true;
  }
  if (!w.destroyed) {
    waiting_readers_ -= reads;
    serve();
  }
  if (why != wake_reason::timed_out) {
    detail::wait_queue::throw_cause(why, w.what());
  }
  return false;
}

bool shared_mutex::try_lock() {
  waiting_.require_own_thread("shared_mutex::try_lock", in_use());
  if (in_use()) {
    return false;
  }
  writer_ = waiting_.running().id;
  return true;
}

bool shared_mutex::try_lock_shared() {
  waiting_.require_own_thread("shared_mutex::try_lock_shared", in_use());
  if (writer_ != nobody || !waiting_.empty()) {
    return false;
  }
  make_room();
  readers_.push_back(waiting_.running().id);
  return true;
}

void shared_mutex::unlock() {
  if (waiting_.giver("shared_mutex::unlock", in_use()) == nullptr) {
    return;
  }
  if (writer_ != waiting_.running().id) {
    throw std::logic_error("annulet: shared_mutex::unlock: " + waiting_.running().describe() +
                           " does not have it for writing");
  }
  writer_ = nobody;
  serve();
}

void shared_mutex::unlock_shared() {
  if (waiting_.giver("shared_mutex::unlock_shared", in_use()) == nullptr) {
    return;
  }
  // From the end: who came last often goes first.
  const auto mine = std::find(readers_.rbegin(), readers_.rend(), waiting_.running().id);
  if (mine == readers_.rend()) {
    throw std::logic_error("annulet: shared_mutex::unlock_shared: " + waiting_.running().describe() +
                           " does not have it for reading");
  }
  *mine = readers_.back();
  readers_.pop_back();
  serve();
}

// Hands it to those at the head of the line that can have it now: one writer, or all readers up to the next.
void shared_mutex::serve() noexcept {
  while (writer_ == nobody && !waiting_.empty()) {
    auto& next = static_cast<queued&>(waiting_.front());
    if (next.wants == wish::reading) {
      readers_.push_back(next.fiber().id);
      --waiting_readers_;
    } else if (readers_.empty()) {
      writer_ = next.fiber().id;
    } else {
      return;
    }
    waiting_.wake_one();
  }
}

}  // namespace annulet
