// So many permits, taken and given back by any fiber; who waits gets them first come first served.
//
// For the fibers of one thread. A permit goes from release() to who waited longest, and nobody can take it in
// between; a fiber that was killed while it waited is given none.
#pragma once

#include "deadline.hpp"
#include "wait_queue.hpp"

#include <cstddef>
#include <limits>

namespace [[gnu::visibility("default")]] annulet {

class semaphore {
 public:
  static constexpr std::size_t unbounded = std::numeric_limits<std::ptrdiff_t>::max();

  // With a bound, giving back more than was taken is an error. std::invalid_argument for initial > most, and
  // for more than `unbounded`, as what was negative is.
  explicit semaphore(std::size_t initial, std::size_t most = unbounded);
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;
  // Fibers that still wait get std::logic_error out of acquire().
  ~semaphore() = default;

  // Parks until there is a permit, and takes it.
  void acquire() { (void)acquire(deadline::never()); }
  // False where the deadline came first.
  [[nodiscard]] bool acquire(deadline until);
  // Does not park. False where there is none.
  [[nodiscard]] bool try_acquire();
  // Does not park. std::logic_error beyond the bound; then none was given.
  void release(std::size_t permits = 1);

  [[nodiscard]] std::size_t available() const noexcept { return permits_; }

 private:
  friend struct detail::lines;

  detail::wait_queue waiting_;  // empty unless permits_ is 0
  std::size_t permits_;
  const std::size_t most_;
};

}  // namespace annulet
