// What poll, select and an epoll set are asked, and what they said, for two of them to be held against each
// other.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

namespace oracle {

// What a call said: its result, or its errno as a negative number, and what it wrote.
struct answer {
  int result = 0;
  std::vector<std::uint64_t> written;
  bool operator==(const answer&) const = default;

  [[nodiscard]] std::string text() const {
    std::string all = std::to_string(result) + ":";
    for (const std::uint64_t one : written) {
      all += " " + std::to_string(one);
    }
    return all;
  }
};

inline int result_of(int returned) noexcept { return returned < 0 ? -errno : returned; }

struct poll_question {
  std::vector<pollfd> fds;

  template <class Call>
  answer ask(Call&& call) {
    for (pollfd& one : fds) {
      one.revents = 0x55;
    }
    answer said{result_of(call(fds.data(), fds.size())), {}};
    for (const pollfd& one : fds) {
      said.written.push_back(static_cast<std::uint16_t>(one.revents));
    }
    return said;
  }
  // Numbers about which they say different things.
  [[nodiscard]] std::vector<int> differing(const answer& one, const answer& other) const {
    std::vector<int> found;
    for (std::size_t i = 0; i < fds.size(); ++i) {
      if (one.written[i] != other.written[i]) {
        found.push_back(fds[i].fd);
      }
    }
    return found;
  }
};

struct select_question {
  std::array<fd_set, 3> sets{};
  int numbers = 0;

  template <class Call>
  answer ask(Call&& call) {
    std::array<fd_set, 3> now = sets;
    answer said{result_of(call(numbers, &now[0], &now[1], &now[2])), {}};
    for (const fd_set& set : now) {
      const auto* const words = reinterpret_cast<const std::uint64_t*>(&set);
      said.written.insert(said.written.end(), words, words + sizeof(set) / sizeof(*words));
    }
    return said;
  }
  [[nodiscard]] std::vector<int> differing(const answer& one, const answer& other) const {
    constexpr std::size_t words_a_set = sizeof(fd_set) / sizeof(std::uint64_t);
    std::vector<int> found;
    for (std::size_t i = 0; i < one.written.size(); ++i) {
      for (std::uint64_t bits = one.written[i] ^ other.written[i]; bits != 0; bits &= bits - 1) {
        found.push_back(static_cast<int>(i % words_a_set * 64) + std::countr_zero(bits));
      }
    }
    return found;
  }
};

// --- an epoll set's: each event with its descriptor, in order

inline constexpr std::size_t most_events = 128;  // more files than a machine has

template <class Call>
answer events_of(Call&& call) {
  std::array<epoll_event, most_events> events{};
  answer said{result_of(call(events.data(), static_cast<int>(events.size()))), {}};
  for (int i = 0; i < said.result; ++i) {
    const epoll_event& one = events[static_cast<std::size_t>(i)];
    said.written.push_back(std::uint64_t{one.events} << 32 | static_cast<std::uint32_t>(one.data.fd));
  }
  std::ranges::sort(said.written);
  return said;
}

inline int descriptor_of(std::uint64_t event) { return static_cast<int>(static_cast<std::uint32_t>(event)); }
inline std::set<int> descriptors_of(const answer& said) {
  std::set<int> all;
  std::ranges::transform(said.written, std::inserter(all, all.end()), descriptor_of);
  return all;
}
// Of the events that only one of them has.
inline std::vector<int> descriptors_in_one(const answer& one, const answer& other) {
  std::vector<std::uint64_t> events;
  std::ranges::set_symmetric_difference(one.written, other.written, std::back_inserter(events));
  std::vector<int> all;
  std::ranges::transform(events, std::back_inserter(all), descriptor_of);
  return all;
}

inline answer plain_events(int set) {
  return events_of([set](epoll_event* events, int most) { return ::epoll_wait(set, events, most, 0); });
}

}  // namespace oracle
