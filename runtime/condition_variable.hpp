// Waits until another fiber has changed what a mutex protects, with the mutex given up meanwhile.
//
//   std::unique_lock lock(m);
//   ready.wait(lock, [&] { return !jobs.empty(); });
//
// For the fibers of one thread. notify_one wakes who waited longest. A wait ends for no other reason than a
// notify, the deadline or a cancellation; but by the time that the mutex is had again another fiber may have
// undone what was notified, so a predicate is the rule here too.
#pragma once

#include "deadline.hpp"
#include "mutex.hpp"
#include "wait_queue.hpp"

#include <concepts>
#include <mutex>

namespace [[gnu::visibility("default")]] annulet {

class condition_variable {
 public:
  condition_variable() = default;
  condition_variable(const condition_variable&) = delete;
  condition_variable& operator=(const condition_variable&) = delete;
  // Fibers that still wait get std::logic_error out of wait(), with their mutex, which must be there still
  // when they run.
  ~condition_variable() = default;

  // Neither parks.
  void notify_one();
  void notify_all();

  // Parks until notified. False where the deadline came first. However it ends, by a kill or a guard too, the
  // fiber has the mutex again. std::logic_error where it did not have it to begin with.
  bool wait(std::unique_lock<mutex>& lock, deadline until = deadline::never());

  // Parks until the predicate, which is called with the mutex held, says yes; its answer at the end.
  template <std::predicate Predicate>
  bool wait(std::unique_lock<mutex>& lock, Predicate&& done, deadline until = deadline::never()) {
    waiting_.begin("condition_variable::wait");
    while (!done()) {
      if (!wait(lock, until)) {
        return done();
      }
    }
    detail::wait_queue::breathe();
    return true;
  }

 private:
  detail::wait_queue waiting_;
};

}  // namespace annulet
