// What the kernel has of the hub's: requests, the wake-ups of their files, and what becomes of them.
#include "kernel.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace simulated {

namespace {

constexpr std::size_t most_requests = 4096;
constexpr std::uint32_t always = POLLERR | POLLHUP;

long from_errno(long result) noexcept { return result < 0 ? -errno : result; }

}  // namespace

int poll_at_once(int file, std::uint32_t events) noexcept {
  pollfd one{file, static_cast<short>(events), 0};
  return ::poll(&one, 1, 0) == 1 ? static_cast<unsigned short>(one.revents) : 0;
}

kernel::held* kernel::hold(const io_uring_sqe& entry) noexcept {
  const int file = ::fcntl(entry.fd, F_DUPFD_CLOEXEC, first_file);
  if (file < 0) {
    return nullptr;
  }
  auto free = std::ranges::find_if(held_, [](const held& h) { return !h.taken; });
  if (free == held_.end()) {
    if (held_.size() == most_requests) {
      std::fputs("simulated kernel: too many requests\n", stderr);
      std::abort();
    }
    held_.emplace_back();
    free = held_.end() - 1;
  }
  *free = {};
  free->opcode = entry.opcode;
  free->data = entry.user_data;
  free->address = entry.addr;
  free->second = entry.off;
  free->length = entry.len;
  free->flags = entry.poll32_events;
  free->file = file;
  free->taken = true;
  free->serial = ++serial_;
  ++taken_;
  return &*free;
}

void kernel::release(held& h) noexcept {
  if (h.polls) {
    (void)::epoll_ctl(edges_, EPOLL_CTL_DEL, h.file, nullptr);
  }
  ::close(h.file);
  std::erase_if(due_, [&](std::uint32_t place) { return place == place_of(h); });
  h.taken = false;
  --taken_;
}

std::uint32_t kernel::place_of(const held& h) const noexcept {
  return static_cast<std::uint32_t>(&h - held_.data());
}

kernel::held* kernel::find(std::uint64_t data, bool polls) noexcept {
  const auto found = std::ranges::find_if(
      held_, [&](const held& h) { return h.taken && !h.ends && h.data == data && (h.polls || !polls); });
  return found == held_.end() ? nullptr : &*found;
}

std::size_t kernel::requests_in(const void* from, const void* to) const noexcept {
  const auto low = reinterpret_cast<std::uintptr_t>(from);
  const auto high = reinterpret_cast<std::uintptr_t>(to);
  const auto within = [&](std::uint64_t at) { return at >= low && at < high; };
  constexpr std::uint64_t address = (std::uint64_t{1} << 61) - 1;
  return static_cast<std::size_t>(std::ranges::count_if(held_, [&](const held& h) {
    return h.taken && !h.polls && (within(h.data & address) || within(h.address));
  }));
}

void kernel::due(held& h) noexcept {
  if (!h.due) {
    h.due = true;
    due_.push_back(place_of(h));
  }
}

std::uint32_t kernel::events_of(const held& h) noexcept { return h.flags | always; }

// --- wake-ups

void kernel::arm(held& h, int operation) noexcept {
  epoll_event event{};
  event.events = events_of(h) | EPOLLET;
  event.data.u64 = std::uint64_t{h.serial} << 32 | place_of(h);
  (void)::epoll_ctl(edges_, operation, h.file, &event);  // a regular file, always ready, is refused
  collect(&h);                                           // its level is looked at by who arms it
}

void kernel::collect(const held* but) noexcept {
  std::array<epoll_event, 64> events;
  int count = 0;
  do {
    count = ::epoll_wait(edges_, events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
      held& h = held_[static_cast<std::uint32_t>(events[static_cast<std::size_t>(i)].data.u64)];
      if (&h != but && h.taken && h.serial == events[static_cast<std::size_t>(i)].data.u64 >> 32) {
        due(h);
      }
    }
  } while (count == static_cast<int>(events.size()));
}

void kernel::notice() noexcept {
  collect(nullptr);
  late_ = false;
  if (!tells_of_work_) {
    deliver(due_.size());  // where it is not deferred, it is done on the way out of any system call
  }
  show_flags();
}

void kernel::happened() noexcept {
  if (ring_fd_ < 0) {
    return;
  }
  if (dice_say(moods_.late)) {
    late_ = true;
  } else {
    notice();
  }
}

// --- completions

void kernel::deliver(std::size_t at_least) noexcept {
  std::size_t count = due_.size();
  at_least = std::min(at_least, count);
  if (dice_say(moods_.withheld)) {
    count = at_least + dice_.below(count - at_least + 1);
  }
  for (; count != 0 && !due_.empty(); --count) {
    const auto at = static_cast<std::ptrdiff_t>(dice_say(moods_.reordered) ? dice_.below(due_.size()) : 0);
    held& h = held_[due_[static_cast<std::size_t>(at)]];
    due_.erase(due_.begin() + at);
    h.due = false;
    if (h.ends) {
      post(h.data, -ECANCELED, 0);
      release(h);
    } else if (h.polls) {
      tell_event(h);
    } else {
      transfer(h);
    }
  }
}

void kernel::tell_event(held& h) noexcept {
  int mask = poll_at_once(h.file, events_of(h));
  if (mask == 0) {
    // It was there when the wake-up came. Linux tells of it, or looks again and tells of nothing.
    mask = static_cast<int>(h.flags & (POLLIN | POLLOUT));
    if (mask == 0 || dice_.one_in(2)) {
      return;
    }
  }
  const bool multishot = (h.length & IORING_POLL_ADD_MULTI) != 0;
  if (dice_say(moods_.called_off)) {
    post(h.data, -ECANCELED, 0);
    release(h);
    return;
  }
  const bool room = overflow_.empty() && completions() <= completion_mask_;
  const bool more = multishot && room && !dice_say(moods_.ended);
  post(h.data, mask, more ? IORING_CQE_F_MORE : 0U);
  if (!more) {
    release(h);
  } else if (dice_say(moods_.twice)) {
    due(h);
  }
}

void kernel::transfer(held& h) noexcept {
  if (!can_go_on(h)) {
    return;  // somebody else was faster
  }
  const auto* const given = reinterpret_cast<const iovec*>(h.address);
  std::vector<iovec> vectors;
  if (h.opcode == IORING_OP_READV || h.opcode == IORING_OP_WRITEV) {
    vectors.assign(given, given + h.length);
    if (dice_say(moods_.part) && vectors[0].iov_len > 1) {
      vectors[0].iov_len = 1 + dice_.below(vectors[0].iov_len - 1);
      vectors.resize(1);
    }
  }
  const auto position = static_cast<off_t>(h.second);
  const int count = static_cast<int>(vectors.size());
  long result = 0;
  switch (h.opcode) {
    case IORING_OP_READV:
      result = from_errno(::preadv2(h.file, vectors.data(), count, position, 0));
      break;
    case IORING_OP_WRITEV:
      result = from_errno(::pwritev2(h.file, vectors.data(), count, position, 0));
      break;
    case IORING_OP_ACCEPT:
      result = from_errno(::accept4(h.file, reinterpret_cast<sockaddr*>(h.address),
                                    reinterpret_cast<socklen_t*>(h.second), static_cast<int>(h.flags)));
      break;
    case IORING_OP_FSYNC:
      result = from_errno(::fsync(h.file));
      break;
    default:
      std::fputs("simulated kernel: a request of a kind that is not simulated\n", stderr);
      std::abort();
  }
  post(h.data, static_cast<int>(result), 0);
  release(h);
}

bool kernel::can_go_on(const held& h) const noexcept {
  switch (h.opcode) {
    case IORING_OP_READV:
    case IORING_OP_ACCEPT:
      return poll_at_once(h.file, POLLIN) != 0;
    case IORING_OP_WRITEV:
      return poll_at_once(h.file, POLLOUT) != 0;
    default:
      return true;
  }
}

// Those that need not wait for anybody are carried out at some time.
void kernel::begin_transfers(bool all) noexcept {
  for (held& h : held_) {
    if (h.taken && !h.polls && !h.due && !h.ends && (all || dice_.one_in(4)) && can_go_on(h)) {
      due(h);
    }
  }
}

}  // namespace simulated
